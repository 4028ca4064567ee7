from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from expunge.errors import InvalidInput, StoreError
from expunge.store.record import KINDS, METRICS, REQUIRED, SCHEMA_VERSION, Record

NEEDED: dict[str, Any] = {
    "key": "ab" * 16,
    "status": "done",
    "data": "digits",
    "regularity": 0.5,
    "discovery": 0.1,
    "model": "resnet9",
    "method": "rem",
    "seed": 3,
}


def make(**changed: Any) -> Record:
    return Record(**(NEEDED | changed))


def full() -> Record:
    return make(
        error="none",
        n_corrupted=120,
        settings={"rate": 0.01, "layers": ["a", "b"], "nested": {"on": True, "off": None}},
        recipe={"epochs": 4},
        oracle=True,
        data_seed=2**63 - 1,
        training_seed=-5,
        unlearning_seed=7,
        task_key="t",
        model_key="m",
        weights_key="w",
        **dict(zip(METRICS, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 1.0], strict=True)),
        per_class=[0.5, None, 1.0],
        seconds=12.5,
        sample_gradients=10**12,
        peak_memory=2**40,
        parameters_before=10,
        parameters_during=20,
        parameters_after=10,
        log=[{"step": 1.0, "loss": 0.5}, {"step": 2.0}],
        provenance={"torch": "2", "created": "2024-01-01T00:00:00+00:00"},
    )


def test_old_stores_need_these_fields_alone() -> None:
    assert set(REQUIRED) == set(NEEDED) - {"regularity", "discovery"}
    assert make().schema == SCHEMA_VERSION


def test_row_round_trip() -> None:
    record = full()
    row = record.to_row()
    assert list(row) == list(KINDS)
    assert Record.from_row(row) == record
    assert Record.from_row(json.loads(json.dumps(row))) == record


def test_record_is_frozen_and_keeps_its_own_copy() -> None:
    settings = {"rate": 0.1}
    record = make(settings=settings)
    settings["rate"] = 0.2
    assert record.settings == {"rate": 0.1}
    with pytest.raises(dataclasses.FrozenInstanceError):
        record.seed = 4  # type: ignore[misc]


def test_foreign_numbers_become_plain() -> None:
    record = make(
        seed=np.int64(4),
        n_corrupted=torch.tensor(9),
        oracle=np.bool_(True),
        healed=np.float32(0.25),
        utility=torch.tensor(0.75),
        per_class=(np.float64(0.5), None),
        settings={"betas": (0.9, 0.99)},
        log=[{"loss": torch.tensor(2.0)}],
    )
    assert (record.seed, record.n_corrupted, record.oracle) == (4, 9, True)
    assert [type(value) for value in (record.seed, record.n_corrupted, record.oracle)] == [int, int, bool]
    assert (record.healed, record.utility) == (0.25, 0.75)
    assert type(record.healed) is type(record.utility) is float
    assert record.per_class == [0.5, None]
    assert record.settings == {"betas": [0.9, 0.99]}
    assert record.log == [{"loss": 2.0}]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", [*METRICS, "seconds"])
def test_done_refuses_numbers_that_are_not_finite(name: str, bad: float) -> None:
    with pytest.raises(InvalidInput, match=f"{name} is .*a done record holds finite numbers only; store"):
        make(**{name: bad})


def test_done_refuses_them_in_lists_too() -> None:
    with pytest.raises(InvalidInput, match="per_class is nan, but a done record"):
        make(per_class=[0.5, float("nan")])
    with pytest.raises(InvalidInput, match="log 'loss' is inf, but a done record"):
        make(log=[{"loss": float("inf")}])


def test_failed_stores_them_as_missing() -> None:
    record = make(
        status="failed",
        error="diverged",
        healed=float("nan"),
        per_class=[float("inf"), 0.5],
        log=[{"step": 1.0, "loss": float("nan")}],
    )
    assert record.healed is None
    assert record.per_class == [None, 0.5]
    assert record.log == [{"step": 1.0}]


@pytest.mark.parametrize("name", ["regularity", "discovery", *METRICS])
@pytest.mark.parametrize("bad", [-0.01, 1.01, 93.0])
def test_fractions_outside_the_unit_interval(name: str, bad: float) -> None:
    with pytest.raises(InvalidInput, match=rf"{name} is .*; a fraction in \[0, 1\] was expected \(divide"):
        make(**{name: bad})


def test_rounding_beyond_the_unit_interval_is_removed() -> None:
    assert make(healed=1.0000000002).healed == 1.0
    assert make(healed=-1e-12).healed == 0.0


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"status": "finished"}, "status 'finished' is unknown; use one of done, failed, skipped"),
        ({"key": ""}, "the key of a record is empty; give the content hash"),
        ({"seed": 1.5}, r"seed must be int, got 1\.5: .*; convert it first"),
        ({"seed": 2**63}, "seed must be int, .*a database column holds 64 bits"),
        ({"healed": "high"}, r"healed must be float \| None, got 'high'"),
        ({"method": 3}, "method must be str, got 3: a string is needed, not int"),
        ({"method": None}, "method must be str, got None"),
        ({"oracle": "no"}, "oracle must be bool, got 'no': a truth value is needed"),
        ({"settings": {"x": float("inf")}}, "settings must be .* without NaN and inf"),
        ({"settings": {"x": object()}}, "settings must be .*not JSON serializable"),
        ({"recipe": [1]}, "recipe must be .*a dict is needed, not list"),
        ({"log": [3.0]}, "log must be list"),
        ({"per_class": ["a"]}, "per_class must be list"),
        ({"per_class": None}, "per_class must be list"),
    ],
)
def test_wrong_values(changed: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidInput, match=text):
        make(**changed)


def test_error_text_that_no_database_encodes() -> None:
    assert make(error="file \udcff").error == "file \\udcff"


def test_older_row() -> None:
    row = {**NEEDED, "schema": 0, "temperature": 3, "per_class": None, "error": None}
    record = Record.from_row(row)
    assert record == make(schema=0)


def test_newer_row_is_refused() -> None:
    row = full().to_row() | {"schema": SCHEMA_VERSION + 1}
    with pytest.raises(StoreError, match=r"has schema 5, this expunge reads up to 4; upgrade expunge"):
        Record.from_row(row)


def test_damaged_rows_are_refused() -> None:
    row = full().to_row()
    with pytest.raises(StoreError, match=r"has no value for method; every record needs them: restore"):
        Record.from_row({name: value for name, value in row.items() if name != "method"})
    with pytest.raises(StoreError, match=r"is damaged: utility is 7; .*restore a copy of the database"):
        Record.from_row(row | {"utility": 7.0})


def test_records_need_no_torch() -> None:
    code = "import sys, expunge.store.store, expunge.results.tables; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
