"""The report of a repair: one HTML file that needs no script and sends no request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import Any

from expunge.evaluation.before_after import Share
from expunge.evaluation.verdict import CAVEAT
from expunge.repair.audit_section import audit_section, plain_table
from expunge.repair.clean import Cleaned
from expunge.repair.prepare import Prepared
from expunge.repair.result_rows import REJECTED, cost_sentence, result_rows
from expunge.report.html import Content, Html, element, joined
from expunge.report.wording import MISSING

_SHOWN = 50
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def clean_page(prepared: Prepared, cleaned: Cleaned) -> str:
    """Return the page; the same repair gives the same bytes but for the seconds it took."""
    body = element(
        "main",
        element("h1", f"Repair of {prepared.job.checkpoint.name}"),
        _verdict(cleaned),
        _section("Before and after", *_results(prepared, cleaned)),
        _section("Class by class", *_classes(prepared, cleaned)),
        _section("Audit", *audit_section(cleaned.audit)),
        _section("Method", *_method(prepared)),
        _section("Cost", element("p", cost_sentence(cleaned) + ".")),
        _section("Listed rows", *_listed(prepared, cleaned)),
        _section("Rows the method found", *_found(prepared, cleaned)) if cleaned.found is not None else None,
        _section("The check before", *_check(prepared)),
        _section("Made from", *_origin(prepared, cleaned)),
    )
    head = joined(
        (
            element("meta", charset="utf-8"),
            element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
            element("meta", name="viewport", content="width=device-width, initial-scale=1"),
            element("meta", name="referrer", content="no-referrer"),
            element("title", f"Repair of {prepared.job.checkpoint.name}"),
            element("style", Html(_style())),
        )
    )
    return f"<!doctype html>\n{element('html', element('head', head), element('body', body), lang='en')}\n"


def _style() -> str:
    shared = resources.files("expunge.report").joinpath("page.css").read_text(encoding="utf-8")
    # On a phone the first column makes room for the numbers.
    return shared + ".plain tbody th { white-space: normal; font-weight: 400; min-width: 6rem; }\n"


def _section(heading: str, *content: Content) -> Html:
    return element("section", element("h2", heading), *content)


def _verdict(cleaned: Cleaned) -> Html:
    verdict = cleaned.audit.verdict
    listed = element(
        "ul",
        *(
            element(
                "li", f"{found.outcome}: {found.sentence}" if len(verdict.outcomes) > 1 else found.sentence
            )
            for found in verdict.findings
        ),
    )
    heading = element("h2", verdict.grade[0].upper() + verdict.grade[1:])
    kind = None if verdict.worked else "warning"
    notes = (element("p", note, class_="note") for note in (*verdict.notes, CAVEAT))
    said = [element("p", note) for note in cleaned.notes]
    if cleaned.rejected:
        said.append(element("p", REJECTED.format(file=cleaned.checkpoint)))
    return element(
        "section",
        heading,
        listed,
        element("p", verdict.advice),
        *said,
        *notes,
        class_=kind,
        aria_label="Verdict",
    )


def _results(prepared: Prepared, cleaned: Cleaned) -> list[Html]:
    rows = result_rows(prepared, cleaned)
    compared = cleaned.reference is not None
    heads = ["", "before", "after", *(["reference"] if compared else []), "wanted"]
    cells = [
        [row.name, row.before, row.after, *([row.reference] if compared else []), row.wanted] for row in rows
    ]
    notes = ["Shares of rows, in evaluation mode. After: the written file, read again."]
    if prepared.job.truth is not None and prepared.job.learn_truth:
        notes.append("The true labels of the listed rows were trained on.")
    return [plain_table(heads, cells), *(element("p", note, class_="note") for note in notes)]


def _classes(prepared: Prepared, cleaned: Cleaned) -> list[Html]:
    where = "validation set" if prepared.validation is not None else "rows that stay, by their stored labels"
    shown = cleaned.damages[:_SHOWN]
    cells = [
        [
            damage.name,
            _shown(damage.before),
            _shown(damage.after),
            f"{100 * (damage.after.value - damage.before.value):+.1f}",
        ]
        for damage in shown
    ]
    more = len(cleaned.damages) - len(shown)
    note = f"Accuracy on the {where}, the largest loss first; changes in points."
    if more:
        note += f" {more} more are in report.json."
    return [
        plain_table(["class", "before", "after", "change"], cells),
        element("p", note, class_="note"),
    ]


def _method(prepared: Prepared) -> list[Html]:
    choice, method = prepared.choice, prepared.method
    pairs = [("method", method.name), ("why", choice.why)]
    if choice.runner_up:
        pairs.append(("next best", choice.runner_up))
    if prepared.optimiser:
        pairs.append(("training", prepared.optimiser))
    pairs.append(("reads", str(method.needs)))
    pairs.append(("changes", method.touches))
    if method.reference is not None:
        source = method.reference
        pairs.append(("source", f"{source.authors}: {source.title} ({source.year}), {source.where}"))
    settings = element("details", element("summary", "Settings"), _pairs(_settings(prepared)))
    return [_pairs(pairs), settings]


def _settings(prepared: Prepared) -> Iterable[tuple[str, str]]:
    given: Mapping[str, Any] = prepared.job.settings
    for name, value in prepared.method.settings().items():
        by = " (given)" if name in given else " (for this data)" if name in prepared.changed else ""
        yield name, f"{value}{by}"


def _listed(prepared: Prepared, cleaned: Cleaned) -> list[Html]:
    data, truth = prepared.data, prepared.true_labels
    labels = data.examples.labels.cpu()
    cells = []
    for row in prepared.forget.positions[:_SHOWN].tolist():
        known = -1 if truth is None else int(truth[row])
        cells.append(
            [
                data.name(row),
                data.classes[int(labels[row])],
                *([] if truth is None else [_class(data.classes, known)]),
                _class(data.classes, int(cleaned.before.predictions[row])),
                _class(data.classes, int(cleaned.after.predictions[row])),
            ]
        )
    heads = ["row", "stored label", *([] if truth is None else ["true label"]), "before", "after"]
    count = len(prepared.forget.positions)
    note = f"{count:,} rows from {prepared.forget.source}; what the model says of each before and after."
    if count > _SHOWN:
        note += f" The first {_SHOWN}."
    return [element("p", note), plain_table(heads, cells)]


def _found(prepared: Prepared, cleaned: Cleaned) -> list[Html]:
    assert cleaned.found is not None
    found, data = cleaned.found, prepared.data
    if len(found.positions) == 0:
        return [element("p", "It named no row beside those listed.")]
    labels = data.examples.labels.cpu()
    cells = [
        [
            data.name(row),
            f"{score:.3g}",
            data.classes[int(labels[row])],
            _class(data.classes, int(cleaned.after.predictions[row])),
        ]
        for row, score in zip(found.positions[:_SHOWN].tolist(), found.scores[:_SHOWN].tolist(), strict=True)
    ]
    note = (
        f"{len(found.positions):,} rows beside those listed, the highest score first; all are in found.csv. About "
        f"{found.expected_good:.0%} of them may be good, by the method's estimate: look through them first."
    )
    return [
        element("p", note),
        plain_table(["row", "score", "stored label", "prediction after"], cells),
    ]


def _check(prepared: Prepared) -> list[Html]:
    findings = prepared.check.findings
    notes = [*prepared.data.notes, *prepared.forget.notes]
    if not findings and not notes:
        return [element("p", "It found nothing to object to.")]
    lines = [
        f"{finding.level}: {finding.where} {finding.what}."
        + (f" {finding.remedy}." if finding.remedy else "")
        for finding in findings
    ]
    return [element("ul", *(element("li", line) for line in (*lines, *notes)))]


def _origin(prepared: Prepared, cleaned: Cleaned) -> list[Html]:
    job, origin = prepared.job, cleaned.origin
    pairs = [
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
    return [_pairs(pairs)]


def _pairs(pairs: Iterable[tuple[str, str]]) -> Html:
    return element(
        "dl", *(part for name, text in pairs for part in (element("dt", name), element("dd", text)))
    )


def _class(classes: Sequence[str], label: int) -> str:
    return classes[label] if label >= 0 else MISSING


def _shown(share: Share) -> str:
    return f"{100 * share.value:.1f} % of {share.of:,}"
