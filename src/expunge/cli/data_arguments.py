"""Options that say how training data is read, for every command that reads some."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from expunge.errors import InvalidInput

if TYPE_CHECKING:
    from expunge.inputs.training_data import DataOptions

_PANEL = "How the data is read"

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
Normalise = Annotated[
    str | None,
    typer.Option(
        help="Of images: data, imagenet, half or none; by default data, or what fits the model best.",
        rich_help_panel=_PANEL,
    ),
]
Mean = Annotated[
    str | None, typer.Option(help="Of pixels in [0, 1]: 0.49,0.48,0.45.", rich_help_panel=_PANEL)
]
Std = Annotated[str | None, typer.Option(help="The same.", rich_help_panel=_PANEL)]
Size = Annotated[
    int | None, typer.Option(help="Resize images to this side, in pixels.", rich_help_panel=_PANEL)
]
Crop = Annotated[
    bool,
    typer.Option("--crop", help="Resize the shorter side and cut out the centre.", rich_help_panel=_PANEL),
]
Channels = Annotated[int | None, typer.Option(help="1 or 3.", rich_help_panel=_PANEL)]
Pad = Annotated[
    int, typer.Option(help="Augment: crop after padding by so many pixels.", rich_help_panel=_PANEL)
]
Flip = Annotated[bool, typer.Option("--flip", help="Augment: flip horizontally.", rich_help_panel=_PANEL)]
Classes = Annotated[
    list[str] | None,
    typer.Option(help="Class names in the order of the logits, a,b,c; repeatable.", rich_help_panel=_PANEL),
]
Inputs = Annotated[
    list[str] | None, typer.Option(help="Input columns of a table, a,b; repeatable.", rich_help_panel=_PANEL)
]
Label = Annotated[str | None, typer.Option(help="Label column of a table.", rich_help_panel=_PANEL)]
Split = Annotated[str | None, typer.Option(help="Split of a Hugging Face data set.", rich_help_panel=_PANEL)]
Tokenizer = Annotated[
    str | None, typer.Option(help="Folder of the tokenizer, for text.", rich_help_panel=_PANEL)
]
MaxLength = Annotated[int | None, typer.Option(help="Tokens at most in a text.", rich_help_panel=_PANEL)]
DataRoot = Annotated[
    Path | None,
    typer.Option(help="Folder of the named data sets; by default $EXPUNGE_DATA.", rich_help_panel=_PANEL),
]


def data_options(
    arch: str,
    device: str,
    *,
    normalise: str | None,
    mean: str | None,
    std: str | None,
    size: int | None,
    crop: bool,
    channels: int | None,
    pad: int,
    flip: bool,
    classes: list[str] | None,
    inputs: list[str] | None,
    label: str | None,
    split: str | None,
    tokenizer: str | None,
    max_length: int | None,
    data_root: Path | None,
) -> DataOptions:
    """Return the options; what the user leaves open is taken from the pipeline of ``arch``, where it has one.

    Raises:
        InvalidInput: a value that is not understood or out of range.
    """
    from expunge.inputs.architecture import preprocessing_of
    from expunge.inputs.training_data import DataOptions

    own = preprocessing_of(arch)
    means, stds = _numbers("--mean", mean), _numbers("--std", std)
    defaults = ["size"] if size is None else []
    if means is None and stds is None and normalise is None:
        means, stds = own.mean, own.std
        defaults += ["mean", "std"]
    return DataOptions(
        normalise=normalise or "auto",
        mean=means,
        std=stds,
        size=size if size is not None else own.size,
        crop=crop,
        channels=channels,
        pad=pad,
        flip=flip,
        classes=_names(classes),
        inputs=_names(inputs),
        label=label,
        split=split,
        tokenizer=tokenizer,
        max_length=max_length,
        root=data_root,
        device=device,
        defaults=tuple(defaults),
    )


def _names(texts: list[str] | None) -> tuple[str, ...]:
    """Parts between commas; an option that is repeated has one name each time, commas and all."""
    return (
        tuple(texts)
        if texts and len(texts) > 1
        else tuple(part for text in texts or () for part in text.split(","))
    )


def _numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise InvalidInput(
            f"{option} takes numbers separated by commas, such as 0.5,0.5,0.5; got {text!r}"
        ) from error
