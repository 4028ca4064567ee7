"""Records to report on."""

from __future__ import annotations

import random
from typing import Any

from rich.table import Table

from expunge.results import terminal
from expunge.results.frame import measurements
from expunge.results.summary import summarise
from expunge.store.record import Record


def map_table(records: list[Record]) -> terminal.MapTable:
    return terminal.MapTable(summarise(measurements(records)))


def cost_table(records: list[Record]) -> Table:
    return terminal.cost_table(summarise(measurements(records)))


def make(**changed: Any) -> Record:
    """A record with defaults for what is not given."""
    values: dict[str, Any] = {
        "key": "k",
        "status": "done",
        "data": "digits",
        "regularity": 0.0,
        "discovery": 0.1,
        "model": "resnet9",
        "method": "rem",
        "seed": 0,
    }
    return Record(**(values | changed))


def store_of(
    methods: list[str],
    *,
    data: tuple[str, ...] = ("digits",),
    seeds: int = 3,
    discoveries: tuple[float, ...] = (0.1, 0.5, 1.0),
    log_rows: int = 4,
) -> list[Record]:
    """Records of a whole sweep, as a run would leave them, with seeded numbers."""
    draw = random.Random(0)
    return [
        make(
            key=f"{draw.getrandbits(128):032x}",
            data=name,
            method=method,
            oracle=method == "retrain_corrected",
            regularity=regularity,
            discovery=discovery,
            seed=seed,
            n_corrupted=100,
            task_settings={"regularity": regularity, "discovery": discovery, "seed": seed, "patch": 2},
            settings={"lr": 0.01, "batch_size": 128, "optimiser": "sgd", "augment": False},
            recipe={"model": "resnet9", "epochs": 30, "optimiser": {"name": "sgd", "lr": 0.05}},
            model_key=f"{seed:031x}{int(2 * regularity)}",
            task_key=f"{seed:030x}{int(2 * regularity)}{int(9 * discovery)}",
            healed=draw.random(),
            healed_known=draw.random(),
            healed_unknown=None if discovery == 1 else draw.random(),
            utility=draw.random(),
            uxh=draw.random(),
            asr=draw.random() if regularity == 1 else None,
            corruption_learned=1.0 if method == "none" else draw.random(),
            per_class=[draw.random() for _ in range(10)],
            seconds=10 * draw.random(),
            sample_gradients=draw.randrange(50_000),
            peak_memory=draw.randrange(10**8),
            log=[
                {"seconds": draw.random() + row, "epoch": float(row), "loss": draw.random(), "score": draw.random()}
                for row in range(log_rows)
            ],
            provenance={
                "expunge": "0.1.0",
                "torch": "2.13.0",
                "device": "cpu",
                "dtype": "float32",
                "created": f"2026-11-{1 + draw.randrange(28):02d}T15:48:{draw.randrange(60):02d}+00:00",
            },
        )
        for name in data
        for method in methods
        for regularity in (0.0, 0.5, 1.0)
        for discovery in discoveries
        for seed in range(seeds)
    ]  # fmt: skip
