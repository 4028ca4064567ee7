"""The call that looks for bad examples in one's own data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from expunge.api import examples_for, positions_of, readable, start_weights
from expunge.data.reader import Reader
from expunge.detection.out_of_sample import fresh_copies, out_of_sample
from expunge.detection.relearned import relearned
from expunge.detection.suspects import Suspects, suspects
from expunge.errors import InvalidInput
from expunge.recording.recording import RECORDED, read_recording
from expunge.training.loop import Progress, silent
from expunge.training.recipe import Recipe

if TYPE_CHECKING:
    import pandas as pd


def find(
    model: nn.Module,
    train_set: Any,
    *,
    known: Iterable[int] | Tensor | None = None,
    folds: int | None = None,
    recorded: Path | str | None = None,
    recipe: Recipe | None = None,
    base: Mapping[str, Tensor] | None = None,
    earlier: Mapping[str, Tensor] | None = None,
    seed: int = 0,
    device: str | None = None,
    workers: int = 0,
    cache: str = "auto",
    progress: Progress = silent,
) -> pd.DataFrame:
    """Return which training examples are probably bad: a row for each, with a flag and a score.

    A copy of the model is shaken loose and learns again, in a few passes; what it then believes least is flagged, see
    :func:`~expunge.detection.wrong_labels.wrong_labels`. Unlisted examples that share the features of known ones
    (a trigger, say) are flagged too. As in "expunge find".

    Args:
        model: as it was trained. It stays untouched.
        train_set: what it was trained on, as :func:`expunge.unlearn` takes it.
        known: positions known to be bad (integers, or a boolean mask); five or more set the cut.
        folds: train so many new models, each without a part of the data, in place of relearning.
        recorded: file that :class:`expunge.Recording` wrote during the first training, in place of relearning.
        recipe: how the model was first trained.
        base: state dict of the pretrained weights that the training began from.
        earlier: state dict of an earlier checkpoint of the same training, in place of ``base``.
        seed: of everything random.
        device: torch device; by default as in :func:`expunge.unlearn`.
        workers: processes that read the data set ahead; the result is the same.
        cache: where rows stay once they are read; as in :func:`expunge.unlearn`.
        progress: called with the share of the work that is done.

    Returns:
        DataFrame with a row for each example, in order: ``is_label_issue``, ``score`` (in [0, 1], higher is more
        suspicious), ``detector`` (who flagged it: labels, neighbours, known), ``given_label``, ``suggested_label``
        (-1 for none). ``attrs["expected"]`` is the number of wrong labels that are expected, ``attrs["precision"]``
        the share of those flagged that is expected to be wrong, ``attrs["usable"]`` whether it is a list, and
        ``attrs["notes"]`` says why.

    Raises:
        InvalidInput: ``folds`` and ``recorded`` at once, positions that are none, a model that does not fit the data.
        DataError: a recording of other data, labels out of range.
        Diverged: training led to NaN.
    """
    if folds is not None and recorded is not None:
        raise InvalidInput(
            "give folds or recorded, not both: either trains models or reads what was recorded"
        )
    reader = Reader(workers=workers, cache=cache)
    examples, numerics = examples_for(model, readable(train_set), device, reader=reader)
    mask = torch.zeros(len(examples), dtype=torch.bool)
    if known is not None:
        mask[positions_of(known, len(examples), "known")] = True
    labels, n_classes = examples.labels.cpu(), examples.n_classes
    if recorded is not None:
        p = read_recording(Path(recorded), labels, n_classes)["probabilities"]
        found = suspects(labels, n_classes, probabilities=p, known=mask, notes=[RECORDED])
    elif folds is not None:
        p = out_of_sample(
            fresh_copies(model), examples, numerics, recipe=recipe, folds=folds, seed=seed, progress=progress
        )
        found = suspects(labels, n_classes, probabilities=p, known=mask)
    else:
        beliefs = relearned(
            model, examples, numerics, known=mask, recipe=recipe, start=start_weights(model, base, earlier),
            seed=seed, progress=progress,
        )  # fmt: skip
        found = suspects(labels, n_classes, beliefs=beliefs, known=mask)
    return frame(found, labels)


def frame(found: Suspects, labels: Tensor) -> pd.DataFrame:
    """Return a row for each example; see :func:`find`."""
    import pandas as pd

    together = found.together
    table = pd.DataFrame(
        {
            "is_label_issue": together.flagged.numpy(),
            "score": together.scores.numpy(),
            "detector": found.detectors,
            "given_label": labels.cpu().numpy(),
            "suggested_label": together.suggested.numpy(),
        }
    )
    judged = found.labels
    table.attrs = {
        "expected": None if judged is None else judged.estimated,
        "precision": None if judged is None else judged.precision,
        "usable": found.usable,
        "notes": [f"{part.detector}: {note}" for part in found.found for note in part.notes],
    }
    return table
