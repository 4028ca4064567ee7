"""The page: one file of HTML, with everything inside but pictures that are served."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from expunge.results.html import asset, render
from expunge.review.decisions import Decisions
from expunge.review.display import Display
from expunge.review.listing import Suspect


def contents(
    suspects: Sequence[Suspect], display: Display, decisions: Decisions, title: str
) -> dict[str, Any]:
    """Return what the page shows, for JSON; pictures and texts are not in it."""
    labels = display.data.examples.labels.tolist()
    return {
        "title": title,
        "file": decisions.path.name,
        "classes": list(display.data.classes),
        "pictures": display.pictures,
        "suspects": [
            {
                "index": suspect.index,
                "name": suspect.name,
                "given": suspect.given,
                "suggested": suspect.suggested,
                "score": suspect.score,
                "detector": suspect.detector,
                "nearest": [{"index": near, "label": labels[near]} for near in suspect.nearest],
            }
            for suspect in suspects
        ],
        "decisions": {str(index): list(decision) for index, decision in decisions.taken.items()},
    }


def served_page(found: dict[str, Any]) -> str:
    """Return the page that asks a server for pictures and texts, and tells it what was decided."""
    return _page(found | {"served": True})


def static_page(found: dict[str, Any], display: Display) -> str:
    """Return the page with all pictures and texts in it; it keeps decisions in the browser."""
    rows = {suspect["index"] for suspect in found["suspects"]}
    rows |= {near["index"] for suspect in found["suspects"] for near in suspect["nearest"]}
    if display.pictures:
        shown = {row: _data_url(display.picture(row)) for row in sorted(rows)}
    else:
        shown = {row: display.text(row) for row in sorted(rows)}
    return _page(found | {"served": False, "shown": shown})


def _data_url(picture: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(picture).decode()}"


def _page(found: dict[str, Any]) -> str:
    # "</script>" in a name would end the element
    data = json.dumps(found).replace("<", "\\u003c")
    return render(
        "review.html.j2", title=found["title"], data=Markup(data), script=Markup(asset("review.js")),
        more_style=Markup(asset("review.css")),
    )  # fmt: skip
