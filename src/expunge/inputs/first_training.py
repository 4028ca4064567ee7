"""How the network was first trained, as far as anybody says, and what it is trained on with therefore."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from expunge.errors import InvalidInput
from expunge.inputs.checkpoint import read_checkpoint
from expunge.inputs.checkpoint_weights import under_names_of
from expunge.inputs.specification import Specification
from expunge.methods.base import Method
from expunge.methods.gradient import GradientMethod
from expunge.methods.relearn import Relearn
from expunge.seeding import generator
from expunge.tasks.base import Split
from expunge.training.continued import completed, continued
from expunge.training.cost import Meter
from expunge.training.initialisation import matching
from expunge.training.numerics import Numerics
from expunge.training.recipe import Optimiser, Recipe

_STATE, _ARGUMENTS = "trainer_state.json", "training_args.bin"
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_BATCH = 8
"""Of a trainer that does not say otherwise."""


@dataclass(frozen=True)
class FirstTraining:
    """What is known of the first training.

    Args:
        recipe: optimiser, epochs and batch size; ``None`` where nobody says.
        source: where these come from, as the end of a sentence.
        scratch: whether the network can be retrained by ``recipe``, from a fresh initialisation.
        start: parameters the training began from, or an earlier checkpoint of it, by the names of the model.
        start_file: where these were read from.
    """

    recipe: Recipe | None
    source: str
    scratch: bool
    start: dict[str, Tensor] | None = None
    start_file: Path | None = None


def first_training(
    model: nn.Module,
    *,
    arch: str,
    checkpoint: Path,
    recipe: Recipe | None = None,
    base: Path | None = None,
    earlier: Path | None = None,
) -> FirstTraining:
    """Return what the user and the files that are named say of the first training.

    A recipe of the user's comes first; then ``trainer_state.json``, as the trainer of ``transformers`` leaves it, in
    the folder of the architecture or of the checkpoint. A network that such a trainer trained began from pretrained
    weights. ``training_args.bin`` beside it is a pickle, which is not read.

    Args:
        model: the network, for the names of its parameters.
        arch: where it comes from, see ``build_architecture``.
        checkpoint: file of the trained model.
        recipe: what the user says.
        base: file or folder of the pretrained weights that training began from.
        earlier: file or folder of an earlier checkpoint of that training.

    Raises:
        InvalidInput: weights to go back to that are those of another network.
        StoreError: a file that cannot be read.
    """
    start, file = None, None
    if (path := base or earlier) is not None:
        path = path.expanduser()  # a file, or a folder such as checkpoint-500
        file = next((path / name for name in _WEIGHTS if (path / name).is_file()), path)
        stored = under_names_of(model, read_checkpoint(file))
        try:
            start = matching(model, stored.state)
        except InvalidInput as error:
            raise InvalidInput(f"{file}: {error}") from error
    kind, _, name = Specification.parse(arch).target.partition(":")
    folders = [Path(name).expanduser()] if kind == "transformers" else []
    folder = next((at for at in (*folders, checkpoint.parent) if (at / _STATE).is_file()), None)
    if recipe is not None:
        # Networks of these packages are rarely trained from a fresh initialisation.
        tuned = base is not None or folder is not None or kind in ("transformers", "timm")
        return FirstTraining(completed(recipe, model), "from --recipe", not tuned, start, file)
    found, source = (None, "") if folder is None else _of_trainer(folder)
    return FirstTraining(found, source, False, start, file)


def trained_on(
    method: Method,
    model: nn.Module,
    split: Split,
    numerics: Numerics,
    first: FirstTraining,
    *,
    seed: int,
    meter: Meter,
    given: Mapping[str, Any],
) -> tuple[str, dict[str, Any]]:
    """Return the optimiser in words, and the settings of ``method`` that were found by trying.

    Relearning follows the first training; where nobody knows it, the kind of the network says the optimiser, and a few
    learning rates are tried on retained examples, drawn by ``seed`` and paid by ``meter``. ``given`` are the user's
    own settings.
    """
    if isinstance(method, Relearn):
        with meter:
            found = continued(
                model, split.retain, numerics, first.recipe, optimiser=method.optimiser, lr=method.lr,
                momentum=method.momentum, weight_decay=method.weight_decay, batch_size=method.batch_size,
                augment=method.augment, generator=generator(seed, "unlearning", "rate"), meter=meter,
            )  # fmt: skip
        name, rate, size = found.optimiser.name, found.optimiser.lr, found.batch_size
        follows, why = found.follows, found.why
        tried = {} if follows or method.lr is not None else {"optimiser": name, "lr": rate}
    elif isinstance(method, GradientMethod):
        name, rate, size = method.optimiser, method.lr, method.batch_size
        theirs = None if first.recipe is None else first.recipe.optimiser
        same = theirs is not None and (name, rate) == (theirs.name, theirs.lr)
        follows, why, tried = same and "lr" not in given, "its own settings", {}
    else:
        return "", {}
    if first.source and follows:
        why = f"as in the first training, {first.source}"
    elif first.source and first.recipe is None:
        why = f"{why}; {first.source}"
    return f"{name}, learning rate {rate:g}, batches of up to {size}: {why}", tried


def _of_trainer(folder: Path) -> tuple[Recipe | None, str]:
    file = folder / _STATE
    left = f"; {_ARGUMENTS} is a pickle and was not read" if (folder / _ARGUMENTS).is_file() else ""
    try:
        state: Any = json.loads(file.read_text(encoding="utf-8"))
        rates = [float(row["learning_rate"]) for row in state["log_history"] if "learning_rate" in row]
        epochs = max(1, math.ceil(float(state["num_train_epochs"])))
        batch = int(state.get("train_batch_size") or _BATCH)
        if not rates or not max(rates) > 0:
            return None, f"{file} has no learning rate{left}; --recipe optimiser.lr=... gives it"
        # The optimiser and its weight decay are the trainer's own defaults; the file does not say.
        optimiser = Optimiser(name="adamw", lr=max(rates), weight_decay=0.0)
        recipe = Recipe(epochs=epochs, batch_size=batch, optimiser=optimiser, augment=False)
    except (OSError, OverflowError, ValueError, TypeError, KeyError, AttributeError, InvalidInput) as error:
        return None, f"{file} cannot be used ({type(error).__name__}: {error}); give --recipe"
    return recipe, f"from {file}{left}"
