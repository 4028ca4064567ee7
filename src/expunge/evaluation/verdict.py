"""The verdict in words: what was found, on which numbers, and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from expunge.evaluation.facts import Facts, Finding, Outcome
from expunge.evaluation.rules import (
    damaged_utility,
    did_not_forget,
    hidden,
    hidden_by_statistics,
    over_forgot,
    partly_healed,
    telling,
)
from expunge.evaluation.thresholds import Thresholds
from expunge.evaluation.weaknesses import weaknesses

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


def judge(facts: Facts, thresholds: Thresholds | None = None, known: Sequence[Finding] = ()) -> Verdict:
    """Return the verdict.

    Hidden knowledge is looked for where the answers pass: in a damaged model it means nothing, and one that
    did not forget hides nothing. Nor is a label healed that is still learned. Normalisation statistics can hide it in a
    damaged model, too, and may be what damages it.

    Args:
        facts: the measurements.
        thresholds: when a difference counts.
        known: findings that need no measurement.
    """
    thresholds = thresholds or Thresholds()
    untouched = tuple(finding for finding in known if finding.outcome == "little to repair")
    if untouched:
        return Verdict(("little to repair",), untouched, (), "", _ADVICE["little to repair"])
    damaged, remembered = damaged_utility(facts, thresholds), did_not_forget(facts, thresholds)
    findings = [*damaged, *remembered]
    if not findings:
        findings += hidden(facts, thresholds)
    if not remembered:
        findings += [*hidden_by_statistics(facts, thresholds), *partly_healed(facts, thresholds)]
    findings += [*over_forgot(facts, thresholds), *known]
    if not findings:
        findings = [_passed(facts, thresholds)]
        findings += _kept(facts, findings[0].outcome)
    order: tuple[Outcome, ...] = get_args(Outcome)
    outcomes = sorted({finding.outcome for finding in findings}, key=order.index)
    for more, less in (("did not forget", "partly forgot"), ("damaged utility", "lost some utility")):
        if more in outcomes and less in outcomes:
            outcomes.remove(less)
    findings.sort(key=lambda finding: order.index(finding.outcome))
    notes = tuple(weaknesses(facts, thresholds))
    return Verdict(tuple(outcomes), tuple(findings), notes, facts.reference, _ADVICE[outcomes[0]])


def _passed(facts: Facts, thresholds: Thresholds) -> Finding:
    names = telling(facts, thresholds)
    accuracy = facts.value("forget_accuracy", "unlearned")
    before = facts.value("forget_accuracy", "original")
    against = facts.value("forget_accuracy", facts.reference)
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


def _kept(facts: Facts, outcome: Outcome) -> list[Finding]:
    name, said = (
        ("test_accuracy", "test accuracy") if facts.n_test else ("retain_accuracy", "retain accuracy")
    )
    shares = {role: facts.value(name, role) for role in ("unlearned", "original", facts.reference) if role}
    after = shares.pop("unlearned")
    if after is None:
        return []
    others = ", ".join(f"{role} {_percent(share)}" for role, share in shares.items())
    return [Finding(outcome, f"{said} is {after:.1%} ({others})", {"after": after})]


def _percent(share: float | None) -> str:
    return "not defined" if share is None else f"{share:.1%}"
