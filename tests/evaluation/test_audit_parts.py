"""The problem, the rows, the choice of metrics, and the metrics of the audit itself."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import pytest
import torch
from numbers_of import facts
from torch import Tensor, nn

from expunge.data.examples import Examples
from expunge.data.synthetic import learnable_images
from expunge.errors import InvalidInput
from expunge.evaluation.audit_metrics import (
    ForgetAccuracy,
    KeptAccuracy,
    Relearned,
    audit_metrics,
    probed_layers,
)
from expunge.evaluation.audit_table import as_document, undefined
from expunge.evaluation.evidence import Audit, audit
from expunge.evaluation.problem import audit_problem
from expunge.evaluation.rows import measure_rows
from expunge.evaluation.verdict import CAVEAT, judge
from expunge.metrics.base import Evaluated, Metric, measure
from expunge.metrics.composites import ToW
from expunge.metrics.corruption import Healed
from expunge.metrics.relearn import Relearning
from expunge.models.mlp import MLP
from expunge.models.resnet9 import ResNet9
from expunge.tasks.forgetting import ForgetClasses
from expunge.training.numerics import Numerics
from expunge.training.recipe import Optimiser

CPU = Numerics(channels_last=False)
DATA = learnable_images(n_train=80, n_test=40, n_classes=4)
TRAIN = ForgetClasses(classes=(1,)).build(DATA).split.train
TEST = DATA.test()
CLASS = (TRAIN.labels == 1).nonzero().flatten()


def mlp(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return MLP(1, 8, 4, 8, "relu")


class Stored(nn.Module):
    """Answers what it was told at that image, else class 0."""

    def __init__(self, answers: Tensor) -> None:
        super().__init__()
        self.answers = answers

    def forward(self, x: Tensor) -> Tensor:
        known = torch.cat([batch.x for batch in TRAIN.batches(100)])
        far = (x.flatten(1)[:, None] - known.flatten(1)).abs().amax(2)
        rows = far.min(1)
        found = torch.where(rows.values < 1e-3, self.answers[rows.indices], 0)
        return 5.0 * nn.functional.one_hot(found, 4)


def test_a_class_has_its_own_test_images() -> None:
    given = audit_problem(TRAIN, CLASS, TEST)
    by_task = ForgetClasses(classes=(1,)).build(DATA)
    for name in ("test", "remaining_test", "forget_test", "forget", "retain"):
        assert torch.equal(given.truth.sets[name].index, by_task.truth.sets[name].index)
        assert torch.equal(given.truth.sets[name].labels, by_task.truth.sets[name].labels)
    assert "corrupted_known" not in given.truth.sets
    assert given.split.forget_classes == (1,)
    assert given.shape == (1, 8, 8)


def test_samples_have_none() -> None:
    given = audit_problem(TRAIN, torch.tensor([5, 3]), TEST)
    assert given.split.forget_positions.tolist() == [3, 5]
    assert "forget_test" not in given.truth.sets
    assert len(given.truth.sets["remaining_test"]) == len(TEST)


def test_true_labels_make_the_corrupted_sets() -> None:
    true = TRAIN.labels.clone()
    true[[3, 5, 7]] = (true[[3, 5, 7]] + 1) % 4
    true[9] = -1  # not known: counts as right
    given = audit_problem(TRAIN, torch.tensor([3, 5, 9]), TEST, true)
    assert given.truth.known.tolist() == [3, 5]
    assert given.truth.unknown.tolist() == [7]
    assert given.truth.sets["corrupted_known"].labels.tolist() == true[[3, 5]].tolist()
    expected = [*true[[3, 5]].tolist(), int(TRAIN.labels[9])]
    assert given.truth.sets["forget"].labels.tolist() == expected
    assert torch.equal(given.split.train.labels, TRAIN.labels)


def test_the_problem_refuses() -> None:
    with pytest.raises(InvalidInput, match="forget set is empty"):
        audit_problem(TRAIN, torch.tensor([], dtype=torch.int64), TEST)
    with pytest.raises(InvalidInput, match=r"test examples of the 4 classes .* got 0 of 4"):
        audit_problem(TRAIN, CLASS, TEST.select(torch.tensor([], dtype=torch.int64)))
    with pytest.raises(InvalidInput, match="got 40 of 5 classes"):
        audit_problem(TRAIN, CLASS, Examples(TEST.source, TEST.labels, TEST.index, 5))
    with pytest.raises(InvalidInput, match="one for each of the 80 training examples, got shape"):
        audit_problem(TRAIN, CLASS, TEST, torch.zeros(7, dtype=torch.int64))


def test_accuracies_by_hand() -> None:
    answers = TRAIN.labels.clone()
    answers[CLASS[:5]] = 2  # 15 of 20 are left
    answers[(TRAIN.labels == 3).nonzero().flatten()[:6]] = 0  # 54 of 60
    given = Evaluated(Stored(answers), audit_problem(TRAIN, CLASS, TEST), CPU)
    found = {
        entry.name: entry.value
        for metric in (ForgetAccuracy(), KeptAccuracy())
        for entry in measure(metric, given)
    }
    # an unseen image is called class 0: a third of the thirty that are not of class 1
    assert found == {
        "forget_accuracy": 0.75,
        "forget_test_accuracy": 0.0,
        "test_accuracy": pytest.approx(1 / 3),
        "retain_accuracy": 0.9,
    }


@pytest.mark.trains
def test_relearning_reports_how_far_it_came(margin: Callable[..., None]) -> None:
    problem = audit_problem(TRAIN, CLASS, TEST)
    right = Evaluated(Stored(TRAIN.labels), problem, CPU)
    slow = Relearning(optimiser=Optimiser(lr=1e-6), max_steps=2)
    metric = Relearned(relearning=slow)
    found = measure(metric, Evaluated(mlp(0), problem, CPU, {"original": right}))
    assert [entry.name for entry in found] == ["relearn_time", "relearn_reached"]
    assert found[0].value is None
    assert found[0].because == "an accuracy of 0.950 is not regained within 2 steps"
    assert found[1].value is not None
    margin("reached in two steps", found[1].value, below=0.95)
    fast = Relearned(relearning=Relearning(optimiser=Optimiser(lr=0.1)))
    steps, reached = measure(fast, Evaluated(mlp(0), problem, CPU, {"original": right}))
    assert steps.value == fast(Evaluated(mlp(0), problem, CPU, {"original": right}))
    assert reached.value is not None
    assert reached.value >= 0.95


def test_rows_and_their_floor() -> None:
    problem = audit_problem(TRAIN, CLASS, TEST)
    models: dict[str, Evaluated] = {}
    for seed, role in enumerate(("original", "unlearned", "retrained", "second_retrained")):
        models[role] = Evaluated(mlp(seed), problem, CPU, models)
    rows, seconds = measure_rows([KeptAccuracy(), ToW()], models)
    assert [row.name for row in rows] == ["test_accuracy", "retain_accuracy", "tow"]
    assert set(seconds) == {"test_accuracy", "tow"}
    accuracy, _, tow = rows
    assert accuracy.floor == abs(
        KeptAccuracy()(models["retrained"]) - KeptAccuracy()(models["second_retrained"])
    )
    # the retrained model is at no distance of itself, the second one at the floor's
    assert tow.value("retrained") == 1.0
    assert tow.floor == pytest.approx(1 - ToW()(models["second_retrained"]))
    assert tow.value("oracle") is None
    assert "second_retrained" not in tow.models


def test_a_metric_that_cannot_use_an_input_ends_nothing() -> None:
    class Picky(Metric):
        name = "picky"

        def __call__(self, evaluated: Evaluated) -> float:
            raise InvalidInput("not this one")

    problem = audit_problem(TRAIN, CLASS, TEST)
    models = {role: Evaluated(mlp(0), problem, CPU) for role in ("original", "unlearned")}
    (row,), _ = measure_rows([Picky()], models)
    assert row.because == "not this one"


def test_what_is_measured() -> None:
    problem = audit_problem(TRAIN, CLASS, TEST)
    names = [metric.name for metric in audit_metrics(mlp(0), problem)]
    quick = [metric.name for metric in audit_metrics(mlp(0), problem, quick=True)]
    assert set(names) - set(quick) == {
        "relearn_time", "idi", "svc_efficacy", "accuracy_gaps", "residual_knowledge",
    }  # fmt: skip
    assert "healed" not in names
    wrong = TRAIN.labels.clone()
    wrong[0] = (wrong[0] + 1) % 4
    metrics = audit_metrics(mlp(0), audit_problem(TRAIN, CLASS, TEST, wrong))
    assert any(isinstance(metric, Healed) for metric in metrics)


def test_layers_are_spread_and_end_with_the_last() -> None:
    net = ResNet9(1, 8, 4, width=4)
    x = torch.randn(2, 1, 8, 8)
    assert probed_layers(net, x, 4, 3) == ("conv2", "conv3", "conv4")
    assert probed_layers(net, x, 4, 1) == ("conv4",)
    assert probed_layers(mlp(0), x, 4, 3) == ("hidden",)
    assert probed_layers(nn.Flatten(), x, 4, 3) == ()


def test_a_part_that_puts_out_no_tensor_is_taken_apart() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(64, 8), nn.Linear(8, 6)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            first = self.first(x).relu()
            return first, self.second(first)

    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = Pair(), nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.head(self.body(x.flatten(1))[1])
            return result

    assert probed_layers(Last(), torch.randn(2, 1, 8, 8), 4, 3) == ("body.first", "body.second")


def small(**models: nn.Module) -> Audit:
    given = {"original": mlp(0), "unlearned": mlp(1), **models}
    metrics = [ToW()]
    return audit(
        given.pop("original"),
        given.pop("unlearned"),
        TRAIN,
        CLASS,
        TEST,
        numerics=CPU,
        metrics=metrics,
        **given,
    )  # type: ignore[arg-type]


def test_the_models_stay_as_they_are_and_progress_is_told() -> None:
    model, shares = mlp(0).train(), []
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    audit(model, model, TRAIN, CLASS, TEST, metrics=[KeptAccuracy()], progress=shares.append)
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert shares == [0.25, 0.5, 0.75, 1.0]  # two metrics of two models: one of them is always measured


def test_the_accuracies_are_always_measured() -> None:
    found = small()
    assert [row.name for row in found.rows][:2] == ["forget_accuracy", "forget_test_accuracy"]
    assert found.rows[-1].because == "it compares with the retrained model, which is not given"


def test_the_audit_refuses() -> None:
    with pytest.raises(
        InvalidInput, match=r"the retrained model returns 3 logits, but the data has 4 classes"
    ):
        small(retrained=MLP(1, 8, 3, 8, "relu"))
    with pytest.raises(InvalidInput, match="give retrained too"):
        small(second_retrained=mlp(2))


def test_the_document_is_plain() -> None:
    found = small(retrained=mlp(2), second_retrained=mlp(3))
    document = json.loads(json.dumps(as_document(found, {"made_from": {"data": "x"}}), allow_nan=False))
    assert document["caveat"] == CAVEAT
    assert document["verdict"]["outcomes"] == list(found.verdict.outcomes)
    assert document["reference"] == "retrained"
    assert document["made_from"] == {"data": "x"}
    assert document["counts"]["n_forget"] == 20
    entries = {entry["name"]: entry for entry in document["measurements"]}
    assert entries["tow"]["models"]["retrained"] == {"value": 1.0}
    assert entries["tow"]["floor"] == found.rows[-1].floor
    assert all(math.isfinite(seconds) for seconds in document["seconds"].values())
    alone = as_document(small())
    (tow,) = (entry for entry in alone["measurements"] if entry["name"] == "tow")
    assert tow["models"]["unlearned"] == {
        "not_defined": "it compares with the retrained model, which is not given"
    }


def test_a_model_that_has_diverged_is_damaged_not_undefined() -> None:
    broken = mlp(1)
    with torch.no_grad():
        next(broken.parameters()).fill_(float("nan"))
    found = audit(Stored(TRAIN.labels), broken, TRAIN, CLASS, TRAIN, numerics=CPU, quick=True)
    assert "damaged utility" in found.verdict.outcomes
    assert any("NaN" in row.because for row in found.rows)


def test_judging_needs_no_more_than_there_is() -> None:
    assert judge(facts({})).headline == "undecided"


def test_an_audit_without_test_examples_says_what_is_not_defined() -> None:
    answers = TRAIN.labels.clone()
    answers[CLASS] = 0
    found = audit(
        Stored(TRAIN.labels), Stored(answers), TRAIN, CLASS, None, numerics=CPU, quick=True, labels="wrong"
    )
    assert found.verdict.outcomes == ("forgot",)
    reasons = undefined(found)
    assert "test accuracy" in reasons["it needs examples that no model was trained on, which were not given"]
    assert reasons["no true label is given that differs from the given one"] == ["healed"]
    assert any(
        note.startswith("Healing is not defined here, because no true label") for note in found.verdict.notes
    )
    assert found.facts.labels == "wrong"
    assert not any("sets" in reason or "'test'" in reason for reason in reasons), reasons


def test_true_labels_are_stronger_than_what_is_said() -> None:
    wrong = TRAIN.labels.clone()
    wrong[CLASS[0]] = 3
    same = Stored(TRAIN.labels)
    found = audit(same, same, TRAIN, CLASS, TEST, numerics=CPU, metrics=[], true_labels=wrong, labels="right")
    assert found.facts.labels == "wrong"
    found = audit(
        same, same, TRAIN, CLASS, TEST, numerics=CPU, metrics=[], true_labels=TRAIN.labels, labels="wrong"
    )
    assert found.facts.labels == "wrong"
    found = audit(same, same, TRAIN, CLASS, TEST, numerics=CPU, metrics=[])
    assert found.facts.labels == "unknown"


def test_unseen_rows_are_weighted_by_the_classes_of_the_forget_set() -> None:
    # Nine of class 0 and three of class 2 are to be forgotten.
    rows = [
        int(row) for label, count in ((0, 9), (2, 3)) for row in (TRAIN.labels == label).nonzero()[:count]
    ]
    model = mlp(3)
    found = audit(model, model, TRAIN, torch.tensor(rows), TEST, labels="right", metrics=[ForgetAccuracy()])
    with torch.no_grad():
        batch = next(TEST.batches(100))
        given = model(batch.x).argmax(1)
    right = (given == batch.y).double()
    by_hand = (9 * float(right[batch.y == 0].mean()) + 3 * float(right[batch.y == 2].mean())) / 12
    assert found.facts.value("unseen_like_forget", "unlearned") == pytest.approx(by_hand)
    # If the labels of the twelve are wrong: unseen rows of other classes that are given 0, and 2.
    mistaken = [float((given[batch.y != label] == label).double().mean()) for label in (0, 2)]
    by_hand = (9 * mistaken[0] + 3 * mistaken[1]) / 12
    assert found.facts.value("unseen_given_by_mistake", "unlearned") == pytest.approx(by_hand)
    without = audit(model, model, TRAIN, torch.tensor(rows), None, labels="right", metrics=[ForgetAccuracy()])
    assert without.facts.value("unseen_given_by_mistake", "unlearned") is None
    assert without.facts.value("unseen_like_forget", "unlearned") is None
