"""What a repair came to: one sentence, and the rows of the result that the screen and the page both show."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from expunge.evaluation.before_after import Share
from expunge.repair.clean import Cleaned
from expunge.repair.prepare import Prepared
from expunge.results.wording import MISSING, count, counted, duration, megabytes, number

_MOSTLY = 0.8
"""Share of the rows that were found from which their class is named."""

_CLOSING = {
    "it worked": "Good to deploy.",
    "it worked in part": "Better than it was, but not in all: {outcomes}.",
    "undecided": "Whether that is enough cannot be told from what was given.",
    "it did not work: retrain": "Do not deploy it.",
    "little to repair": "Use the model as it is.",
}


def one_sentence(prepared: Prepared, cleaned: Cleaned) -> str:
    """Return what was found and what it means, with a recommendation after it."""
    parts = [*_found(prepared, cleaned), _listed(prepared, cleaned), _accuracy(cleaned)]
    said = "; ".join(parts)
    verdict = cleaned.audit.verdict
    closing = _CLOSING[verdict.grade].format(outcomes=", ".join(verdict.outcomes))
    return f"{said[0].upper()}{said[1:]}. {closing}"


REJECTED = "The result is worse than the model was, so it is called {file}: go on using the model as it is."


def remarks(prepared: Prepared, cleaned: Cleaned) -> list[str]:
    """Return what happened on the way, and why a fall in accuracy is healing where it is."""
    return [text for text in (*cleaned.notes, fall_explained(prepared, cleaned)) if text]


def fall_explained(prepared: Prepared, cleaned: Cleaned) -> str:
    """Return why fewer of the rows that stay are given their given label, where that is healing; else nothing."""
    turned, found = cleaned.disagreeing, cleaned.found
    if prepared.job.purpose != "heal" or not len(turned) or cleaned.audit.verdict.did_not_work:
        return ""
    known = torch.zeros(len(prepared.data), dtype=torch.bool)
    if found is not None:
        known[found.positions] = True
    if prepared.on.true_labels is not None:
        known |= (prepared.on.true_labels >= 0) & (
            prepared.on.true_labels != prepared.data.examples.labels.cpu()
        )
    bad = int(known[turned].sum())
    if bad * 2 < len(turned):
        return ""
    return (
        f"{bad:,} of the {len(turned):,} rows that stay and are no longer given their given label are bad ones: that "
        "their accuracy on given labels falls is healing"
    )


def _found(prepared: Prepared, cleaned: Cleaned) -> list[str]:
    found = cleaned.found
    if found is None or not len(found.positions):
        return []
    labels = prepared.data.examples.labels.cpu()[found.positions]
    count = torch.bincount(labels, minlength=len(prepared.data.classes))
    largest = int(count.argmax())
    of = f" of class {prepared.data.classes[largest]}" if int(count[largest]) >= _MOSTLY * len(labels) else ""
    resemble, were = ("resembles", "was") if len(labels) == 1 else ("resemble", "were")
    good = (
        f" (about {found.false_discovery:.0%} of them may be good)" if found.false_discovery >= 0.05 else ""
    )
    more = counted(len(labels), "more row")
    return [f"{more}{of} {resemble} those you listed and {were} unlearned too{good}"]


def _listed(prepared: Prepared, cleaned: Cleaned) -> str:
    count = len(prepared.forget.positions)
    rows = "the listed row is" if count == 1 else f"the {count:,} listed rows are"
    if prepared.job.purpose == "forget":
        return f"{rows} answered by their label in {_from_to(cleaned, 'forget_as_stored')}"
    healed = ""
    if cleaned.before.healed_known is not None and cleaned.after.healed_known is not None:
        healed = f", their true one in {_from_to(cleaned, 'healed_known')}"
    return f"{rows} given their bad label in {_from_to(cleaned, 'forget_as_stored')}{healed}"


def _accuracy(cleaned: Cleaned) -> str:
    if cleaned.after.validation is not None:
        return f"accuracy on the validation data went from {_from_to(cleaned, 'validation', end=' to ')}"
    return f"accuracy on the rows that stay went from {_from_to(cleaned, 'retained', end=' to ')}"


def _from_to(cleaned: Cleaned, name: str, end: str = " before and ") -> str:
    before: Share = getattr(cleaned.before, name)
    after: Share = getattr(cleaned.after, name)
    last = " now" if "before" in end else ""
    return f"{before.value:.1%}{end}{after.value:.1%}{last}"


@dataclass(frozen=True)
class ResultRow:
    """One measurement of the model before, after and of the reference; ``wanted`` says where it should go."""

    name: str
    before: str
    after: str
    reference: str
    wanted: str


def result_rows(prepared: Prepared, cleaned: Cleaned) -> list[ResultRow]:
    """Return what could be measured, the most important first."""
    heal = prepared.job.purpose == "heal"
    classes = bool(prepared.on.forgotten_classes)
    removed = "down" if heal or classes else "as unseen rows"
    validation = "validation, classes that stay" if classes else "validation"
    rows = (
        ("listed rows, given label", "forget_as_stored", removed),
        ("listed rows, true label", "healed_known", "up"),
        ("other bad rows, true label", "healed_unknown", "up"),
        (validation, "validation", "the same or up"),
        ("rows that stay, given label", "retained", "" if heal else "the same"),
    )
    models = (cleaned.before, cleaned.after, cleaned.reference)
    shown = []
    for name, share, wanted in rows:
        before, after, reference = (_percent(getattr(model, share, None)) for model in models)
        if not before == after == MISSING:
            shown.append(ResultRow(name, before, after, reference, wanted))
    # Of bad rows an attack says little; the audit's table has it.
    return shown if heal else shown + _attack(cleaned)


def _attack(cleaned: Cleaned) -> list[ResultRow]:
    row = next((row for row in cleaned.audit.rows if row.name == "confidence_attack"), None)
    if row is None or row.because:
        return []
    before, after, reference = (
        number(row.value(role), ".2f") for role in ("original", "unlearned", "retrained")
    )
    return [ResultRow("told from unseen rows, AUC", before, after, reference, "near 0.50")]


def cost_sentence(cleaned: Cleaned) -> str:
    """Return the cost of the unlearning in one sentence."""
    cost = cleaned.cost
    parts = [duration(cost.seconds), f"{count(cost.sample_gradients)} sample gradients"]
    if cleaned.cost_share is not None:
        parts[-1] += f" ({cleaned.cost_share:.0%} of a retraining)"
    if cost.peak_memory is not None and cost.peak_memory >= 1e6:
        parts.append(f"{megabytes(cost.peak_memory)} MB more memory at the peak")
    before, during, after = (cost.parameters[when] for when in ("before", "during", "after"))
    grown = f", {during:,} while it ran" if during != before else ""
    parts.append(f"{after:,} parameters{grown}")
    return "; ".join(parts)


def _percent(share: Share | None) -> str:
    return MISSING if share is None else f"{100 * share.value:.1f} %"
