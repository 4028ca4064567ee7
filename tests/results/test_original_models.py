from __future__ import annotations

from pathlib import Path

import torch
from report_records import make

from expunge.results.original_models import learned_shares
from expunge.store.weights import WeightStore

KEY, OTHER = "0" * 32, "1" * 32


def test_from_the_records_of_doing_nothing() -> None:
    records = [
        make(method="none", model_key=KEY, corruption_learned=0.4),
        make(method="rem", model_key=KEY, corruption_learned=0.1),
        make(method="rem", model_key=OTHER, corruption_learned=0.1),
        make(method="none", model_key=OTHER, corruption_learned=0.0, recipe={"example_tied": {"share": 0.2}}),
    ]
    assert learned_shares(records) == {KEY: 0.4}


def test_the_weight_file_counts_more(
    tmp_path: Path,
) -> None:
    weights = WeightStore(tmp_path)
    weights.save(KEY, {"w": torch.zeros(1)}, {"corruption_learned": "0.75"})
    weights.save(OTHER, {"w": torch.zeros(1)}, {"corruption_learned": "None"})
    records = [
        make(method="none", model_key=KEY, corruption_learned=0.4, n_corrupted=5),
        make(model_key=OTHER, n_corrupted=5),
        make(model_key="not a key", n_corrupted=5),
    ]
    assert learned_shares(records, weights) == {KEY: 0.75}
    weights.path(KEY).write_bytes(b"cut")  # type: ignore[union-attr]
    assert learned_shares(records, weights) == {KEY: 0.4}
