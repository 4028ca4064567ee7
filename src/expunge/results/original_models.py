"""How much of the corruption the original models had learned: without it, a cell says little."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from expunge.errors import ExpungeError
from expunge.results.summary import BASELINE, Cell
from expunge.store.record import LEARNED_ENOUGH, Record

if TYPE_CHECKING:
    from expunge.store.weights import WeightStore


def learned_shares(records: Iterable[Record], weights: WeightStore | None = None) -> dict[str, float]:
    """Return key of an original model -> share of the corrupted labels it had learned, in [0, 1].

    From its weight file where there is one, else from the record of the method that does nothing. A model
    in neither is absent; so is one with example-tied dropout, which keeps corruption out of the
    path that is measured.
    """
    taken = [record for record in records if record.model_key and not record.recipe.get("example_tied")]
    found = {
        record.model_key: record.corruption_learned
        for record in taken
        if record.method == BASELINE and record.corruption_learned is not None
    }
    if weights is not None:
        for key in sorted({record.model_key for record in taken if record.n_corrupted}):
            share = _stored(weights, key)
            if share is not None:
                found[key] = share
    return found


def _stored(weights: WeightStore, key: str) -> float | None:
    try:
        if not weights.has(key):
            return None
        return float(weights.metadata(key).get("corruption_learned", ""))
    except (ExpungeError, ValueError):  # damaged, or nothing was corrupted: then it tells nothing
        return None


def not_learned(records: Iterable[Record], learned: Mapping[str, float]) -> dict[Cell, float]:
    """Return cell -> least share of the corruption that its original models had learned, where that is too little."""
    found: dict[Cell, float] = {}
    for record in records:
        share = learned.get(record.model_key, 1.0)
        if share < LEARNED_ENOUGH and record.regularity is not None and record.discovery is not None:
            where = (record.method, record.regularity, record.discovery)
            found[where] = min(share, found.get(where, 1.0))
    return found
