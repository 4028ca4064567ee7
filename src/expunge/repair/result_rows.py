"""The rows of the result, as text: what the screen and the page both show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from expunge.evaluation.before_after import Measured, Share
from expunge.repair.clean import Cleaned
from expunge.repair.prepare import Prepared
from expunge.results.wording import MISSING, count, duration, megabytes

REJECTED = "The result is worse than the model was, so it is called {file}: go on using the model as it is."


@dataclass(frozen=True)
class Row:
    """One measurement of the model before, after and of the reference; ``wanted`` says where it should go."""

    name: str
    before: str
    after: str
    reference: str
    wanted: str


def result_rows(prepared: Prepared, cleaned: Cleaned) -> list[Row]:
    """Return what could be measured, the most important first."""
    heal = prepared.job.purpose == "heal"
    classes = bool(prepared.on.forgotten_classes)
    removed = "down" if heal or classes else "as unseen rows"
    rows: list[tuple[str, Callable[[Measured], str], str]] = [
        ("listed rows, given label", lambda m: _percent(m.forget_as_stored), removed),
        ("listed rows, true label", lambda m: _percent(m.healed_known), "up"),
        ("other bad rows, true label", lambda m: _percent(m.healed_unknown), "up"),
        (
            "validation, classes that stay" if classes else "validation",
            lambda m: _percent(m.validation),
            "the same or up",
        ),
        ("rows that stay, given label", lambda m: _percent(m.retained), "the same" if not heal else ""),
    ]
    shown = []
    for name, text, wanted in rows:
        before, after = text(cleaned.before), text(cleaned.after)
        if before == after == MISSING:
            continue
        reference = MISSING if cleaned.reference is None else text(cleaned.reference)
        shown.append(Row(name, before, after, reference, wanted))
    # Of bad rows an attack says little; the audit's table has it.
    return shown if heal else shown + _attack(cleaned)


def _attack(cleaned: Cleaned) -> list[Row]:
    row = next((row for row in cleaned.audit.rows if row.name == "confidence_attack"), None)
    if row is None or row.because:
        return []
    values = (row.value(role) for role in ("original", "unlearned", "retrained"))
    texts = [MISSING if value is None else f"{value:.2f}" for value in values]
    return [Row("told from unseen rows, AUC", texts[0], texts[1], texts[2], "near 0.50")]


def cost_sentence(cleaned: Cleaned) -> str:
    """Return the cost of the unlearning in one sentence."""
    cost = cleaned.cost
    parts = [duration(cost.seconds), f"{count(cost.sample_gradients)} sample gradients"]
    if cleaned.cost_share is not None:
        parts[-1] += f" ({cleaned.cost_share:.0%} of a retraining)"
    if cost.peak_memory is not None and cost.peak_memory >= 1e6:
        parts.append(f"{megabytes(cost.peak_memory)} MB more memory at the peak")
    before, during = cost.parameters["before"], cost.parameters["during"]
    after = cost.parameters["after"]
    grown = f", {during:,} while it ran" if during != before else ""
    parts.append(f"{after:,} parameters{grown}")
    return "; ".join(parts)


def _percent(share: Share | None) -> str:
    return MISSING if share is None else f"{100 * share.value:.1f} %"
