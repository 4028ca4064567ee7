"""The verdict in words: what was found, on which numbers, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from expunge.audit.facts import Facts
from expunge.audit.rules import (
    Finding,
    Outcome,
    damaged_utility,
    did_not_forget,
    hidden,
    over_forgot,
    telling,
)
from expunge.audit.thresholds import Thresholds
from expunge.audit.weaknesses import weaknesses

CAVEAT = "A measurement, not a certificate: it says what these measurements show, not what others could."
_ADVICE: dict[Outcome, str] = {
    "damaged utility": "It did not work: retrain without the forget set, or unlearn the original again, milder.",
    "did not forget": "It did not work: retrain without the forget set, or unlearn by another method.",
    "partly forgot": "It did not work yet: unlearn further and audit again, or retrain.",
    "hidden, not forgotten": "It did not work: the answers changed, the knowledge did not. Retrain, or unlearn by "
    "a method that changes the layers.",
    "over-forgot": "It went too far: unlearn the original again with fewer steps, or retrain. What is answered worse "
    "than unseen data gives itself away.",
    "undecided": "Nothing can be said: nothing measured here tells even the original from the reference.",
    "forgot": "Nothing measured here says otherwise.",
}


@dataclass(frozen=True)
class Verdict:
    """What an audit says.

    Args:
        outcomes: in words, the gravest first; one of "undecided" and "forgot" stands alone.
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
        """Whether something was found against it; "undecided" is neither."""
        return self.outcomes not in (("forgot",), ("undecided",))

    @property
    def headline(self) -> str:
        """The outcomes in one line."""
        said = "; ".join(self.outcomes)
        weak = self.worked and not self.reference
        return f"{said}, as far as can be told without a retrained model" if weak else said


def judge(facts: Facts, thresholds: Thresholds | None = None) -> Verdict:
    """Return the verdict.

    Hidden knowledge is looked for where the answers pass: in a damaged model it means nothing, and one that
    did not forget hides nothing.
    """
    thresholds = thresholds or Thresholds()
    damaged, remembered = damaged_utility(facts, thresholds), did_not_forget(facts, thresholds)
    findings = [*damaged, *remembered]
    if not findings:
        findings += hidden(facts, thresholds)
    findings += over_forgot(facts, thresholds)
    if not findings:
        findings = [_passed(facts, thresholds)]
    order: tuple[Outcome, ...] = get_args(Outcome)
    outcomes = sorted({finding.outcome for finding in findings}, key=order.index)
    if "did not forget" in outcomes and "partly forgot" in outcomes:
        outcomes.remove("partly forgot")
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
    what = f"the {facts.reference} model" if facts.reference else "what is expected of a retrained one"
    return Finding("forgot", f"{said}; what told the original from {what} no longer does: {listed}", known)


def _percent(share: float | None) -> str:
    return "not defined" if share is None else f"{share:.1%}"
