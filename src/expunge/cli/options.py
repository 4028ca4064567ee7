"""Options that several commands have, declared once, and what is read from lists between commas."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from expunge.errors import InvalidInput

if TYPE_CHECKING:
    from expunge.inputs.training_data import DataOptions


def takes(**groups: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the fields of dataclasses as options; it gets each dataclass as a keyword argument."""

    def with_groups(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True)
        kept = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for name, parameter in own.parameters.items()
            if name not in groups
        ]
        fields = {name: inspect.signature(kind, eval_str=True).parameters for name, kind in groups.items()}

        @functools.wraps(command)
        def called(**given: Any) -> None:
            made = {
                name: kind(**{field: given.pop(field) for field in fields[name]})
                for name, kind in groups.items()
            }
            command(**given, **made)

        del called.__wrapped__  # else typer looks at the command itself
        added = [parameter for group in fields.values() for parameter in group.values()]
        called.__signature__ = own.replace(parameters=[*kept, *added])  # type: ignore[attr-defined]
        called.__annotations__ = {}
        return called

    return with_groups


def items(option: str, text: str, remedy: str = "give at least one value") -> list[str]:
    """Return the parts between commas; none is an error."""
    found = [item.strip() for item in text.split(",") if item.strip()]
    if not found:
        raise InvalidInput(f"{option} is empty; {remedy}")
    return found


def numbers(option: str, text: str, kind: type[Any] = int) -> tuple[Any, ...]:
    """Return the numbers between commas; none, or something else among them, is an error."""
    found = items(option, text)
    try:
        return tuple(kind(item) for item in found)
    except ValueError as error:
        what = "whole numbers" if kind is int else "numbers"
        raise InvalidInput(f"{option} takes {what} separated by commas; got {text!r}") from error


_option = functools.partial(typer.Option, rich_help_panel="How the data is read")

Data = Annotated[
    str,
    typer.Option(
        help="What the model was trained on: a folder with a folder of images per class, a .npz, .csv or .parquet "
        "file, the name of a data set, or file.py:FACTORY."
    ),
]
Arch = Annotated[
    str,
    typer.Option(help="The network: expunge:NAME, transformers:FOLDER, timm:NAME or file.py:FACTORY."),
]
Device = Annotated[str | None, typer.Option(help="Torch device; by default an accelerator if there is one.")]
RECIPE = "FIELD=VALUE: epochs=30, batch_size=128, optimiser.lr=0.05; repeatable."
BASE = "The pretrained weights that training began from: a file."
EARLIER = "An earlier checkpoint of that training, such as checkpoint-500."
Seed = Annotated[int, typer.Option(help="Of everything random.")]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How data is read, as it is written on the command line."""

    normalise: Annotated[
        str | None,
        _option(
            help="Of images: data, imagenet, half or none; by default data, or what fits the model best."
        ),
    ] = None
    mean: Annotated[str | None, _option(help="Of pixels in [0, 1]: 0.49,0.48,0.45.")] = None
    std: Annotated[str | None, _option(help="The same.")] = None
    size: Annotated[int | None, _option(help="Resize images to this side, in pixels.")] = None
    crop: Annotated[bool, _option("--crop", help="Resize the shorter side and cut out the centre.")] = False
    channels: Annotated[int | None, _option(help="1 or 3.")] = None
    pad: Annotated[int, _option(help="Augment: crop after padding by so many pixels.")] = 0
    flip: Annotated[bool, _option("--flip", help="Augment: flip horizontally.")] = False
    classes: Annotated[
        list[str] | None, _option(help="Class names in the order of the logits, a,b,c; repeatable.")
    ] = None
    inputs: Annotated[list[str] | None, _option(help="Input columns of a table, a,b; repeatable.")] = None
    label: Annotated[str | None, _option(help="Label column of a table.")] = None
    split: Annotated[str | None, _option(help="Split of a Hugging Face data set.")] = None
    tokenizer: Annotated[str | None, _option(help="Folder of the tokenizer, for text.")] = None
    max_length: Annotated[int | None, _option(help="Tokens at most in a text.")] = None
    workers: Annotated[int, _option(help="Processes that read images, or your own dataset, ahead.")] = 0
    cache: Annotated[
        str,
        _option(
            help="Where rows stay once they are read: memory, disk, a folder, or none; auto is in memory, else on disk."
        ),
    ] = "auto"
    data_root: Annotated[
        Path | None, _option(help="Folder of the named data sets; by default $EXPUNGE_DATA.")
    ] = None

    def options(self, arch: str, device: str | None) -> DataOptions:
        """Return what it says; what is left open is taken from the pipeline of ``arch``, where it has one."""
        from expunge.inputs.architecture import preprocessing_of
        from expunge.inputs.training_data import DataOptions
        from expunge.training.numerics import Numerics

        own, given = preprocessing_of(arch), dict(vars(self))
        given["root"] = given.pop("data_root")
        for name in ("mean", "std"):
            given[name] = numbers(f"--{name}", given[name], float) if given[name] is not None else None
        given |= {"classes": _names(self.classes), "inputs": _names(self.inputs)}
        defaults = ["size"] if self.size is None else []
        if self.mean is None and self.std is None and self.normalise is None:
            given |= {"mean": own.mean, "std": own.std}
            defaults += ["mean", "std"]
        given["size"] = own.size if self.size is None else self.size
        given["normalise"] = self.normalise or "auto"
        return DataOptions(**given, device=Numerics.choose(device).device, defaults=tuple(defaults))


def _names(texts: list[str] | None) -> tuple[str, ...]:
    """Parts between commas; an option that is repeated has one name each time, commas and all."""
    if texts and len(texts) > 1:
        return tuple(texts)
    return tuple(part for text in texts or () for part in text.split(","))
