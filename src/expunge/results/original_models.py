"""How much of the corruption the first models had learned: without it, a cell says little."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from expunge.errors import ExpungeError
from expunge.results.summary import BASELINE
from expunge.store.record import Record

if TYPE_CHECKING:
    from expunge.store.weights import WeightStore


def learned_shares(records: Iterable[Record], weights: WeightStore | None = None) -> dict[str, float]:
    """Return key of a first model -> share of the corrupted labels it had learned, in [0, 1].

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
