from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from expunge.data.examples import Examples
from expunge.data.mapped import examples_from_dataset
from expunge.errors import InvalidInput, UndeclaredNeed
from expunge.methods.base import Needs, Request
from expunge.methods.scrub import SCRUB, SCRUBRewind, class_shares, rewind_to, weighted_error
from expunge.tasks.base import Split
from expunge.training.loop import accuracy
from expunge.training.numerics import Numerics

CPU = Numerics(channels_last=False)
N_CLASSES = 3


def examples(count: int, seed: int) -> Examples:
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % N_CLASSES
    x = 2 * torch.eye(N_CLASSES, 5)[labels] + 0.3 * torch.randn(count, 5, generator=draw)
    return examples_from_dataset(torch.utils.data.TensorDataset(x, labels), N_CLASSES)


def linear(seed: int = 0) -> nn.Linear:
    layer = nn.Linear(5, N_CLASSES, bias=False)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(N_CLASSES, 5) + 0.1 * torch.randn(N_CLASSES, 5, generator=draw))
    return layer


def request(unseen: Examples | None = None, forget: Tensor | None = None) -> Request:
    positions = torch.arange(6) if forget is None else forget
    return Request(Split(examples(30, 0), positions, unseen), seed=0, numerics=CPU)


def plain(kind: type[SCRUB] = SCRUB, **settings: float) -> SCRUB:
    """SGD without momentum or decay, one batch a pass."""
    common = {"lr": 0.1, "momentum": 0.0, "weight_decay": 0.0, "batch_size": 64, "forget_batch_size": 64}
    return kind.configured({**common, "schedule": "constant", "augment": False, **settings})  # type: ignore[return-value]


def slope_of_divergence(w: Tensor, w0: Tensor, x: Tensor, T: float) -> Tensor:
    """d/dW of the mean of T^2 KL(softmax(W0 x / T) || softmax(W x / T)): T (q - p) x' averaged."""
    p, q = ((x @ m.T / T).softmax(1) for m in (w0, w))
    return T * (q - p).T @ x / len(x)


def slope_of_cross_entropy(w: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return ((x @ w.T).softmax(1) - torch.eye(N_CLASSES)[y]).T @ x / len(x)


def test_one_epoch_of_min_steps_is_the_hand_formula() -> None:
    """With max_epochs the first, the max step at the teacher itself has no slope: only the min step moves."""
    given, model = request(), linear()
    outcome = plain(epochs=1, max_epochs=1, alpha=0.5, gamma=0.7)(model, given)
    retain = examples(30, 0).select(torch.arange(6, 30))
    batch = next(retain.batches(64))
    w = model.weight.detach()
    expected = w - 0.1 * 0.7 * slope_of_cross_entropy(w, batch.x, batch.y)
    torch.testing.assert_close(outcome.model.weight.detach(), expected)
    assert outcome.cost.sample_gradients == 6 + 24


@pytest.mark.parametrize("max_epochs", [1, 2])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_two_epochs_are_the_hand_formula(max_epochs: int, temperature: float) -> None:
    """The second epoch starts away from the teacher: a max step (if any left), then a min step with both terms."""
    model, lr, alpha, gamma = linear(), 0.1, 0.5, 0.7
    method = plain(epochs=2, max_epochs=max_epochs, alpha=alpha, gamma=gamma, temperature=temperature)
    after = method(model, request()).model.weight.detach()
    forget, retain = (
        next(examples(30, 0).select(p).batches(64)) for p in (torch.arange(6), torch.arange(6, 30))
    )
    w0 = model.weight.detach()
    w = w0.clone()
    for epoch in range(2):
        if epoch < max_epochs:
            w = w + lr * slope_of_divergence(w, w0, forget.x, temperature)
        w = w - lr * (
            alpha * slope_of_divergence(w, w0, retain.x, temperature)
            + gamma * slope_of_cross_entropy(w, retain.x, retain.y)
        )
    torch.testing.assert_close(after, w)


def test_learning_rate_follows_the_schedule_from_epoch_to_epoch() -> None:
    model, w = linear(), linear().weight.detach()
    after = plain(epochs=2, max_epochs=1, alpha=0.0, gamma=1.0, lr=0.1, schedule="warmup_decay")(  # type: ignore[arg-type]
        model, request()
    ).model.weight.detach()
    retain = next(examples(30, 0).select(torch.arange(6, 30)).batches(64))
    for factor in (1.0, 1 - 1 / 2.5):
        w = w - 0.1 * factor * slope_of_cross_entropy(w, retain.x, retain.y)
    torch.testing.assert_close(after, w)


def test_a_max_step_on_one_example_leaves_running_statistics_alone() -> None:
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, N_CLASSES))
    one = Request(Split(examples(30, 0), torch.tensor([3])), seed=0, numerics=CPU)
    result = plain(epochs=3, max_epochs=3)(model, one).model
    # A single forgotten example has no batch statistics; one retained batch in each of the three epochs is counted.
    assert int(result[1].num_batches_tracked) == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha": -1.0}, "alpha and gamma must be at least 0"),
        ({"alpha": 0.0, "gamma": 0.0}, "not both 0"),
        ({"alpha": math.nan}, "alpha takes a number, got nan"),
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"epochs": 0}, "epochs must be positive"),
        ({"max_epochs": 0}, "max_epochs must be positive"),
        ({"forget_batch_size": 0}, "forget_batch_size must be positive"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        SCRUB.configured(settings)


# --- rewind


def test_rewind_takes_the_closest_and_of_several_the_last() -> None:
    assert rewind_to([0.1, 0.5, 0.9], 0.6) == 1
    assert rewind_to([0.1, 0.9], 0.9) == 1
    assert rewind_to([0.25, 0.75, 0.25], 0.25) == 2
    assert rewind_to([0.25, 0.75], 0.5) == 1


def test_error_is_weighted_by_class() -> None:
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 2])
    predicted = torch.tensor([0, 0, 0, 1, 0, 1, 0])
    logits = torch.eye(3)[predicted]
    unseen = examples_from_dataset(torch.utils.data.TensorDataset(logits, labels), 3)
    shares = torch.tensor([0.25, 0.75, 0.0], dtype=torch.float64)
    error = weighted_error(nn.Identity(), unseen, shares, request())
    assert error == pytest.approx(0.25 * 0.25 + 0.75 * 0.5)
    assert class_shares(unseen).tolist() == pytest.approx([4 / 7, 2 / 7, 1 / 7])


def rewinding(**settings: float) -> SCRUBRewind:
    return plain(SCRUBRewind, **{"lr": 3.0, "epochs": 6, "max_epochs": 4, "alpha": 0.01, **settings})  # type: ignore[return-value]


@pytest.mark.trains
def test_rewind_returns_the_epoch_that_was_chosen() -> None:
    unseen, model = examples(60, 1), linear()
    method = rewinding()
    outcome = method(model, request(unseen))
    errors, epochs = [], []
    for epoch in range(1, 7):
        # An epoch's weights do not depend on how many follow it under a constant schedule.
        shorter = SCRUB.configured({**method.settings(), "epochs": epoch})(model, request()).model
        epochs.append(shorter.weight.detach())
        forget = examples(30, 0).select(torch.arange(6))
        errors.append(1 - accuracy(shorter, forget, CPU))
    last = linear()
    with torch.no_grad():
        last.weight.copy_(epochs[-1])
    # The forget set has two examples of each class, so all classes count alike.
    reference = 1 - accuracy(last, unseen, CPU)
    rows = outcome.log
    assert [row["forget_error"] for row in rows[:-1]] == pytest.approx(errors)
    assert rows[-1]["reference_error"] == pytest.approx(reference)
    chosen = int(rows[-1]["chosen_epoch"]) - 1
    assert abs(errors[chosen] - reference) == min(abs(error - reference) for error in errors)
    assert torch.equal(outcome.model.weight.detach(), epochs[chosen])


def test_rewind_can_leave_the_last_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("expunge.methods.scrub.rewind_to", lambda errors, reference: 1)
    method = rewinding()
    outcome = method(linear(), request(examples(60, 1)))
    second = SCRUB.configured({**method.settings(), "epochs": 2})(linear(), request()).model
    last = SCRUB.configured(method.settings())(linear(), request()).model
    assert torch.equal(outcome.model.weight, second.weight)
    assert not torch.equal(outcome.model.weight, last.weight)


def test_rewind_refuses_a_request_without_unseen_data() -> None:
    with pytest.raises(InvalidInput, match="unseen=") as raised:
        SCRUBRewind()(linear(), request())
    assert "'scrub_rewind'" in str(raised.value)


def test_rewind_refuses_unseen_data_without_a_class_of_the_forget_set() -> None:
    unseen = examples(60, 1)
    lacking = unseen.select(unseen.labels != 1)
    with pytest.raises(InvalidInput, match=r"40 unseen examples have none of class \[1\]"):
        rewinding()(linear(), request(lacking))
    # A class that is not in the forget set may be absent.
    only = (examples(30, 0).labels == 0).nonzero().flatten()[:5]
    rewinding()(linear(), request(lacking, only))


def test_rewind_keeps_the_contract() -> None:
    unseen, model = examples(60, 1), linear()
    before = model.weight.detach().clone()
    outcome = rewinding()(model, request(unseen))
    assert torch.equal(model.weight, before)
    assert model.weight.grad is None
    assert bool(outcome.model.weight.isfinite().all())
    again = rewinding()(model, request(unseen)).model
    assert torch.equal(again.weight, outcome.model.weight)
    granted = request(unseen).grant("scrub_rewind", SCRUBRewind.needs)
    for read, need in (("recipe", Needs.RECIPE), ("truth", Needs.TRUTH), ("codes", Needs.CODES)):
        with pytest.raises(UndeclaredNeed, match=str(need)):
            getattr(granted, read)
    with pytest.raises(UndeclaredNeed, match="unseen"):
        _ = request(unseen).grant("scrub", SCRUB.needs).unseen
    assert SCRUBRewind.configured(rewinding().settings()) == rewinding()


def test_rewind_forgets_what_unseen_data_do_not_support() -> None:
    """A model that gives every example the next class is wrong on all unseen ones, and right on the forget set."""
    train, unseen = examples(30, 0), examples(60, 1)
    wrong = (train.labels + 1) % N_CLASSES
    forget = torch.arange(6)
    stored = torch.where(torch.arange(30) < 6, wrong, train.labels)
    model = nn.Linear(5, 3, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.eye(3, 5).roll(1, 0))
    split = Split(train.relabel(stored), forget, unseen)
    given = Request(split, seed=0, numerics=CPU)
    assert accuracy(model, split.forget, CPU) == 1
    after = rewinding(lr=1.0)(model, given).model
    assert accuracy(after, split.forget, CPU) <= 0.5
