from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from corrupted_digits import corrupted_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

import expunge
from expunge.capacity.branches import Branched
from expunge.capacity.route import Router
from expunge.data.mapped import examples_from_dataset
from expunge.data.synthetic import learnable_images
from expunge.errors import InvalidInput
from expunge.methods.base import Request
from expunge.methods.rem_attached import AttachedREM
from expunge.seeding import derive_seed, generator, global_generator
from expunge.tasks.base import Split
from expunge.testing.method_contract import Case, convolutional_case, image_case, vector_case
from expunge.training.cost import Meter
from expunge.training.initialisation import shrink_and_perturb
from expunge.training.loop import Objective, accuracy
from expunge.training.numerics import Numerics

NUMERICS = Numerics(channels_last=False)
SMALL: dict[str, Any] = {"batch_size": 32, "rounds": 3, "least_steps": 0}


def granted(method: AttachedREM, case: Case) -> Request:
    return case.request(method).grant(method.name, method.needs)


def objective_of(method: AttachedREM, case: Case) -> Objective:
    return method._objective(granted(method, case))


@pytest.mark.parametrize("make", [image_case, convolutional_case, vector_case])
def test_the_result_has_the_form_of_the_network_and_no_branches(make: Any) -> None:
    case, method = make(), AttachedREM(**SMALL)
    outcome = method(case.model, case.request(method))
    assert str(outcome.model) == str(case.model)
    assert list(outcome.model.state_dict()) == list(case.model.state_dict())
    assert outcome.cost.parameters["during"] > outcome.cost.parameters["after"]
    assert outcome.found is None
    assert [row["round"] for row in outcome.log][-3:] == [1, 2, 3]


def test_masks_follow_the_row_of_the_source_and_the_forget_set_shares_one() -> None:
    case, seen = image_case(), dict[int, Tensor]()
    part = case.split.train.select(torch.arange(100, 192))
    method = AttachedREM(**{**SMALL, "rounds": 1}, augment=False, keep=1.0)
    original = Router.__call__

    def note(router: Router, index: Tensor, shared: Tensor) -> Any:
        route = original(router, index, shared)
        for row, mask in zip(index.tolist(), route.mask(50, 0), strict=True):
            seen[row] = mask
        return route

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Router, "__call__", note)
        method(case.model, Request(Split(part, torch.arange(5)), seed=0, numerics=NUMERICS))
    router = Router(method.open_share, derive_seed(0, "masks"))
    assert sorted(seen) == list(range(100, 192))
    for row, mask in seen.items():
        listed = row < 105
        assert torch.equal(mask, router(torch.tensor([row]), torch.tensor([listed])).mask(50, 0)[0])
    assert len({tuple(mask.tolist()) for mask in seen.values()}) == 92 - 5 + 1


def test_objective_equals_a_slow_loop() -> None:
    case = vector_case()  # no normalisation: training and evaluation are one function
    method = AttachedREM(batch_size=16, erase=0.7, margin=1.3, augment=False)
    network = Branched(copy.deepcopy(case.model), method.width, generator(1))
    batch = next(case.split.train.batches(16, generator(5)))
    loss = objective_of(method, case)(network, batch)
    drawn = case.split.forget.sample(4, case.request(method).generator("erasure"))  # a quarter of the batch
    assert loss.gradients == 16 + len(drawn)
    router, value = Router(method.open_share, derive_seed(0, "masks")), 0.0
    with torch.no_grad():
        for i in range(16):
            mark = case.split.forget_mask[batch.index[i : i + 1]]
            if not bool(mark):
                logits = network(batch.x[i : i + 1], router(batch.index[i : i + 1], mark))
                value += float(F.cross_entropy(logits, batch.y[i : i + 1])) / 16
        for i in range(len(drawn)):
            ce = float(F.cross_entropy(case.model(drawn.x[i : i + 1]), drawn.y[i : i + 1]))
            value += 0.7 * 2 * math.log1p(math.exp(-(ce - 1.3))) / len(drawn)
    assert float(loss.value.detach()) == pytest.approx(value, rel=1e-5)


def test_without_erasure_only_the_routed_loss_is_left() -> None:
    case, method = image_case(), AttachedREM(**SMALL, erase=0.0)
    outcome = method(case.model, case.request(method))
    assert outcome.cost.sample_gradients == 3 * 192


@pytest.mark.parametrize("keep", [1.0, 0.5])
def test_weights_before_the_first_round(keep: float, monkeypatch: pytest.MonkeyPatch) -> None:
    case, method = image_case(), AttachedREM(**SMALL, keep=keep)
    expected = copy.deepcopy(case.model)
    shrink_and_perturb(expected, keep, case.request(method).generator("loosen"))

    class Reached(Exception):
        pass

    def stop(_: AttachedREM, network: Branched, *given: Any, **rest: Any) -> float:
        for name, tensor in expected.state_dict().items():
            assert torch.equal(network.narrow().state_dict()[name], tensor), name
        raise Reached

    monkeypatch.setattr(AttachedREM, "fit", stop)
    with pytest.raises(Reached):
        method(case.model, case.request(method))
    same = all(torch.equal(a, b) for a, b in zip(expected.parameters(), case.model.parameters(), strict=True))
    assert same is (keep == 1)


def test_learning_rate_is_constant_then_falls(monkeypatch: pytest.MonkeyPatch) -> None:
    case, rates = vector_case(), list[float]()

    def note(*given: Any, optimizer: torch.optim.Optimizer, **rest: Any) -> float:
        rates.append(optimizer.param_groups[0]["lr"])
        return 0.0

    monkeypatch.setattr(AttachedREM, "fit", note)
    method = AttachedREM(lr=0.2, rounds=5, keep=1.0, least_steps=0)
    method(case.model, case.request(method))
    assert rates == pytest.approx([0.2, 0.2, 0.2, 0.2 * 2 / 3, 0.2 / 3])


@pytest.mark.parametrize(
    ("kept", "chosen"),
    [
        ([0.1, 0.9, 0.885], 3),  # within the tolerance: the last
        ([0.1, 0.9, 0.5], 2),
        ([0.9, 0.9, 0.5], 1),  # the first of equals
        ([0.1, 0.5, 0.9], 3),
    ],
)
def test_the_last_round_is_returned_unless_one_was_better(
    monkeypatch: pytest.MonkeyPatch, kept: list[float], chosen: int
) -> None:
    case, number = vector_case(), iter(range(1, 4))

    def mark(_: AttachedREM, network: Branched, *given: Any, **rest: Any) -> float:
        value = next(number)
        with torch.no_grad():
            for parameter in network.narrow().parameters():
                parameter.fill_(value)
        return 0.0

    def rate(model: nn.Module, examples: Any, _: Any) -> float:
        value = float(next(model.parameters()).detach().flatten()[0])
        known = len(examples) == len(case.split.forget)
        return 0.0 if known or not value.is_integer() or value < 1 else kept[int(value) - 1]

    monkeypatch.setattr(AttachedREM, "fit", mark)
    monkeypatch.setattr("expunge.methods.rem_attached.accuracy", rate)
    method = AttachedREM(rounds=3, keep=1.0, least_steps=0, tolerance=0.02)
    result = method(case.model, case.request(method)).model
    assert {float(value) for p in result.parameters() for value in p.detach().flatten()} == {float(chosen)}


@pytest.mark.parametrize(
    ("kept", "tried", "chosen"),
    [
        ({0.4: 0.71}, [0.4], 0.4),
        ({0.4: 0.69, 0.7: 0.9}, [0.4, 0.7], 0.7),
        ({0.4: 0.5, 0.7: 0.3, 0.85: 0.8}, [0.4, 0.7, 0.85], 0.85),
        ({0.4: 0.5, 0.7: 0.3, 0.85: 0.2}, [0.4, 0.7, 0.85], 0.4),
        ({1.0: 0.1}, [1.0], 1.0),  # nothing was shrunk
    ],
)
def test_a_network_that_does_not_come_back_is_shrunk_less(
    monkeypatch: pytest.MonkeyPatch, kept: dict[float, float], tried: list[float], chosen: float
) -> None:
    case, seen = image_case(), list[float]()
    start = copy.deepcopy(case.model.state_dict())
    before = accuracy(case.model, case.split.retain, case.numerics)
    assert before > 0.5

    def redirect(self: AttachedREM, network: Branched, _: Request) -> float:
        keep = round(self.keep, 3)
        seen.append(keep)
        given = network.narrow().state_dict()
        assert all(torch.equal(given[name], start[name]) for name in start)
        with torch.no_grad():
            next(network.narrow().parameters()).fill_(keep)
        return kept[keep] * before

    monkeypatch.setattr(AttachedREM, "_redirect", redirect)
    method = AttachedREM(keep=tried[0])
    result = method(case.model, case.request(method)).model
    assert seen == tried
    assert float(next(result.parameters()).detach().min()) == pytest.approx(chosen)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"keep": -0.1}, r"keep must lie in \[0, 1\], got -0.1"),
        ({"keep": math.nan}, r"keep must lie in \[0, 1\], got nan"),
        ({"tolerance": -0.01}, r"tolerance must lie in \[0, 1\], got -0.01"),
        ({"erase": -1.0}, "erase must be finite and at least 0, got -1"),
        ({"erase": math.nan}, "erase must be finite and at least 0, got nan"),
        ({"margin": math.inf}, "margin is a cross-entropy in nats, got inf"),
        ({"open_share": 0.0}, r"share of open units p must lie in \(0, 1\], got 0"),
        ({"width": 0.0}, "width must be positive and finite, got 0"),
        ({"rounds": 0}, "rounds must be positive and finite, got 0"),
        ({"least_steps": -1}, "least_steps must be finite and at least 0, got -1"),
        ({"lr": 0.0}, "learning rate must be positive and finite, got 0"),
        ({"batch_size": 0}, "batch_size must be positive and finite, got 0"),
        ({"optimiser": "lion"}, "optimiser must be .* got 'lion'"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        AttachedREM(**settings)


@pytest.mark.parametrize(
    ("n_train", "batch_size", "rounds", "steps"),
    [
        (50_000, 64, 6, 4692),
        (1437, 64, 6, 138),
        (600, 16, 6, 228),  # 114 in batches of 32
        (90, 8, 11, 132),
        (3, 8, 130, 130),
    ],
)
def test_little_data_is_seen_in_smaller_batches_then_more_often(
    n_train: int, batch_size: int, rounds: int, steps: int
) -> None:
    given = {"batch_size": 64, "rounds": 6, "least_steps": 130}
    method = AttachedREM(lr=0.07, **given).fitted_to(n_train)
    assert math.ceil(n_train / batch_size) * rounds == steps
    assert method == AttachedREM(lr=0.07, batch_size=batch_size, rounds=rounds, least_steps=130)
    as_given = AttachedREM(batch_size=7, least_steps=0)
    assert as_given.fitted_to(n_train) == as_given
    assert AttachedREM(batch_size=4).fitted_to(40_000).batch_size == 4


@pytest.mark.parametrize("given", ["res*", ["res*"], ("res*",)])
def test_layers_are_a_name_or_several(given: Any) -> None:
    method = AttachedREM(layers=given)
    assert method.layers == ("res*",)
    assert hash(method) == hash(AttachedREM.configured(method.settings()))


def test_a_layer_that_is_not_there() -> None:
    case, method = image_case(), AttachedREM(layers=("conv5.conv",))
    with pytest.raises(
        InvalidInput, match=r"is called 'conv5.conv'; did you mean 'conv\d.conv'\? \(there are:"
    ):
        method(case.model, case.request(method))


def test_a_network_without_a_place_is_refused_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    data = examples_from_dataset(TensorDataset(torch.randn(40, 4), torch.arange(40) % 2), 2)
    request = Request(Split(data, torch.arange(5)), seed=0, numerics=NUMERICS)
    monkeypatch.setattr(Meter, "count", lambda *_: pytest.fail("work was done"))
    with pytest.raises(InvalidInput, match="Linear has no Conv2d, and no Linear beside its head"):
        AttachedREM()(nn.Linear(4, 2), request)


def test_listed_digits_are_forgotten_and_unlisted_ones_healed_in_part() -> None:
    case, method = corrupted_digits(0.0, 0.1), AttachedREM()
    result, unknown = method(case.model, case.request(method)), case.truth.sets["corrupted_unknown"]
    assert case.forget_accuracy(result.model) <= 0.1
    assert accuracy(result.model, unknown, NUMERICS) > accuracy(case.model, unknown, NUMERICS) + 0.3
    test = case.truth.sets["test"]
    assert accuracy(result.model, test, NUMERICS) > accuracy(case.model, test, NUMERICS)


class Logits(nn.Module):
    """A classifier of the transformers library that returns its logits."""

    def __init__(self, classifier: Any) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(x).logits
        return logits


def small_bert() -> nn.Module:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config = transformers.BertConfig(
        vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=12, num_labels=3, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return Logits(transformers.BertForSequenceClassification(config))


def small_vit() -> nn.Module:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24, image_size=8,
        patch_size=4, num_channels=1, num_labels=4,
    )  # fmt: skip
    return Logits(transformers.ViTForImageClassification(config))


def images() -> TensorDataset:
    data = learnable_images(n_train=64)
    labels = data.train_labels.clone()
    labels[:8] = (labels[:8] + 1) % 4
    return TensorDataset(data.train_images / 255, labels)


def sentences() -> TensorDataset:
    tokens = torch.randint(0, 30, (64, 10), generator=generator(0))
    return TensorDataset(tokens, tokens[:, 0] % 3)


@pytest.mark.parametrize(("make", "data"), [(small_bert, sentences), (small_vit, images)])
def test_networks_of_the_transformers_library(make: Any, data: Any) -> None:
    with global_generator(generator(0)):
        model = make()
    results = [
        expunge.unlearn(
            model, data(), forget=range(4), method="rem_attached", batch_size=16, rounds=1, device="cpu",
            layers=layers,
        )
        for layers in ((), "*.layer*.0.*")
    ]  # fmt: skip
    for result in results:
        assert list(result.model.state_dict()) == list(model.state_dict())
        assert str(result.model) == str(model)
        assert not any(module._forward_hooks for module in result.model.modules())
    assert results[1].cost.parameters["during"] < results[0].cost.parameters["during"]
