"""What a repair leaves beside the checkpoint: the report, and tables of further rows that may be bad."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

import expunge
from expunge.evaluation.audit_table import as_document
from expunge.evaluation.before_after import Measured
from expunge.repair.clean import Cleaned
from expunge.repair.clean_page import clean_page
from expunge.repair.in_words import one_sentence
from expunge.repair.prepare import Prepared
from expunge.store.atomic import write_output
from expunge.store.spreadsheet import csv_text

REPORT = "report.json"
_ASKED = (
    "checkpoint", "arch", "data", "forget", "purpose", "discovery", "validation", "unseen", "truth", "reference",
    "base", "earlier", "seed",
)  # fmt: skip
_SHARES = ("retained", "forget_as_stored", "validation", "healed_known", "healed_unknown")
_COST = ("seconds", "sample_gradients", "peak_memory", "parameters", "log")


def write_files(prepared: Prepared, cleaned: Cleaned, folder: Path) -> list[str]:
    """Write the report and the tables that have rows; return the files' names.

    - report.html and report.json;
    - for a model of ``transformers``, what ``from_pretrained`` needs beside the weights, and a model card;
    - found.csv: rows outside the list that the method named;
    - disagree.csv: rows outside the list that are no longer given their given label, where bad rows were to be
      healed.

    Either table can be given to ``--forget``, after a look through it.

    Raises:
        StoreError: a file cannot be written.
    """
    content = {
        "report.html": clean_page(prepared, cleaned),
        REPORT: json.dumps(_plain(as_json(prepared, cleaned)), indent=2, allow_nan=False) + "\n",
    }
    if cleaned.found is not None and len(cleaned.found.positions):
        content["found.csv"] = row_table(prepared, cleaned, cleaned.found.positions, cleaned.found.scores)
    if prepared.job.purpose == "heal" and len(cleaned.disagreeing):
        content["disagree.csv"] = row_table(prepared, cleaned, cleaned.disagreeing)
    files = {name: text.encode("utf-8", "backslashreplace") for name, text in content.items()}
    done = (
        f"{len(prepared.forget.positions)} of {len(prepared.data)} training rows were taken out of this model with "
        f"method {prepared.method.name!r}; verdict: {cleaned.audit.verdict.grade}."
    )
    for name, raw in {**pretrained_files(prepared.job.pretrained, done), **files}.items():
        write_output(folder / name, raw, remedy="check the folder's free space")
    return list(content)


def pretrained_files(folder: Path | None, repaired: str) -> dict[str, bytes]:
    """Return what ``from_pretrained`` needs beside the weights, name -> content; the model card says ``repaired``."""
    if folder is None:
        return {}
    found = {
        path.name: path.read_bytes()
        for path in sorted(folder.iterdir())
        if path.is_file()
        and path.suffix in (".json", ".txt", ".model")
        and not path.name.endswith(".index.json")
    }
    card = folder / "README.md"
    before = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    note = (
        f"## Repaired\n\n{repaired} By expunge {expunge.__version__}; report.html holds what was measured.\n"
    )
    return {**found, "README.md": f"{before.rstrip()}\n\n{note}".lstrip().encode()}


def row_table(prepared: Prepared, cleaned: Cleaned, positions: Tensor, scores: Tensor | None = None) -> str:
    """Return a csv table of the rows at ``positions``, in their order.

    Columns: ``index``, ``name`` where rows have names, ``score`` where there are ``scores`` of all rows,
    ``given_label``, ``predicted_label`` (by the repaired model).
    """
    data, rows = prepared.data, positions.tolist()
    given = data.examples.labels.cpu()[positions].tolist()
    predicted = cleaned.after.predictions[positions].tolist()
    columns: dict[str, list[object]] = {"index": rows}
    if data.names:
        columns["name"] = [data.names[row] for row in rows]
    if scores is not None:
        columns["score"] = [f"{score:.6g}" for score in scores[positions].tolist()]
    columns["given_label"] = [data.classes[label] for label in given]
    columns["predicted_label"] = [data.classes[label] if label >= 0 else "" for label in predicted]
    return csv_text([list(columns), *map(list, zip(*columns.values(), strict=True))])


def as_json(prepared: Prepared, cleaned: Cleaned) -> dict[str, Any]:
    """Return everything that was decided and measured.

    "audit" holds what "verdict" and "reasons" rest on. "expected_good" of what was found is the method's estimate.
    """
    job, cost = prepared.job, cleaned.cost
    found, verdict = cleaned.found, cleaned.audit.verdict
    named = None if found is None else {"rows": len(found.positions), "expected_good": found.false_discovery}
    return {
        "expunge": expunge.__version__,
        "verdict": verdict.grade,
        "sentence": one_sentence(prepared, cleaned),
        "reasons": [finding.sentence for finding in verdict.findings],
        "written": cleaned.checkpoint,
        "rejected": cleaned.rejected,
        "notes": cleaned.notes,
        "asked": {
            **{name: getattr(job, name) for name in _ASKED},
            "truth_learned": job.truth is not None and job.learn_truth,
            "forced": job.force,
            "device": prepared.numerics.device,
            "dtype": prepared.numerics.dtype,
            "data_options": job.options.reading,
        },
        "method": {
            "name": prepared.method.name,
            "why": prepared.choice.why,
            "runner_up": prepared.choice.runner_up,
            "training": prepared.optimiser,
            "settings": prepared.method.settings(),
            "settings_for_this_data": prepared.changed,
        },
        "check": {"findings": prepared.check.findings, "numbers": prepared.check.numbers},
        "listed": {"rows": prepared.forget.positions.tolist(), "per_class": prepared.forget.per_class},
        "found": named,
        "disagreeing": len(cleaned.disagreeing),
        "before": _numbers(cleaned.before, prepared),
        "after": _numbers(cleaned.after, prepared),
        "reference": None if cleaned.reference is None else _numbers(cleaned.reference, prepared),
        "audit": as_document(cleaned.audit),
        "class_losses": [
            {"class": each.name, "before": each.before, "after": each.after, "loss": each.loss}
            for each in cleaned.damages
        ],
        "cost": {name: getattr(cost, name) for name in _COST} | {"share_of_retraining": cleaned.cost_share},
        "provenance": cleaned.origin,
    }


def _numbers(measured: Measured, prepared: Prepared) -> dict[str, Any]:
    classes = zip(prepared.data.classes, measured.per_class, strict=True)
    return {**{name: getattr(measured, name) for name in _SHARES}, "per_class": dict(classes)}


def _plain(value: Any) -> Any:
    """Return ``value`` as JSON has it; a number that is not finite as null."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
