"""The audit of a repair, as a part of its page."""

from __future__ import annotations

from collections.abc import Sequence

from expunge.evaluation.audit_table import AIMS, figure, is_main, legend, undefined
from expunge.evaluation.evidence import Audit
from expunge.evaluation.reading import reading
from expunge.evaluation.rows import ROLES
from expunge.evaluation.verdict import CAVEAT
from expunge.report.html import Html, element

_NAMES = {"original": "before", "unlearned": "after", "retrained": "reference"}


def audit_section(audit: Audit) -> list[Html]:
    """Return the main numbers of every model, what they mean, and what is not defined."""
    roles = [role for role in ROLES if role in audit.facts.roles]
    shown = [row for row in audit.rows if is_main(row) and not row.because]
    cells = [
        [
            row.name.replace("_", " "),
            *(figure(row.value(role), row) for role in roles),
            AIMS[row.metric.better],
            reading(row, audit.facts.reference),
        ]
        for row in shown
    ]
    heads = ["measurement", *(_NAMES[role] for role in roles), "aim", "reading"]
    said = [
        element("p", CAVEAT),
        plain_table(heads, cells),
        element(
            "p", " ".join(filter(None, (legend(audit), "All numbers are in report.json."))), class_="note"
        ),
    ]
    reasons = undefined(audit)
    if reasons:
        listed = (element("li", f"{reason} ({', '.join(names)})") for reason, names in reasons.items())
        said += [element("p", "Not defined here, because"), element("ul", *listed)]
    return said


def plain_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Html:
    """Return a table that scrolls on its own; the first cell of a row is its heading."""
    head = element("thead", element("tr", *(element("th", text, scope="col") for text in heads)))
    body = element(
        "tbody",
        *(
            element("tr", element("th", row[0], scope="row"), *(element("td", cell) for cell in row[1:]))
            for row in rows
        ),
    )
    return element("div", element("table", head, body, class_="plain"), class_="scroll", tabindex=0)
