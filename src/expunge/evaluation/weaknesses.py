"""What is to be known beside a verdict, above all what weakens it: references that are missing, few or odd."""

from __future__ import annotations

from expunge.evaluation.audit_only import REACHED
from expunge.evaluation.facts import Facts
from expunge.evaluation.rules import below_half, fewest_steps, looks_inside
from expunge.evaluation.thresholds import Thresholds

_FAR = 0.1
"""A reference whose test accuracy is this far below the original's was hardly trained alike."""


def weaknesses(facts: Facts, thresholds: Thresholds) -> list[str]:
    """Return one sentence for each thing that is to be known beside the verdict."""
    held_against = _with_reference if facts.reference else _without
    return [*_healed(facts), *held_against(facts, thresholds)]


def _healed(facts: Facts) -> list[str]:
    roles = [role for role in ("original", "unlearned", "retrained", "oracle") if role in facts.roles]
    shares = {role: facts.value("healed_known", role) for role in roles}
    after = shares.pop("unlearned", None)
    if after is None:
        row = facts.rows.get("healed")
        return [f"Healing is not defined here, because {row.because}."] if row and row.because else []
    others = ", ".join(f"{role} {share:.1%}" for role, share in shares.items() if share is not None)
    return [f"Of the wrong labels in the forget set {after:.1%} are now answered by the true one ({others})."]


def _without(facts: Facts, thresholds: Thresholds) -> list[str]:
    what = "whether the forget set is answered as by a model that never saw it, or hidden in the layers, is not known."
    if facts.labels == "wrong":
        what = "what retraining would reach is not known."
    found = [f"No retrained model was given: {what}"]
    if not facts.n_test:
        found.append("No test data was given: what the unlearning cost on unseen examples is not known.")
    before, after = (facts.value("class_mean_probe", role) for role in ("original", "unlearned"))
    if (
        facts.labels != "wrong"
        and before is not None
        and after is not None
        and abs(before - after) <= thresholds.probe
    ):
        found.append(
            f"The layers tell the forgotten class as well as before (nearest class mean: {after:.2f}, original "
            f"{before:.2f}); a model that never saw it may do so, too."
        )
    attack = facts.measurement("confidence_attack", "unlearned")
    if facts.labels == "unknown" and not facts.whole_classes and below_half(attack, thresholds):
        found.append(
            "The forget set looks less familiar than unseen examples do: as it should where its labels were wrong; "
            "where they were right it is over-forgotten."
        )
    return found


def _with_reference(facts: Facts, thresholds: Thresholds) -> list[str]:
    found = []
    if "retrained" in facts.roles:
        if facts.floor("forget_accuracy") is None:
            found.append(
                "No second retrained model was given: how far two retrainings lie apart is not known."
            )
        found += _learns_slowly(facts, thresholds)
        if not looks_inside(facts, thresholds):
            found.append(
                "What is hidden in the layers could not be looked for: no probe that was made tells the original from "
                "the retrained model."
            )
    theirs = facts.value("forget_accuracy", "retrained")
    if facts.whole_classes and theirs is not None and theirs > 0.5:
        found.append(
            f"The retrained model answers {theirs:.1%} of the forgotten class: check that it was trained without it."
        )
    before, reference = (facts.value("test_accuracy", role) for role in ("original", facts.reference))
    if before is not None and reference is not None and before - reference > _FAR:
        found.append(
            f"The {facts.reference} model's test accuracy is {reference:.1%}, the original's {before:.1%}: check that "
            "they were trained alike."
        )
    return found


def _learns_slowly(facts: Facts, thresholds: Thresholds) -> list[str]:
    """Forgetting can leave a mark of its own, such as a logit that is pushed down."""
    theirs = facts.value("relearn_time", "retrained")
    if not theirs or facts.value(REACHED, "unlearned") is None:
        return []
    steps = facts.value("relearn_time", "unlearned")
    most = theirs + (facts.floor("relearn_time") or 0.0)
    if steps is not None and most >= thresholds.relearn * steps:
        return []
    mine = (
        "is not learned again in time" if steps is None else f"is learned again after {steps:.0f} steps only"
    )
    _, said = fewest_steps(facts)
    return [f"The forget set {mine}, {said}: a mark that a model that never saw it does not have."]
