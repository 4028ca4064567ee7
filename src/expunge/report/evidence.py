"""What advice rests on: the records of a store, or the figures that come with the package."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from expunge.store.record import Record

PACKAGED = "evidence_digits.json"


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Records of corruption tasks and what is to be known about them.

    Args:
        source: where they come from, in words.
        records: with a place on the map; others are ignored.
        reservations: what a reader has to know before relying on them, as sentences.
    """

    source: str
    records: Sequence[Record]
    reservations: tuple[str, ...] = ()


def packaged_evidence() -> Evidence:
    """Return the figures that come with the package: every applicable method on digits, three seeds."""
    text = resources.files("expunge.report").joinpath(PACKAGED).read_text(encoding="utf-8")
    content = json.loads(text)
    names = content["columns"]
    rows = [dict(zip(names, row, strict=True)) for row in content["rows"]]
    records = [
        Record(
            key=f"{content['source']}:{number}",
            data=content["data"],
            model=content["model"],
            oracle=row["method"] in content["oracles"],
            **row,
        )
        for number, row in enumerate(rows)
    ]
    return Evidence(
        source=f"figures shipped with expunge ({content['source']}, {content['date']}, {content['hardware']})",
        records=records,
        reservations=tuple(content["reservations"]),
    )
