"""What a repair leaves beside the checkpoint: the report, and tables of further rows that may be bad."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

import expunge
from expunge.evaluation.audit_table import as_document
from expunge.evaluation.before_after import Measured, Share
from expunge.repair.clean import Cleaned
from expunge.repair.clean_page import clean_page
from expunge.repair.in_words import one_sentence
from expunge.repair.prepare import Prepared
from expunge.repair.pretrained import pretrained_files
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
        REPORT: json.dumps(_finite(as_json(prepared, cleaned)), indent=2, allow_nan=False) + "\n",
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
    for name, raw in {**pretrained_files(prepared.job, done), **files}.items():
        write_output(folder / name, raw, remedy="check the folder's free space")
    return list(content)


def row_table(prepared: Prepared, cleaned: Cleaned, positions: Tensor, scores: Tensor | None = None) -> str:
    """Return a csv table of the rows at ``positions``, in their order.

    Columns: ``index``, ``name`` where rows have names, ``score`` where there are ``scores``, ``given_label``
    ``predicted_label`` (by the repaired model).
    """
    data, labels = prepared.data, prepared.data.examples.labels.cpu()
    named, scored = ["name"] if data.names else [], [] if scores is None else ["score"]
    rows: list[list[object]] = [["index", *named, *scored, "given_label", "predicted_label"]]
    for number, row in enumerate(positions.tolist()):
        name = [data.names[row]] if data.names else []
        score = [] if scores is None else [f"{float(scores[number]):.6g}"]
        predicted = int(cleaned.after.predictions[row])
        told = data.classes[predicted] if predicted >= 0 else ""
        rows.append([row, *name, *score, data.classes[int(labels[row])], told])
    return csv_text(rows)


def as_json(prepared: Prepared, cleaned: Cleaned) -> dict[str, Any]:
    """Return everything that was decided and measured; a share is {"right", "of"}, what is not finite null.

    "audit" holds what "verdict" and "reasons" rest on. "expected_good" of what was found is the method's estimate.
    """
    job, cost = prepared.job, cleaned.cost
    found, verdict = cleaned.found, cleaned.audit.verdict
    return {
        "expunge": expunge.__version__,
        "verdict": verdict.grade,
        "sentence": one_sentence(prepared, cleaned),
        "reasons": [finding.sentence for finding in verdict.findings],
        "written": cleaned.checkpoint,
        "rejected": cleaned.rejected,
        "notes": list(cleaned.notes),
        "asked": {
            **{name: _plain(getattr(job, name)) for name in _ASKED},
            "truth_learned": job.truth is not None and job.learn_truth,
            "forced": job.force,
            "device": prepared.numerics.device,
            "dtype": prepared.numerics.dtype,
            "data_options": {name: _plain(value) for name, value in job.options.reading.items()},
        },
        "method": {
            "name": prepared.method.name,
            "why": prepared.choice.why,
            "runner_up": prepared.choice.runner_up,
            "training": prepared.optimiser,
            "settings": prepared.method.settings(),
            "settings_for_this_data": prepared.changed,
        },
        "check": {
            "findings": [asdict(finding) for finding in prepared.check.findings],
            "numbers": prepared.check.numbers,
        },
        "listed": {
            "rows": prepared.forget.positions.tolist(),
            "per_class": prepared.forget.per_class,
        },
        "found": None
        if found is None
        else {"rows": len(found.positions), "expected_good": found.expected_good},
        "disagreeing": len(cleaned.disagreeing),
        "before": _numbers(cleaned.before, prepared),
        "after": _numbers(cleaned.after, prepared),
        "reference": None if cleaned.reference is None else _numbers(cleaned.reference, prepared),
        "audit": as_document(cleaned.audit),
        "class_losses": [
            {
                "class": each.name,
                "before": _share(each.before),
                "after": _share(each.after),
                "loss": each.loss,
            }
            for each in cleaned.damages
        ],
        "cost": {
            **{name: getattr(cost, name) for name in _COST},
            "share_of_retraining": cleaned.cost_share,
        },
        "provenance": asdict(cleaned.origin),
    }


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value


def _numbers(measured: Measured, prepared: Prepared) -> dict[str, Any]:
    classes = zip(prepared.data.classes, measured.per_class, strict=True)
    return {
        **{name: _share(getattr(measured, name)) for name in _SHARES},
        "per_class": {name: _share(share) for name, share in classes},
    }


def _share(share: Share | None) -> dict[str, int] | None:
    return None if share is None else {"right": share.right, "of": share.of}


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
