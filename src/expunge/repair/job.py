"""What a user asks for: everything a repair is made from, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from expunge.api import load_method
from expunge.choice import Purpose
from expunge.errors import InvalidInput, UnknownName, near_miss
from expunge.inputs.specification import Specification, plain_value
from expunge.inputs.training_data import DataOptions
from expunge.registry import METHODS
from expunge.settings import make_settings
from expunge.training.numerics import Devices
from expunge.training.recipe import Optimiser, PartialRecipe, Recipe

Report = Callable[[float, str], None]
"""Receives the share of the work that is done, in [0, 1], and what is being done."""

_RECIPE = ("epochs", "batch_size", "schedule", "augment")


@dataclass(frozen=True, kw_only=True)
class Job:
    """A repair to be made.

    Args:
        checkpoint: the trained model's file; it is only read.
        arch: the network, see ``build_architecture``.
        data: what it was trained on, see ``load_training_data``.
        forget: the list of bad rows, see ``read_forget_list``.
        options: how data is read.
        method: name of a method; by default the one :func:`~expunge.choice.choose` names.
        settings: of the method, name -> value.
        purpose: "heal" what bad rows did, or "forget" good ones.
        retain: whether the remaining training data may be trained on.
        discovery: share of the bad rows that the list holds, where it is known.
        validation: data the model was not trained on, to measure with.
        unseen: data the model was not trained on, for the methods that need some.
        truth: true labels, see ``read_truth``.
        learn_truth: train the listed rows under their true labels.
        reference: checkpoint of the same network to compare with, such as one trained anew.
        recipe: how the model was first trained.
        base: file of the pretrained weights that training began from.
        earlier: file of an earlier checkpoint of that training.
        seed: of everything random.
        device: torch device; by default an accelerator if there is one.
        devices: how many devices share the method's training steps; on the CPU, processes.
        dtype: "float32" or "bfloat16"; by default as :meth:`Numerics.choose` finds.
        measure_batch: rows a forward pass reads while measuring.
        force: repair although there is little to repair, or the model scores badly on its own training data.
    """

    checkpoint: Path
    arch: str
    data: str
    forget: str
    options: DataOptions = field(default_factory=DataOptions)
    method: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    purpose: Purpose = "heal"
    retain: bool = True
    discovery: float | None = None
    validation: str | None = None
    unseen: str | None = None
    truth: str | None = None
    learn_truth: bool = True
    reference: Path | None = None
    recipe: Recipe | None = None
    base: Path | None = None
    earlier: Path | None = None
    seed: int = 0
    device: str | None = None
    devices: int = 1
    dtype: str | None = None
    measure_batch: int = 256
    force: bool = False

    def __post_init__(self) -> None:
        if self.method is not None:
            load_method(self.method, **self.settings)  # a mistake is told before any data is read
        elif self.settings:
            known = {entry.name for name in METHODS.names() for entry in fields(METHODS.get(name))}
            unknown = next((name for name in self.settings if name not in known), None)
            if unknown is not None:
                raise UnknownName(f"no method has a setting {unknown!r:.100}{near_miss(unknown, known)}")
        if self.measure_batch < 1:
            raise InvalidInput(f"rows measured at a time must be at least 1, got {self.measure_batch}")
        Devices(self.devices)
        check_start(self.base, self.earlier)
        if self.purpose == "forget" and self.truth is not None:
            raise InvalidInput("true labels are for bad rows: leave them out, or the purpose 'forget'")

    @property
    def pretrained(self) -> Path | None:
        """The folder of ``transformers`` that the architecture is read from, if it is one."""
        kind, _, name = Specification.parse(self.arch).target.partition(":")
        folder = Path(name).expanduser()
        return folder if kind == "transformers" and (folder / "config.json").is_file() else None

    @property
    def written(self) -> str:
        """Name of the repaired file: the one ``from_pretrained`` looks for, where it is to load the folder."""
        if self.pretrained is None:
            return f"checkpoint{self.checkpoint.suffix}"
        return "model.safetensors" if self.checkpoint.suffix == ".safetensors" else "pytorch_model.bin"


def check_start(base: Path | None, earlier: Path | None) -> None:
    """Raise :class:`InvalidInput` where both are given."""
    if base is not None and earlier is not None:
        raise InvalidInput("give --base or --earlier, not both: weights can go back to one place only")


def read_settings(option: str, texts: Sequence[str]) -> dict[str, Any]:
    """Return ``field=value`` texts as a mapping; values are read as TOML, anything else is text.

    Raises:
        InvalidInput: a text without a value, or a field given twice; ``option`` is named in the message.
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not (name and equals and value):
            raise InvalidInput(f"{option} takes FIELD=VALUE, such as batch_size=64; got {text!r:.100}")
        if name in found:
            raise InvalidInput(f"{option}: {name!r} is given twice; give it once")
        found[name] = plain_value(value)
    return found


def read_recipe(texts: Sequence[str]) -> PartialRecipe | None:
    """Return the recipe of ``field=value`` texts, ``None`` for no text; ``optimiser.lr=0.05`` goes deeper.

    It knows which fields were stated: nobody trains a transformer with the optimiser that is the default of recipes.

    Raises:
        InvalidInput: an unknown field or a value out of range.
    """
    settings = read_settings("--recipe", texts)
    if not settings:
        return None
    known = (*_RECIPE, *(f"optimiser.{entry.name}" for entry in fields(Optimiser)))
    for name in settings:
        if name not in known:
            raise InvalidInput(
                f"--recipe has no field {name!r:.100}{near_miss(name, known)} (fields: {', '.join(known)})"
            )
    inner = {name.partition(".")[2]: value for name, value in settings.items() if "." in name}
    plain = {name: value for name, value in settings.items() if "." not in name}
    optimiser = make_settings(Optimiser, inner, "--recipe optimiser")
    made = {**plain, "optimiser": optimiser, "stated": tuple(settings)}
    return make_settings(PartialRecipe, made, "--recipe")
