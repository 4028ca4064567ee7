"""The verdict in words: what was found, on which numbers, what to do, and what weakens it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from expunge.evaluation.audit_metrics import REACHED
from expunge.evaluation.facts import Facts, Finding, Outcome
from expunge.evaluation.rules import (
    below_half,
    damaged_utility,
    did_not_forget,
    fewest_steps,
    hidden,
    hidden_by_statistics,
    looks_inside,
    over_forgot,
    partly_healed,
    telling,
)
from expunge.evaluation.thresholds import THRESHOLDS

CAVEAT = "A measurement, not a certificate: it says what these measurements show, not what others could."
_ADVICE: dict[Outcome, str] = {
    "little to repair": "Use the model as it is, or repair it all the same with --force.",
    "damaged utility": "Retrain without the forget set, or unlearn the original again, milder.",
    "did not forget": "Retrain without the forget set, or unlearn by another method.",
    "partly forgot": "Unlearn further and audit again, or retrain.",
    "hidden, not forgotten": "The answers changed, the knowledge did not: retrain, or unlearn by a method that changes "
    "the layers.",
    "partly healed": "The wrong labels are gone, the true ones were not learned: train on corrected labels, or list "
    "more of the bad examples.",
    "lost some utility": "It worked at a price: weigh it against retraining, or unlearn the original again, milder.",
    "over-forgot": "It went too far: unlearn the original again with fewer steps, or retrain. What is answered worse "
    "than unseen data gives itself away.",
    "undecided": "Nothing can be said: nothing measured here tells even the original from the reference.",
    "forgot": "Nothing measured here says otherwise.",
}

_FAR = 0.1
"""A reference whose test accuracy is this far below the original's was hardly trained alike."""

Grade = Literal["little to repair", "it worked", "it worked in part", "undecided", "it did not work: retrain"]

_FAILED: tuple[Outcome, ...] = ("damaged utility", "did not forget")


@dataclass(frozen=True)
class Verdict:
    """What an audit says.

    Args:
        outcomes: in words, the gravest first; one of "little to repair", "undecided" and "forgot" stands alone.
        findings: what they rest on.
        notes: what is to be known beside it, above all what weakens it.
        reference: the model it holds against, or nothing.
        advice: what to do.
    """

    outcomes: tuple[Outcome, ...]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    reference: str
    advice: str

    @property
    def worked(self) -> bool:
        """Whether the verdict is "forgot"."""
        return self.outcomes == ("forgot",)

    @property
    def failed(self) -> bool:
        """Whether something was found against it; "undecided" and "little to repair" are neither."""
        return self.outcomes not in (("forgot",), ("undecided",), ("little to repair",))

    @property
    def did_not_work(self) -> bool:
        """Whether an outcome was found after which only retraining is left."""
        return any(outcome in _FAILED for outcome in self.outcomes)

    @property
    def grade(self) -> Grade:
        """The outcomes as one of four grades."""
        if self.outcomes == ("little to repair",):
            return "little to repair"
        if self.did_not_work:
            return "it did not work: retrain"
        if self.outcomes == ("undecided",):
            return "undecided"
        return "it worked" if self.worked else "it worked in part"

    @property
    def headline(self) -> str:
        """The outcomes in one line."""
        said = "; ".join(self.outcomes)
        weak = self.worked and not self.reference
        return f"{said}, as far as can be told without a retrained model" if weak else said


def judge(facts: Facts, known: Sequence[Finding] = ()) -> Verdict:
    """Return the verdict.

    Hidden knowledge is looked for where the answers pass: in a damaged model it means nothing, and one that
    did not forget hides nothing. Nor is a label healed that is still learned. Normalisation statistics can hide it in a
    damaged model, too, and may be what damages it.

    Args:
        facts: the measurements.
        known: findings that need no measurement.
    """
    untouched = tuple(finding for finding in known if finding.outcome == "little to repair")
    if untouched:
        return Verdict(("little to repair",), untouched, (), "", _ADVICE["little to repair"])
    remembered = list(did_not_forget(facts))
    findings = [*damaged_utility(facts), *remembered]
    if not findings:
        findings += hidden(facts)
    if not remembered:
        findings += [*hidden_by_statistics(facts), *partly_healed(facts)]
    findings += [*over_forgot(facts), *known]
    if not findings:
        findings = [_passed(facts)]
        findings += _kept(facts, findings[0].outcome)
    order: tuple[Outcome, ...] = get_args(Outcome)
    outcomes = sorted({finding.outcome for finding in findings}, key=order.index)
    for more, less in (("did not forget", "partly forgot"), ("damaged utility", "lost some utility")):
        if more in outcomes and less in outcomes:
            outcomes.remove(less)
    findings.sort(key=lambda finding: order.index(finding.outcome))
    notes = [*_healed(facts), *(_with_reference if facts.reference else _without)(facts)]
    return Verdict(tuple(outcomes), tuple(findings), tuple(notes), facts.reference, _ADVICE[outcomes[0]])


def _passed(facts: Facts) -> Finding:
    names = telling(facts)
    accuracy, before, against = (
        facts.value("forget_accuracy", role) for role in ("unlearned", "original", facts.reference)
    )
    numbers = {"after": accuracy, "before": before, "reference": against}
    known = {name: value for name, value in numbers.items() if value is not None}
    said = f"accuracy on the forget set is {_percent(accuracy)} (original {_percent(before)}"
    said += f", {facts.reference} {_percent(against)})" if facts.reference else ")"
    if not names:
        what = f"the {facts.reference} model" if facts.reference else "a model that never saw the forget set"
        return Finding("undecided", f"{said}; nothing measured here tells the original from {what}", known)
    listed = ", ".join(name.replace("_", " ") for name in names)
    apart = f"what told the original from the {facts.reference} model"
    if not facts.reference:
        apart = "what gave the original away"
    return Finding("forgot", f"{said}; {apart} no longer does: {listed}", known)


def _kept(facts: Facts, outcome: Outcome) -> Iterator[Finding]:
    name = "test_accuracy" if facts.n_test else "retain_accuracy"
    shares = {role: facts.value(name, role) for role in ("unlearned", "original", facts.reference) if role}
    after = shares.pop("unlearned")
    if after is not None:
        others = ", ".join(f"{role} {_percent(share)}" for role, share in shares.items())
        yield Finding(outcome, f"{name.replace('_', ' ')} is {after:.1%} ({others})", {"after": after})


def _percent(share: float | None) -> str:
    return "not defined" if share is None else f"{share:.1%}"


def _healed(facts: Facts) -> Iterator[str]:
    roles = [role for role in ("original", "unlearned", "retrained", "oracle") if role in facts.roles]
    shares = {role: facts.value("healed_known", role) for role in roles}
    after = shares.pop("unlearned", None)
    if after is not None:
        others = ", ".join(f"{role} {share:.1%}" for role, share in shares.items() if share is not None)
        yield f"Of the wrong labels in the forget set {after:.1%} are now answered by the true one ({others})."
    elif (row := facts.rows.get("healed")) and row.because:
        yield f"Healing is not defined here, because {row.because}."


def _without(facts: Facts) -> Iterator[str]:
    what = "whether the forget set is answered as by a model that never saw it, or hidden in the layers, is not known."
    if facts.labels == "wrong":
        what = "what retraining would reach is not known."
    yield f"No retrained model was given: {what}"
    if not facts.n_test:
        yield "No test data was given: what the unlearning cost on unseen examples is not known."
    before, after = (facts.value("class_mean_probe", role) for role in ("original", "unlearned"))
    if (
        facts.labels != "wrong"
        and before is not None
        and after is not None
        and abs(before - after) <= THRESHOLDS.probe
    ):
        yield (
            f"The layers tell the forgotten class as well as before (nearest class mean: {after:.2f}, original "
            f"{before:.2f}); a model that never saw it may do so, too."
        )
    attack = facts.measurement("confidence_attack", "unlearned")
    if facts.labels == "unknown" and not facts.whole_classes and below_half(attack):
        yield (
            "The forget set looks less familiar than unseen examples do: as it should where its labels were wrong; "
            "where they were right it is over-forgotten."
        )


def _with_reference(facts: Facts) -> Iterator[str]:
    if "retrained" in facts.roles:
        if facts.floor("forget_accuracy") is None:
            yield "No second retrained model was given: how far two retrainings lie apart is not known."
        yield from _learns_slowly(facts)
        if not looks_inside(facts):
            yield (
                "What is hidden in the layers could not be looked for: no probe that was made tells the original from "
                "the retrained model."
            )
    theirs = facts.value("forget_accuracy", "retrained")
    if facts.whole_classes and theirs is not None and theirs > 0.5:
        yield f"The retrained model answers {theirs:.1%} of the forgotten class: check that it was trained without it."
    before, reference = (facts.value("test_accuracy", role) for role in ("original", facts.reference))
    if before is not None and reference is not None and before - reference > _FAR:
        yield (
            f"The {facts.reference} model's test accuracy is {reference:.1%}, the original's {before:.1%}: check that "
            "they were trained alike."
        )


def _learns_slowly(facts: Facts) -> Iterator[str]:
    """Forgetting can leave a mark of its own, such as a logit that is pushed down."""
    theirs = facts.value("relearn_time", "retrained")
    if not theirs or facts.value(REACHED, "unlearned") is None:
        return
    steps = facts.value("relearn_time", "unlearned")
    most = theirs + (facts.floor("relearn_time") or 0.0)
    if steps is None or most < THRESHOLDS.relearn * steps:
        after = (
            "is not learned again in time"
            if steps is None
            else f"is learned again after {steps:.0f} steps only"
        )
        _, said = fewest_steps(facts)
        yield f"The forget set {after}, {said}: a mark that a model that never saw it does not have."
