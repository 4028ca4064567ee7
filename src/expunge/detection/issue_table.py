"""The list of suspects as a table: one row per training example."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from expunge.detection.result import NO_LABEL, Detection
from expunge.errors import InvalidInput, StoreError
from expunge.store.atomic import write_atomically
from expunge.store.spreadsheet import csv_text


def write_issue_table(
    path: Path,
    found: Sequence[Detection],
    together: Detection,
    labels: Tensor,
    classes: Sequence[str],
    *,
    names: Sequence[str] = (),
    true_labels: Tensor | None = None,
) -> None:
    """Write a csv file with a row for each of the N examples, in order; it is whole or not there.

    Columns: ``index`` from 0; ``name``, where the rows have names; ``is_label_issue``, True for the flagged;
    ``score``, that of ``together``; ``detector``, those that flagged it, joined by "+"; ``given_label``, the
    stored class; ``suggested_label``, the class it should have: the stored one where it is not flagged,
    empty where it is flagged and no label is suggested; ``true_label``, where it is known;
    ``score_DETECTOR``, in that detector's unit.

    Args:
        path: the file; replaced if it is there.
        found: the detections.
        together: their union.
        labels: int64 (N,), the stored labels.
        classes: names of the classes.
        names: of the rows, or empty.
        true_labels: int64 (N,), negative where not known; written beside the others for a later step.

    Raises:
        InvalidInput: names or labels for another number of examples.
        StoreError: the file cannot be written.
    """
    for what, given in (("labels", labels), ("names", names or None), ("true_labels", true_labels)):
        if given is not None and len(given) != len(together):
            raise InvalidInput(
                f"{what}: one for each of the {len(together)} examples is expected, got {len(given)}"
            )
    rows: list[list[object]] = [
        [
            "index",
            *(["name"] if names else []),
            "is_label_issue",
            "score",
            "detector",
            "given_label",
            "suggested_label",
            *(["true_label"] if true_labels is not None else []),
            *(f"score_{part.detector}" for part in found),
        ]
    ]
    stored, true = labels.tolist(), None if true_labels is None else true_labels.tolist()
    flags, suggestions, scores = (
        together.flagged.tolist(),
        together.suggested.tolist(),
        together.scores.tolist(),
    )
    own = [(part.detector, part.flagged.tolist(), part.scores.tolist()) for part in found]
    for row, label in enumerate(stored):
        suggested = suggestions[row] if flags[row] else label
        rows.append(
            [
                row,
                *([names[row]] if names else []),
                flags[row],
                f"{scores[row]:.6g}",
                "+".join(name for name, flagged, _ in own if flagged[row]),
                classes[label],
                "" if suggested == NO_LABEL else classes[suggested],
                *([classes[true[row]] if true[row] >= 0 else ""] if true is not None else []),
                *(f"{score[row]:.6g}" for _, _, score in own),
            ]
        )
    try:
        write_atomically(path, csv_text(rows).encode("utf-8"))
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error}; name another file with --out") from error
