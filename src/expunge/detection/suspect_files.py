"""The list of suspects and the scores of all rows, as files."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from expunge.detection.result import NO_LABEL
from expunge.detection.suspects import Suspects
from expunge.store.atomic import write_output
from expunge.store.spreadsheet import csv_text


@dataclass(frozen=True)
class Rows:
    """What the rows are called.

    Attributes:
        labels: int64 (N,), the given labels.
        classes: names of the classes.
        names: of the rows, or empty.
        true_labels: int64 (N,), negative where not known; written beside the given ones.
        nearest: int64 (F, k), for each suspect, worst first, the retained rows that are most like it.
    """

    labels: Tensor
    classes: Sequence[str]
    names: Sequence[str] = ()
    true_labels: Tensor | None = None
    nearest: Tensor | None = None


def write_suspects(path: Path, found: Suspects, rows: Rows) -> None:
    """Write a csv file of the suspects alone, worst first; it is whole or not there.

    Columns: ``index`` from 0; ``name``, where the rows have names; ``is_label_issue``, False in all rows where there is
    no usable list, else True; ``score``; ``detector``, those that flagged it, joined by "+"; ``given_label``;
    ``suggested_label``, empty where none is; ``true_label``, where it is known; ``nearest``, positions of retained rows
    that are like it.

    Raises:
        StoreError: the file cannot be written.
    """
    suggested, scores = found.together.suggested.tolist(), found.together.scores.tolist()
    labels = rows.labels.tolist()
    detectors = found.detectors
    named = "True" if found.usable else "False"
    order = found.worst_first.tolist()
    columns: dict[str, list[object]] = {"index": list(order)}
    if rows.names:
        columns["name"] = [rows.names[row] for row in order]
    # a list that is none says so in a form that 'clean' refuses
    known = found.known.tolist()
    columns["is_label_issue"] = ["True" if known[row] else named for row in order]
    columns["score"] = [f"{scores[row]:.6g}" for row in order]
    columns["detector"] = [detectors[row] for row in order]
    columns["given_label"] = [rows.classes[labels[row]] for row in order]
    columns["suggested_label"] = [
        "" if suggested[row] == NO_LABEL else rows.classes[suggested[row]] for row in order
    ]
    if rows.true_labels is not None:
        true = rows.true_labels.tolist()
        columns["true_label"] = [rows.classes[true[row]] if true[row] >= 0 else "" for row in order]
    if rows.nearest is not None:
        columns["nearest"] = [
            " ".join(str(near) for near in line if near >= 0) for line in rows.nearest.tolist()
        ]
    table = [list(columns), *map(list, zip(*columns.values(), strict=True))]
    _write(path, csv_text(table).encode("utf-8"))


def write_scores(path: Path, found: Suspects, rows: Rows) -> Path:
    """Write the scores of all rows beside the list, in their order: .scores.parquet, or .scores.csv without pyarrow.

    Columns: ``index``, ``name`` where there are names, ``is_label_issue``, ``score``, ``given_label``, and
    ``score_DETECTOR`` in each detector's own unit.

    Raises:
        StoreError: the file cannot be written.
    """
    import pandas as pd

    table = pd.DataFrame(
        {
            "index": range(len(found.together)),
            **({"name": list(rows.names)} if rows.names else {}),
            "is_label_issue": (found.together.flagged & (found.known | found.usable)).numpy(),
            "score": found.together.scores.numpy(),
            "given_label": [rows.classes[label] for label in rows.labels.tolist()],
            **{f"score_{part.detector}": part.scores.numpy() for part in found.found},
        }
    )
    if importlib.util.find_spec("pyarrow") is not None:
        buffer = io.BytesIO()
        table.to_parquet(buffer, index=False)
        return _write(path.with_suffix(".scores.parquet"), buffer.getvalue())
    text = csv_text([list(table.columns), *table.itertuples(index=False, name=None)])
    return _write(path.with_suffix(".scores.csv"), text.encode("utf-8"))


def _write(path: Path, content: bytes) -> Path:
    write_output(path, content, remedy="name another file with --out")
    return path
