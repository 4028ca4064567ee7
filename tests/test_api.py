from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import IterableDataset, TensorDataset

import expunge
from expunge.api import load_method, unlearn
from expunge.data.examples import Examples
from expunge.data.mapped import MappedSource, examples_from_dataset
from expunge.errors import DataError, Diverged, InvalidInput, UnknownName
from expunge.methods.npo import NPO
from expunge.seeding import generator, global_generator
from expunge.testing.method_contract import image_case
from expunge.training import numerics
from expunge.training.recipe import Optimiser, Recipe


def convolutional() -> nn.Module:
    with global_generator(generator(0)):
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))


def dense() -> nn.Module:
    with global_generator(generator(0)):
        return nn.Sequential(nn.Flatten(), nn.Linear(36, 12), nn.ReLU(), nn.Linear(12, 3))


def dataset(count: int = 40) -> TensorDataset:
    draw = generator(0, "inputs")
    return TensorDataset(torch.randn(count, 1, 6, 6, generator=draw), torch.arange(count) % 3)


def trained(model: nn.Module, data: TensorDataset) -> nn.Module:
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(60):
        loss = nn.functional.cross_entropy(model(data.tensors[0]), data.tensors[1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.zero_grad()
    return model


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


SETTINGS: dict[str, dict[str, Any]] = {
    "rem": {"rounds": 2, "lr": 0.02, "batch_size": 16, "threshold": 0.2},
    "npo": {"passes": 10, "lr": 0.02, "threshold": 0.2},
    "finetune": {"epochs": 2},
    "retrain": {"recipe": Recipe(epochs=2, batch_size=16, optimiser=Optimiser(lr=0.05), augment=False)},
}


@pytest.mark.parametrize("make", [convolutional, dense])
@pytest.mark.parametrize("method", SETTINGS)
def test_own_model_and_dataset(method: str, make: Any) -> None:
    data = dataset()
    model = trained(make(), data)
    before, modes = state(model), [module.training for module in model.modules()]
    result = unlearn(model, data, forget=[0, 7, 11], method=method, device="cpu", **SETTINGS[method])
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in model.parameters())
    assert result.model is not model
    assert any(not torch.equal(t, before[n]) for n, t in result.model.state_dict().items())
    assert result.model(data.tensors[0]).shape == (40, 3)
    assert result.method.name == method
    assert result.cost.sample_gradients > 0


@pytest.mark.trains
def test_what_was_forgotten_is_forgotten() -> None:
    data = dataset()
    model, forget = trained(dense(), data), torch.tensor([0, 7, 11])

    def right(model: nn.Module) -> float:
        with torch.no_grad():
            return float(
                (model(data.tensors[0][forget]).argmax(1) == data.tensors[1][forget]).double().mean()
            )

    assert right(model) == 1
    result = unlearn(
        model, data, forget=forget, method="npo", threshold=0.0, lr=0.02, passes=50, device="cpu"
    )
    assert right(result.model) == 0


@pytest.mark.parametrize(
    "forget",
    [
        [7, 0, 11],
        (0, 7, 11),
        {0, 7, 11},
        iter([0, 7, 11]),
        torch.tensor([11, 7, 0]),
        np.array([0, 7, 11]),
        torch.isin(torch.arange(40), torch.tensor([0, 7, 11])),
        [position in (0, 7, 11) for position in range(40)],
    ],
    ids=["list", "tuple", "set", "iterator", "tensor", "array", "mask", "booleans"],
)
def test_ways_to_name_the_forget_set(forget: Any) -> None:
    model = dense()
    given = {"method": "gradient_ascent", "passes": 1, "threshold": 0.0, "device": "cpu", "seed": 4}
    expected = unlearn(model, dataset(), forget=[0, 7, 11], **given).model
    result = unlearn(model, dataset(), forget=forget, **given).model
    assert all(torch.equal(a, b) for a, b in zip(result.parameters(), expected.parameters(), strict=True))


def test_examples_are_taken_as_they_are() -> None:
    given = {"forget": [1, 2], "method": "npo", "passes": 1, "threshold": 0.0, "device": "cpu"}
    wrapped = unlearn(dense(), dataset(), **given).model
    direct = unlearn(dense(), examples_from_dataset(dataset(), 3), **given).model
    assert all(torch.equal(a, b) for a, b in zip(wrapped.parameters(), direct.parameters(), strict=True))


def test_examples_are_worked_on_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    examples = examples_from_dataset(dataset(), 3)
    result = unlearn(dense(), examples, forget=[1], method="npo", passes=1, threshold=0.0)
    assert result.cost.device == "cpu"


def test_a_configured_method() -> None:
    method = NPO(passes=2, threshold=0.0)
    assert unlearn(dense(), dataset(), forget=[1], method=method, device="cpu").method is method
    with pytest.raises(
        InvalidInput, match=r"settings \['lr', 'passes'\] go with a method's name; 'npo' is config"
    ):
        unlearn(dense(), dataset(), forget=[1], method=method, passes=3, lr=0.1)


@pytest.mark.parametrize(
    ("workers", "cache"), [(1, "auto"), (2, "auto"), (2, "none"), (0, "disk"), (0, "none")]
)
def test_who_reads_and_what_is_kept_changes_no_bit(workers: int, cache: str) -> None:
    given: dict[str, Any] = {"forget": [3, 5, 7], "method": "finetune", "epochs": 2, "batch_size": 16}
    plain = unlearn(dense(), dataset(), **given).model.state_dict()
    read = unlearn(dense(), dataset(), workers=workers, cache=cache, **given).model.state_dict()
    assert all(torch.equal(plain[name], read[name]) for name in plain)


def test_seed_decides() -> None:
    given = {
        "forget": [1, 5, 9],
        "method": "rem",
        "rounds": 1,
        "lr": 0.05,
        "batch_size": 16,
        "threshold": 0.2,
        "device": "cpu",
    }
    model = trained(dense(), dataset())
    first, same, other = (
        torch.cat([p.flatten() for p in unlearn(model, dataset(), seed=seed, **given).model.parameters()])
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_public_names() -> None:
    assert expunge.unlearn is unlearn
    assert all(getattr(expunge, name) is not None for name in expunge.__all__)
    with pytest.raises(AttributeError, match="module 'expunge' has no attribute 'unlern'"):
        expunge.unlern  # noqa: B018


def with_label(label: int) -> TensorDataset:
    inputs, labels = dataset().tensors
    labels[4] = label
    return TensorDataset(inputs, labels)


def with_input(value: float) -> TensorDataset:
    inputs, labels = dataset().tensors
    inputs[4, 0, 2, 2] = value
    return TensorDataset(inputs, labels)


def of_two_shapes() -> list[tuple[Tensor, int]]:
    return [(torch.randn(1, 6, 6 if i != 4 else 7), i % 3) for i in range(40)]


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(dataset())


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = dense()

    def forward(self, x: Tensor) -> Any:
        return self.net(x), x


BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "no forget set": ({"forget": []}, InvalidInput, "the forget set is empty: name at least one example"),
    "forget twice": ({"forget": [1, 2, 1]}, InvalidInput, r"1 forget indices are repeated \(the first is 1\)"),
    "forget too far": ({"forget": [1, 40]}, InvalidInput, r"must lie in 0\.\.39, but 1 do not \(the first is 40\)"),
    "forget negative": ({"forget": [-1]}, InvalidInput, r"must lie in 0\.\.39, but 1 do not \(the first is -1\)"),
    "forget all": ({"forget": range(40)}, InvalidInput, "the forget set is all of the 40 training examples"),
    "forget fractions": ({"forget": [0.5]}, InvalidInput, "forget indices must be integers, got torch.float32"),
    "short mask": ({"forget": torch.ones(3, dtype=torch.bool)}, InvalidInput, "one entry for each of the 40 ex"),
    "unknown method": ({"method": "remm"}, UnknownName, r"unknown method 'remm'; did you mean 'rem'\?"),
    "unknown setting": ({"round": 2}, UnknownName, r"method 'relearn' has no setting 'round' \(settings: .*epochs"),
    "setting out of range": ({"epochs": 1}, InvalidInput, "epochs must be at least 2"),
    "path to no method": (
        {"method": "expunge.training.recipe:Recipe"},
        InvalidInput,
        r"'expunge.training.recipe:Recipe' is <class .*Recipe'>, not a subclass of expunge.methods.base.Method",
    ),
    "path to an object": ({"method": "math:pi"}, InvalidInput, r"'math:pi' is 3\.14\d*, not a subclass of"),
    "oracle": ({"method": "rem_ideal"}, InvalidInput, "method 'rem_ideal' is an oracle: it needs to know what real"),
    "no recipe": ({"method": "retrain"}, InvalidInput, "needs what this request does not have: the recipe"),
    "label too large": ({"train_set": with_label(3)}, DataError, r"labels must lie in 0\.\.2, but 1 do not .* is 3 at"),
    "label negative": ({"train_set": with_label(-1)}, DataError, r"labels must lie in 0\.\.2, but 1 do not .* is -1"),
    "NaN": ({"train_set": with_input(float("nan"))}, DataError, "input 4 contains NaN or inf; remove or repair it"),
    "infinity": ({"train_set": with_input(float("inf"))}, DataError, "input 4 contains NaN or inf"),
    "two shapes": (
        {"train_set": of_two_shapes()},
        DataError,
        r"inputs must have one shape, but row \d+ has \(1, 6, \d\) and row \d+ has \(1, 6, \d\); resize them in the",
    ),
    "no pairs": ({"train_set": torch.zeros(40, 3, 6)}, DataError, r"items of the dataset must be \(input, label\)"),
    "a stream": ({"train_set": Stream()}, DataError, "a map-style dataset .* is expected, got Stream; the examples"),
    "no data": ({"train_set": [], "forget": [0]}, DataError, "the training set is empty"),
    "wrong input": (
        {"train_set": TensorDataset(torch.randn(40, 5), torch.arange(40) % 3)},
        InvalidInput,
        r"the model cannot read inputs of shape \(5,\), float32: RuntimeError: mat1 and mat2",
    ),
    "one logit too few": (
        {"train_set": examples_from_dataset(dataset(), 4)},
        InvalidInput,
        "the model gives 3 logits but the data has 4 classes",
    ),
    "no logits": (
        {"model": nn.Conv2d(1, 3, 3)},
        InvalidInput,
        r"the model returns \(3, 3, 4, 4\) for 3 inputs, expected logits \(3, C\); wrap it in a module that",
    ),
    "two outputs": ({"model": Pair()}, InvalidInput, r"the model returns a tuple of 2 for 3 inputs, expected logits"),
    "no parameters": ({"model": nn.Flatten()}, InvalidInput, "Flatten has no parameters; there is nothing to unlearn"),
    "all frozen": ({"model": dense().requires_grad_(False), "method": "finetune"}, InvalidInput, "no parameter requir"),
    "nowhere to redirect": (
        {"model": nn.Sequential(nn.Flatten(), nn.Linear(36, 3)), "method": "rem"},
        InvalidInput,
        "Sequential has no Conv2d, and no Linear beside its head, that dedicated neurons could be attached to",
    ),
    "divergence": (
        {"method": "finetune", "lr": 1e9, "batch_size": 4},
        Diverged,
        r"the training loss became (nan|inf) in epoch \d+ .* lower the learning rate",
    ),
    "forget a number": ({"forget": 5}, InvalidInput, r"forget must be positions .*, got 5; give a list, such as"),
    "forget words": ({"forget": "ab"}, InvalidInput, r"forget must be positions in the training set .*, got 'ab'"),
    "forget ragged": ({"forget": [[1, 2], [3]]}, InvalidInput, r"forget must be positions .*, got \[\[1, 2\], \[3\]\]"),
    "a class": (
        {"method": NPO, "passes": 2},
        InvalidInput,
        r"a configured method, got the class NPO; give method=NPO\(passes=2\)$",
    ),
    "no method": ({"method": 3}, InvalidInput, "method must be a name or a configured method, got 3; 'expunge list"),
    "no examples": (
        {"train_set": examples_from_dataset(dataset(), 3).select(torch.arange(0)), "forget": [0]},
        DataError,
        "the training set is empty",
    ),
    "examples elsewhere": (
        {"train_set": examples_from_dataset(dataset(), 3), "device": "meta"},
        InvalidInput,
        "train_set is on cpu and the work is to be done on meta; give a device that is the same for all",
    ),
    "unseen elsewhere": (
        {"unseen": Examples.all_of(MappedSource([], "meta"), torch.empty(0), 3), "method": "lotus"},
        InvalidInput,
        "unseen is on meta and the work is to be done on cpu",
    ),
    "unknown device": ({"device": "abacus"}, InvalidInput, "device 'abacus' is not one torch knows"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name: str) -> None:
    given, error, message = BAD[name]
    call = {"model": dense(), "train_set": dataset(), "forget": [0, 3], "device": "cpu", **given}
    model = call.pop("model")
    before = copy.deepcopy(model).state_dict()
    with pytest.raises(error, match=message):
        unlearn(model, call.pop("train_set"), **call)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


def test_load_method() -> None:
    assert load_method("npo", passes=3) == NPO(passes=3)
    assert load_method("expunge.methods.npo:NPO") == NPO()


def test_a_model_of_this_package() -> None:
    case = image_case()
    result = unlearn(
        case.model, case.split.train, forget=case.split.forget_positions, method="rem", rounds=1, lr=0.02,
        batch_size=32, device="cpu",
    )  # fmt: skip
    assert type(result.model) is type(case.model)


def test_unseen_data_and_codes_reach_the_methods_that_need_them() -> None:
    inputs = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(40) % 4
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
    # It stops at once where the forget set is known less than unseen data.
    unknown = net(inputs[32:]).argmin(1)
    data, held = TensorDataset(inputs[:32], labels[:32]), TensorDataset(inputs[32:], unknown)
    assert expunge.unlearn(
        net, data, forget=[0, 5], method="lotus", unseen=held, epochs=1
    ).cost.sample_gradients
    with pytest.raises(InvalidInput, match="examples the model was not trained on"):
        expunge.unlearn(net, data, forget=[0, 5], method="lotus", epochs=1)
    of_class_2 = (labels[:32] == 2).nonzero().flatten()
    codes = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))
    assert expunge.unlearn(net, data, forget=of_class_2, method="mnemonic_code", codes=codes).model is not net
    with pytest.raises(InvalidInput, match=r"the mnemonic codes .*Methods that would do: .*logit_mask"):
        expunge.unlearn(net, data, forget=of_class_2, method="mnemonic_code")


def gently(**given: Any) -> Any:
    """Settings of relearning that leave little to do."""
    return {"epochs": 2, "least_steps": 0, "device": "cpu", "forget": [0, 7, 11], **given}


def test_left_to_itself_it_chooses_as_clean_does() -> None:
    data = dataset()
    model = trained(dense(), data)
    short = Recipe(epochs=2, batch_size=16, optimiser=Optimiser(lr=0.05), augment=False)
    long = replace(short, epochs=80)
    assert unlearn(model, data, **gently()).method.name == "relearn"
    assert unlearn(model, data, recipe=long, discovery=1.0, **gently()).method.name == "relearn"
    dear: dict[str, Any] = {"forget": [0, 7, 11], "recipe": short, "device": "cpu"}
    assert unlearn(model, data, **dear).method.name == "retrain"
    # Retraining from a fresh initialisation would be another training.
    assert unlearn(model, data, base=dense().state_dict(), **dear).method.name == "relearn"
    forgetting = unlearn(model, data, purpose="forget", recipe=long, **gently()).method
    assert (forgetting.name, forgetting.settings()["not_label"]) == ("relearn", 0.0)
    # Layer norms are not shrunk; of three classes NatMU has too few; the next best follows the first training.
    normed = nn.Sequential(model, nn.LayerNorm(3))
    forgetting = unlearn(normed, data, forget=[0, 7, 11], purpose="forget", recipe=long, device="cpu").method
    assert (forgetting.name, forgetting.settings()["optimiser"]) == ("amnesiac", "sgd")
    assert forgetting.settings()["lr"] == 0.05


def test_weights_to_go_back_to() -> None:
    data = dataset()
    model, base = trained(dense(), data), dense()
    for name in ("base", "earlier"):
        result = unlearn(model, data, keep=0.5, lr=1e-9, **{name: base.state_dict()}, **gently()).model
        for key, tensor in result.state_dict().items():
            half = (model.state_dict()[key] + base.state_dict()[key]) / 2
            assert torch.allclose(tensor, half, atol=1e-5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"base": {}, "earlier": {}}, "base or earlier, not both"),
        ({"base": {}}, "base is an empty state dict"),
        ({"earlier": "net.pt"}, "earlier must be a state dict .*, got 'net.pt'; give torch.load"),
        ({"base": {"stem.weight": torch.zeros(2)}}, "none of the 1 names"),
        ({"base": {"1.weight": torch.zeros(12, 35)}}, r"'1.weight' of shape \(12, 35\)"),
        ({"forget": range(38)}, "2 examples are left beside the listed ones, for 3 classes"),
        ({"forget": []}, "'expunge find'"),
        ({"purpose": "mend"}, "'heal' or 'forget'"),
    ],
)
def test_what_relearning_cannot_work_with(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        unlearn(dense(), dataset(), **gently(**given))


def test_a_frozen_network() -> None:
    with pytest.raises(InvalidInput, match="every parameter is frozen"):
        unlearn(dense().requires_grad_(False), dataset(), **gently())


@pytest.mark.parametrize(
    ("shape", "dtype", "halved"),
    [((5,), None, False), ((1, 8, 8), None, False), ((1, 16, 16), None, True), ((1, 16, 16), "float32", False),
     ((5,), "bfloat16", True)],
)  # fmt: skip
def test_tables_and_small_images_are_computed_in_float32(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], dtype: str | None, halved: bool
) -> None:
    class Probe(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(int(np.prod(shape)), 2)

        def forward(self, x: Tensor) -> Tensor:
            if torch.is_grad_enabled():
                seen.add(torch.is_autocast_enabled("cpu"))
            return self.layer(x.flatten(1))

    seen: set[bool] = set()
    monkeypatch.setattr(numerics, "_multiplies_bfloat16", lambda kind: True)
    data = TensorDataset(torch.randn(12, *shape, generator=generator(0)), torch.arange(12) % 2)
    unlearn(Probe().eval(), data, forget=[1], method="finetune", epochs=1, device="cpu", dtype=dtype)
    assert seen == {halved}
