from __future__ import annotations

from typing import Any

import pytest
from numbers_of import facts, row

from expunge.audit.reading import reading
from expunge.audit.verdict import judge
from expunge.metrics.activation_distance import ActivationDistance
from expunge.metrics.base import Metric
from expunge.metrics.calibration import ECE

PASSED: dict[str, dict[str, Any]] = {
    "forget_accuracy": {"original": 1.0, "unlearned": 0.5, "retrained": 0.5, "floor": 0.01},
    "test_accuracy": {"original": 0.95, "unlearned": 0.95, "retrained": 0.95, "floor": 0.01},
}
HIDDEN = {"class_mean_probe": {"original": 0.9, "unlearned": 0.9, "retrained": 0.3, "floor": 0.01}}


def changed(name: str, **numbers: Any) -> dict[str, dict[str, Any]]:
    return {**PASSED, name: {**PASSED[name], **numbers}}


def test_forgot() -> None:
    verdict = judge(facts(PASSED))
    assert verdict.headline == "forgot"
    assert verdict.worked
    assert not verdict.failed
    assert "no longer does: forget accuracy" in verdict.findings[0].sentence
    assert any("hidden in the layers could not be looked for" in note for note in verdict.notes)


def test_hidden_is_looked_for_where_the_answers_pass() -> None:
    assert judge(facts(PASSED | HIDDEN)).headline == "hidden, not forgotten"
    remembered = judge(facts(changed("forget_accuracy", unlearned=1.0) | HIDDEN))
    assert remembered.headline == "did not forget"
    assert "It did not work: retrain" in remembered.advice
    damaged = judge(facts(changed("test_accuracy", unlearned=0.2) | HIDDEN))
    assert damaged.headline == "damaged utility"


def test_the_gravest_comes_first() -> None:
    worse = changed("test_accuracy", unlearned=0.2)
    verdict = judge(facts(worse | {"forget_accuracy": {**PASSED["forget_accuracy"], "unlearned": 0.1}}))
    assert verdict.outcomes == ("damaged utility", "over-forgot")
    assert [finding.outcome for finding in verdict.findings] == ["damaged utility", "over-forgot"]
    assert verdict.failed


def test_did_not_forget_says_more_than_partly() -> None:
    attack = {"original": (0.9, 0.89, 0.91), "unlearned": (0.9, 0.89, 0.91), "retrained": (0.5, 0.49, 0.51)}
    verdict = judge(facts(changed("forget_accuracy", unlearned=0.6) | {"confidence_attack": attack}))
    assert verdict.outcomes == ("did not forget",)
    assert [finding.outcome for finding in verdict.findings] == ["did not forget", "partly forgot"]


def test_undecided_where_nothing_tells_the_models_apart() -> None:
    verdict = judge(facts(changed("forget_accuracy", original=0.52)))
    assert verdict.headline == "undecided"
    assert "nothing measured here tells the original from the retrained model" in verdict.findings[0].sentence
    assert not verdict.worked
    assert not verdict.failed


def test_without_a_reference_the_claim_is_weaker() -> None:
    alone = {
        "forget_accuracy": {"original": 1.0, "unlearned": 0.0},
        "class_mean_probe": {"original": 0.9, "unlearned": 0.91},
        "confidence_attack": {"original": (0.6, 0.5, 0.7), "unlearned": (0.2, 0.1, 0.3)},
    }
    verdict = judge(
        facts({**alone, "confidence_attack": {"original": 0.6, "unlearned": 0.5}}, whole_classes=True)
    )
    assert verdict.headline == "forgot, as far as can be told without a retrained model"
    assert "No retrained model was given" in verdict.notes[0]
    assert (
        "tell the forgotten class as well as before (nearest class mean: 0.91, original 0.90)"
        in verdict.notes[1]
    )
    unknown = judge(facts(alone, labels="unknown"))
    assert any("as it should where its labels were wrong" in note for note in unknown.notes)


def test_odd_references_are_named() -> None:
    numbers = {
        "forget_accuracy": {"original": 1.0, "unlearned": 0.0, "retrained": 0.99},
        "test_accuracy": {"original": 0.95, "unlearned": 0.95, "retrained": 0.5},
        "healed_known": {"original": 0.1, "unlearned": 0.8, "retrained": 0.7},
    }
    notes = "\n".join(judge(facts(numbers, whole_classes=True)).notes)
    assert "answers 99.0% of the forgotten class: check that it was trained without it" in notes
    assert "retrained model's test accuracy is 50.0%, the original's 95.0%" in notes
    assert "No second retrained model was given" in notes
    assert "80.0% are now answered by the true one (original 10.0%, retrained 70.0%)" in notes


@pytest.mark.parametrize(
    ("steps", "said"), [(200.0, "after 200 steps only"), (None, "is not learned again in time"), (70.0, "")]
)
def test_a_mark_of_the_forgetting_is_named(steps: float | None, said: str) -> None:
    numbers = PASSED | {
        "relearn_time": {"original": 0.0, "unlearned": steps, "retrained": 59.0, "floor": 10.0},
        "relearn_reached": {"original": 1.0, "unlearned": 0.97, "retrained": 0.97},
    }
    verdict = judge(facts(numbers))
    assert verdict.headline == "forgot"
    marks = [note for note in verdict.notes if "a mark that a model that never saw it" in note]
    assert bool(marks) == bool(said)
    assert said in "".join(marks)


@pytest.mark.parametrize(
    ("metric", "numbers", "expected"),
    [
        (None, {"original": 1.0, "unlearned": 0.9, "retrained": 0.0}, "as before"),
        (None, {"original": 1.0, "unlearned": 0.1, "retrained": 0.0}, "as retrained"),
        (None, {"original": 1.0, "unlearned": 0.5, "retrained": 0.0}, "in between"),
        (None, {"original": 1.0, "unlearned": 0.5, "retrained": 0.0, "floor": 0.6}, "as retrained"),
        (None, {"original": 1.0, "unlearned": 0.2, "retrained": 0.6}, "past retrained"),
        (None, {"original": 0.6, "unlearned": 0.6, "retrained": 0.605}, "no contrast"),
        (None, {"original": 0.6, "unlearned": 0.2, "retrained": 0.605}, "unlike both"),
        (None, {"original": (0.6, 0.5, 0.7), "unlearned": (0.7, 0.6, 0.8), "retrained": 0.65}, "no contrast"),
        (None, {"original": None, "unlearned": 0.2, "retrained": 0.6}, "not as retrained"),
        (None, {"original": None, "unlearned": 0.6, "retrained": 0.6}, "as retrained"),
        (None, {"original": 0.6, "unlearned": None, "retrained": 0.6}, "not defined"),
        (None, {"original": 0.6, "unlearned": 0.6}, "as before"),
        (None, {"original": 0.6, "unlearned": 0.5}, "changed"),
        (
            ActivationDistance(),
            {"original": 1.2, "unlearned": 1.1, "retrained": 0.0, "floor": 0.2},
            "as before",
        ),
        (ECE(), {"original": 0.05, "unlearned": 0.2, "retrained": 0.06}, "worse"),
        (ECE(), {"original": 0.05, "unlearned": 0.065, "retrained": 0.06}, "as good"),
        (ECE(), {"original": 0.05, "unlearned": 0.01, "retrained": 0.06}, "better"),
        (ECE(), {"original": None, "unlearned": 0.01}, ""),
    ],
)
def test_reading(metric: Metric | None, numbers: dict[str, Any], expected: str) -> None:
    reference = "retrained" if "retrained" in numbers else ""
    assert reading(row("x", metric, **numbers), reference) == expected
