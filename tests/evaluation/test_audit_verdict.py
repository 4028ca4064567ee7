from __future__ import annotations

from typing import Any

import pytest
from numbers_of import facts, row

from expunge.evaluation.audit_table import reading
from expunge.evaluation.facts import Finding
from expunge.evaluation.verdict import judge
from expunge.metrics.base import Metric
from expunge.metrics.calibration import ECE
from expunge.metrics.compared_predictions import ActivationDistance

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
    assert remembered.grade == "it did not work: retrain"
    assert "Retrain without the forget set" in remembered.advice
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


WRONG: dict[str, dict[str, Any]] = {
    "forget_accuracy": {"original": 0.95, "unlearned": 0.02},
    "test_accuracy": {"original": 0.90, "unlearned": 0.91},
    "retain_accuracy": {"original": 0.99, "unlearned": 0.97},
}


def healed(known: float, **others: float) -> dict[str, dict[str, Any]]:
    return WRONG | {"healed_known": {"original": 0.05, "unlearned": known, **others}}


def test_wrong_labels_taken_out() -> None:
    verdict = judge(facts(WRONG, labels="wrong"))
    assert (verdict.outcomes, verdict.grade) == (("forgot",), "it worked")
    assert [finding.sentence for finding in verdict.findings] == [
        "accuracy on the forget set is 2.0% (original 95.0%); what gave the original away no longer does: "
        "forget accuracy",
        "test accuracy is 91.0% (original 90.0%)",
    ]
    assert "No retrained model was given: what retraining would reach is not known." in verdict.notes


@pytest.mark.parametrize(
    ("numbers", "outcomes"),
    [
        (healed(0.5), ("forgot",)),
        (healed(0.4), ("partly healed",)),
        (healed(0.4, retrained=0.5), ("forgot",)),  # half of what retraining heals is enough
        (healed(0.2, retrained=0.5), ("partly healed",)),
        (healed(0.9) | {"healed_unknown": {"original": 0.1, "unlearned": 0.3}}, ("partly healed",)),
        # labels that are still learned are not healed, which needs no saying
        (healed(0.1) | {"forget_accuracy": {"original": 0.95, "unlearned": 0.9}}, ("did not forget",)),
    ],
)
def test_healing(numbers: dict[str, Any], outcomes: tuple[str, ...]) -> None:
    if "retrained" in numbers["healed_known"]:
        numbers = {name: {**given, "retrained": given["unlearned"]} if name in WRONG else given
                   for name, given in numbers.items()}  # fmt: skip
    verdict = judge(facts(numbers, labels="wrong"))
    assert verdict.outcomes == outcomes
    if outcomes == ("partly healed",):
        assert verdict.grade == "it worked in part"
        assert "are now answered by the true one" in verdict.findings[0].sentence


def test_a_retrained_model_sets_no_lower_bound_for_wrong_labels() -> None:
    """Fewer wrong labels than after retraining are no fault, nor is the confidence of what is healed."""
    attack = {"original": (0.9, 0.89, 0.91), "unlearned": (0.8, 0.79, 0.81), "retrained": (0.4, 0.39, 0.41)}
    numbers = {
        "forget_accuracy": {"original": 0.95, "unlearned": 0.0, "retrained": 0.3},
        "test_accuracy": {"original": 0.9, "unlearned": 0.9, "retrained": 0.9},
        "entropy_attack_auc": attack,
    }
    assert judge(facts(numbers, labels="wrong")).outcomes == ("forgot",)
    assert judge(facts(numbers, labels="right")).outcomes == ("did not forget", "over-forgot")


@pytest.mark.parametrize(
    ("retained", "outcome"),
    [(0.975, "forgot"), (0.9, "lost some utility"), (0.7, "damaged utility")],
)
def test_without_test_examples_utility_is_read_from_the_retain_set(retained: float, outcome: str) -> None:
    numbers = {
        "forget_accuracy": WRONG["forget_accuracy"],
        "retain_accuracy": {"original": 0.99, "unlearned": retained},
    }
    verdict = judge(facts(numbers, labels="wrong", n_test=0))
    assert verdict.outcomes == (outcome,)
    assert any("No test data was given" in note for note in verdict.notes)
    if outcome != "forgot":
        assert "(given labels; without test data this may be damage, or" in verdict.findings[0].sentence


def test_some_loss_is_not_damage() -> None:
    numbers = WRONG | {"test_accuracy": {"original": 0.90, "unlearned": 0.87}}
    verdict = judge(facts(numbers, labels="wrong"))
    assert (verdict.outcomes, verdict.grade) == (("lost some utility",), "it worked in part")
    damaged = judge(facts(WRONG | {"test_accuracy": {"original": 0.90, "unlearned": 0.85}}, labels="wrong"))
    assert (damaged.outcomes, damaged.grade) == (("damaged utility",), "it did not work: retrain")
    both = WRONG | {
        "test_accuracy": {"original": 0.90, "unlearned": 0.87},
        "class_damage_1": {"original": 0.0, "unlearned": 0.9},
    }
    verdict = judge(facts(both, labels="wrong", classes=tuple("abcdefghij")))
    assert verdict.outcomes == ("damaged utility",)
    assert any("class b lost 90.0 points" in finding.sentence for finding in verdict.findings)


def test_what_is_known_without_measuring_enters() -> None:
    known = [Finding("hidden, not forgotten", "it is only masked")]
    verdict = judge(facts(WRONG, whole_classes=True), known)
    assert (verdict.outcomes, verdict.grade) == (("hidden, not forgotten",), "it worked in part")
    assert verdict.findings[0].sentence == "it is only masked"


def test_a_small_class_may_waver() -> None:
    numbers = WRONG | {"class_damage_0": {"original": 0.0, "unlearned": 0.2}}
    assert judge(facts(numbers, labels="wrong", n_per_class=5)).worked
    assert not judge(facts(numbers, labels="wrong")).worked
