"""The report of a repair: one HTML file that needs no script and sends no request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from expunge.evaluation.audit_table import AIMS, figure, legend, main_rows, reading, undefined
from expunge.evaluation.before_after import Share
from expunge.evaluation.evidence import Audit
from expunge.evaluation.rows import ROLES
from expunge.evaluation.verdict import CAVEAT
from expunge.repair.clean import Cleaned
from expunge.repair.in_words import REJECTED, cost_sentence, fall_explained, one_sentence, result_rows
from expunge.repair.prepare import Prepared
from expunge.repair.thumbnails import thumbnails
from expunge.results.html import render
from expunge.results.wording import MISSING

_SHOWN = 50
_PICTURES = 12
_NAMES = {"original": "before", "unlearned": "after", "retrained": "reference"}


def clean_page(prepared: Prepared, cleaned: Cleaned) -> str:
    """Return the page; the same repair gives the same bytes but for the seconds it took."""
    rejected = [REJECTED.format(file=cleaned.checkpoint)] if cleaned.rejected else []
    return render(
        "repair.html.j2",
        title=f"Repair of {prepared.job.checkpoint.name}",
        sentence=one_sentence(prepared, cleaned),
        verdict=cleaned.audit.verdict,
        caveat=CAVEAT,
        said=[*cleaned.notes, *filter(None, [fall_explained(prepared, cleaned)]), *rejected],
        results=_results(prepared, cleaned),
        truth_learned=prepared.job.truth is not None and prepared.job.learn_truth,
        classes=_classes(prepared, cleaned),
        audit=_audit(cleaned.audit),
        method=_method(prepared),
        cost=cost_sentence(cleaned),
        pictures=_pictures(prepared, cleaned),
        listed=_listed(prepared, cleaned),
        found=_found(prepared, cleaned),
        check=_check(prepared),
        origin=_origin(prepared, cleaned),
    )


def _results(prepared: Prepared, cleaned: Cleaned) -> dict[str, Any]:
    compared = cleaned.reference is not None
    return {
        "headings": ["", "before", "after", *(["reference"] if compared else []), "wanted"],
        "rows": [
            [row.name, row.before, row.after, *([row.reference] if compared else []), row.wanted]
            for row in result_rows(prepared, cleaned)
        ],
    }


def _classes(prepared: Prepared, cleaned: Cleaned) -> dict[str, Any]:
    measured = prepared.on.validation is not None
    return {
        "where": "validation set" if measured else "rows that stay, by their given labels",
        "rows": [
            [
                damage.name,
                _shown(damage.before),
                _shown(damage.after),
                f"{100 * (damage.after.value - damage.before.value):+.1f}",
            ]
            for damage in cleaned.damages[:_SHOWN]
        ],
        "more": max(0, len(cleaned.damages) - _SHOWN),
    }


def _audit(audit: Audit) -> dict[str, Any]:
    """The main numbers of every model, what they mean, and what is not defined."""
    roles = [role for role in ROLES if role in audit.facts.roles]
    return {
        "headings": ["measurement", *(_NAMES[role] for role in roles), "aim", "reading"],
        "rows": [
            [
                row.name.replace("_", " "),
                *(figure(row.value(role), row) for role in roles),
                AIMS[row.metric.better],
                reading(row, audit.facts.reference),
            ]
            for row in main_rows(audit)
        ],
        "legend": legend(audit),
        "undefined": undefined(audit),
    }


def _method(prepared: Prepared) -> dict[str, Any]:
    choice, method = prepared.choice, prepared.method
    entries = {
        "method": method.name,
        "why": choice.why,
        "next best": choice.runner_up,
        "training": prepared.optimiser,
        "reads": str(method.needs),
        "changes": method.touches,
    }
    if (source := method.reference) is not None:
        entries["source"] = f"{source.authors}: {source.title} ({source.year}), {source.where}"
    return {
        "entries": [(name, text) for name, text in entries.items() if text],
        "settings": list(_settings(prepared)),
    }


def _settings(prepared: Prepared) -> Iterable[tuple[str, str]]:
    given: Mapping[str, Any] = prepared.job.settings
    for name, value in prepared.method.settings().items():
        by = " (given)" if name in given else " (for this data)" if name in prepared.changed else ""
        yield name, f"{value}{by}"


def _pictures(prepared: Prepared, cleaned: Cleaned) -> list[tuple[str, list[dict[str, str]]]]:
    """Return groups of small pictures: listed rows, rows that were found, rows that were healed; none for no images."""
    data, labels = prepared.data, prepared.data.examples.labels.cpu()
    found = torch.zeros(0, dtype=torch.int64) if cleaned.found is None else cleaned.found.positions
    groups = []
    for title, rows in (
        ("Listed rows", prepared.forget.positions.cpu()),
        ("Rows the method found, the worst first", found),
        ("Other rows that are no longer given their label", cleaned.disagreeing),
    ):
        shown = thumbnails(data.examples, rows[:_PICTURES])
        if shown:
            labelled = zip(rows.tolist(), shown, strict=False)
            entries = [
                {
                    "uri": uri,
                    "name": data.name(row),
                    "given": data.classes[int(labels[row])],
                    "after": _class(data.classes, int(cleaned.after.predictions[row])),
                }
                for row, uri in labelled
            ]
            groups.append((title, entries))
    return groups


def _listed(prepared: Prepared, cleaned: Cleaned) -> dict[str, Any]:
    data, truth = prepared.data, prepared.on.true_labels
    labels = data.examples.labels.cpu()
    return {
        "count": len(prepared.forget.positions),
        "source": prepared.forget.source,
        "headings": ["row", "given label", *([] if truth is None else ["true label"]), "before", "after"],
        "rows": [
            [
                data.name(row),
                data.classes[int(labels[row])],
                *([] if truth is None else [_class(data.classes, int(truth[row]))]),
                _class(data.classes, int(cleaned.before.predictions[row])),
                _class(data.classes, int(cleaned.after.predictions[row])),
            ]
            for row in prepared.forget.positions[:_SHOWN].tolist()
        ],
    }


def _found(prepared: Prepared, cleaned: Cleaned) -> dict[str, Any] | None:
    found, data = cleaned.found, prepared.data
    if found is None:
        return None
    labels = data.examples.labels.cpu()
    shown = zip(found.positions[:_SHOWN].tolist(), found.scores[:_SHOWN].tolist(), strict=True)
    return {
        "count": len(found.positions),
        "expected_good": f"{found.expected_good:.0%}",
        "rows": [
            [
                data.name(row),
                f"{score:.3g}",
                data.classes[int(labels[row])],
                _class(data.classes, int(cleaned.after.predictions[row])),
            ]
            for row, score in shown
        ],
    }


def _check(prepared: Prepared) -> list[str]:
    return [
        *(
            f"{finding.level}: {finding.where} {finding.what}."
            + (f" {finding.remedy}." if finding.remedy else "")
            for finding in prepared.check.findings
        ),
        *prepared.data.notes,
        *prepared.forget.notes,
    ]


def _origin(prepared: Prepared, cleaned: Cleaned) -> list[tuple[str, str]]:
    job, origin = prepared.job, cleaned.origin
    return [
        ("checkpoint", f"{job.checkpoint} (sha256 {origin.checkpoint})"),
        ("network", job.arch),
        ("data", f"{job.data} ({origin.data})"),
        ("list", f"{job.forget} ({origin.forget})"),
        ("settings", origin.settings),
        ("code", origin.code),
        ("seed", str(job.seed)),
        ("device", f"{prepared.numerics.device}, {prepared.numerics.dtype}"),
        ("versions", ", ".join(f"{name} {version}" for name, version in origin.versions.items())),
    ]


def _class(classes: Sequence[str], label: int) -> str:
    return classes[label] if label >= 0 else MISSING


def _shown(share: Share) -> str:
    return f"{100 * share.value:.1f} % of {share.of:,}"
