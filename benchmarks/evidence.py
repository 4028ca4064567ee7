"""Figures of the digits map for the site and for `expunge advise`, from the store of a sweep.

Usage: python benchmarks/evidence.py STORE_FOLDER

STORE_FOLDER is what `expunge bench digits-recalibrated --out STORE_FOLDER` wrote. Runs that were handed back
recalibrated are left out: every other record holds both figures. Writes docs/results/digits-methods.csv, and
src/expunge/results/evidence_digits.json with the recalibrated figures, in which nothing counts as healed that
normalisation statistics only hide. Seconds are left out: cells that run beside different jobs cannot be compared
by them.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

from expunge.store.store import Store
from expunge.sweep.grid import Grid

ROOT = Path(__file__).parents[1]
PLACE = ("method", "regularity", "discovery", "seed")
MEASURES = ("healed", "healed_known", "healed_unknown", "utility", "uxh", "asr")
AGAIN = ("healed_recalibrated", "utility_recalibrated", "uxh_recalibrated", "asr_recalibrated")
SHOWN = {"healed": "healed_recalibrated", "utility": "utility_recalibrated", "uxh": "uxh_recalibrated"}
KEPT = {name: SHOWN.get(name, name) for name in (*PLACE, *SHOWN, "sample_gradients", "status")}


def main(folder: Path) -> None:
    with Store(folder) as store:
        records = [
            record for record in store.database.records() if not (record.settings or {}).get("recalibrate")
        ]
    grid = Grid.read("digits-recalibrated")
    names = [method.name for method in grid.setups[0].methods]
    records.sort(key=lambda found: (names.index(found.method), found.regularity, found.discovery, found.seed))
    expected = len(names) * len(grid.tasks) * len(grid.seeds)
    if len(records) != expected or any(record.status != "done" for record in records):
        raise SystemExit(
            f"{folder} holds {len(records)} finished cells of {expected}; finish the sweep first"
        )
    rows = [
        {name: getattr(record, name) for name in (*PLACE, *MEASURES)}
        | {name: value_of(record.metrics or {}, name) for name in AGAIN}
        | {"sample_gradients": record.sample_gradients, "status": record.status}
        for record in records
    ]
    rows = [
        {name: round(value, 6) if isinstance(value, float) else value for name, value in row.items()}
        for row in rows
    ]
    with (ROOT / "docs/results/digits-methods.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    dates = sorted(str((record.provenance or {}).get("created", ""))[:10] for record in records)
    evidence = {
        "source": "docs/results/digits-methods.csv",
        "command": "expunge bench digits-recalibrated",
        "date": dates[-1],
        "hardware": "two Intel Xeon cores, CPU, float32, torch 2.13.0",
        "data": "digits",
        "model": "convnet",
        "oracles": [],
        "reservations": [
            f"These are figures of {len(grid.seeds)} seeds, {grid.seeds[0]} to {grid.seeds[-1]}.",
            "The data set has 1,437 training images of 8 x 8 pixels; one architecture, a ConvNet of three layers.",
            "REM's settings were chosen by hand on these tasks, with other seeds; SAP and CUTS have their defaults, "
            "and the other methods with something to tune were tuned by 10 trials each (grid digits).",
            "Figures are with normalisation statistics of retained data: DELETE, NPO and gradient ascent return "
            "networks in which the poison is only hidden by theirs (docs/recalibration.md).",
            "Costs are shares of a retraining's sample gradients; other jobs ran beside these, so that seconds were "
            "not kept.",
        ],
        "columns": list(KEPT),
        "rows": [
            [round(value, 4) if isinstance(value, float) else value for value in map(row.get, KEPT.values())]
            for row in rows
        ],
    }
    text = json.dumps(evidence, ensure_ascii=False, separators=(",", ":")).replace("],[", "],\n[")
    (ROOT / "src/expunge/results/evidence_digits.json").write_text(text + "\n", encoding="utf-8")


def value_of(metrics: dict[str, dict[str, float]], name: str) -> float | None:
    return metrics.get(name, {}).get("value")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
