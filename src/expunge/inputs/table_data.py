"""Tables that the ``datasets`` library of Hugging Face loads: images, text or numbers in columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from expunge.data.examples import Source
from expunge.data.joined import TensorSource
from expunge.errors import DataError, InvalidInput, first_few, near_miss
from expunge.inputs.arrays import Part, pad_tokens, read_inputs
from expunge.inputs.forget_files import LABEL_COLUMNS, TITLES
from expunge.inputs.pictures import opener_of, read_pictures
from expunge.inputs.row_keys import printable
from expunge.inputs.specification import is_path
from expunge.inputs.training_data import NO_LABEL, DataOptions, TrainingData, given_names, number_labels
from expunge.optional import load_extra

FORMATS = {".parquet": "parquet", ".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json"}
_ABOUT_ROWS = ("id", "unnamed: 0", "given_label", "suggested_label", *TITLES, *LABEL_COLUMNS)
_LABELS = ("label", "labels", "target", "class", "y")
_TEXTS = ("text", "sentence", "content", "question")


def open_table(target: str, settings: dict[str, Any], options: DataOptions, part: Part = "train") -> Any:
    """Return a ``datasets.Dataset``: a local file or folder, or a name that the library looks up.

    ``settings`` are passed on to ``load_dataset`` (``name``, ``revision``); ``part`` says which split is taken where
    ``options`` name none.
    """
    library = load_extra("datasets", "datasets", "data", f"reading {target}")
    path = Path(target).expanduser()
    if is_path(target) and not path.exists():
        raise DataError(f"{target}: no such file or folder; check the path")
    quiet = library.are_progress_bars_disabled()
    library.disable_progress_bars()
    try:
        if path.is_dir() and any((path / name).is_file() for name in ("state.json", "dataset_dict.json")):
            found = library.load_from_disk(str(path))
        elif path.is_file():
            if path.suffix == ".tsv":
                settings = {"sep": "\t", **settings}
            if FORMATS[path.suffix] == "csv":
                # A cell "NA" or "None" is text; an empty one is missing.
                settings = {"keep_default_na": False, "na_values": [""], **settings}
            found = library.load_dataset(FORMATS[path.suffix], data_files=str(path), **settings)
        else:
            found = library.load_dataset(str(path) if path.exists() else target, **settings)
    # The library, and each reader below it, fails in its own ways.
    except Exception as error:
        cause = error.__cause__ or error
        said = str(cause).partition("\n")[0]
        raise DataError(
            f"{target}: the datasets library cannot load it ({type(cause).__name__}: {said}); check the path or name"
        ) from error
    finally:
        if not quiet:
            library.enable_progress_bars()
    if not hasattr(found, "keys"):
        return found
    usual = ["train"] if part == "train" else ["validation", "test"]
    wanted = [options.split] if options.split else usual
    split = next((name for name in wanted if name in found), None)
    if split is None and not options.split and len(found) == 1:
        split = next(iter(found))  # of a single file, which the library calls "train"
    if split is None:
        raise DataError(
            f"{target}: no split {wanted[0]!r}; it has {first_few(list(found), 8)}, name one with --split"
        )
    return found[split]


def load_table(table: Any, options: DataOptions, where: str) -> TrainingData:
    """Read a ``datasets.Dataset``: its labels, its inputs, and every other column of single values.

    The label is ``options.label``, else a column of class labels, else one called label, labels, target,
    class or y. The inputs are ``options.inputs``, else an image column, else with a tokenizer a text
    column, else a column of equal-length lists, else every column of numbers but for those whose title says that they
    name or mark rows.
    """
    if len(table) == 0:
        raise DataError(f"{where} has no rows")
    options = replace(options, inputs=given_names(options.inputs, table.column_names, "inputs"))
    for name in (*options.inputs, *([options.label] if options.label else [])):
        if name not in table.column_names:
            raise DataError(
                f"{where} has no column {name!r}{near_miss(name, table.column_names)}; it has "
                f"{first_few(table.column_names, 8)}"
            )
    # Every look at table.features copies all of them: with a column a pixel that is most of the time.
    features = table.features
    label = _label_column(features, options, where)
    values = table.with_format(None)[label][:]
    names = tuple(getattr(features[label], "names", None) or ())
    if names:
        # -1 stands for no label there.
        values = [None if value == -1 else value for value in values]
    numbered = number_labels(values, options.classes, f"{where}, column {label!r}", names)
    inputs = _input_columns(table, features, label, options, where)
    if label in inputs:
        raise DataError(f"{where}: column {label!r} is the label and an input too; leave it out of --inputs")
    source, rows, note = _read(table, features, inputs, options, where)
    others = [name for name in features if name not in {*inputs}]
    columns = _Columns(table, [name for name in others if _dtype(features, name) is not None])
    others.remove(label)
    left_out = f"; left out: {first_few(others, 8)}" if others else ""
    taken = first_few(list(map(repr, inputs)), 8)
    notes = (f"labels from column {label!r}, inputs from {taken}{left_out}", *note)
    return TrainingData.of(source, *numbered, names=rows, columns=columns, notes=notes)


class _Columns(Mapping[str, Sequence[Any]]):
    """Columns of single values, each read when it is asked for: a table may be larger than memory."""

    def __init__(self, table: Any, names: list[str]) -> None:
        self._table, self._names = table.with_format(None), names

    def __getitem__(self, name: str) -> Sequence[Any]:
        if name not in self._names:
            raise KeyError(name)
        values: Sequence[Any] = self._table[name][:]
        return values

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _dtype(features: Mapping[str, Any], name: str) -> str | None:
    """Type of a column of single values; ``None`` for images, lists and the like."""
    feature = features[name]
    kinds = ("Value", "ClassLabel")
    return str(feature.dtype) if type(feature).__name__ in kinds else None


def _label_column(features: Mapping[str, Any], options: DataOptions, where: str) -> str:
    if options.label:
        return options.label
    marked = [name for name in features if type(features[name]).__name__ == "ClassLabel"]
    found = marked if len(marked) == 1 else [name for name in _LABELS if name in features]
    if found:
        return found[0]
    raise DataError(
        f"{where}: no column of labels was found among {first_few(list(features), 8)}; name it with --label"
    )


def _input_columns(
    table: Any, features: Mapping[str, Any], label: str, options: DataOptions, where: str
) -> list[str]:
    if options.inputs:
        return list(options.inputs)
    rest = [name for name in features if name != label]
    images = [name for name in rest if type(features[name]).__name__ == "Image"]
    texts = [name for name in rest if "string" in (_dtype(features, name) or "")]
    lists = [name for name in rest if _dtype(features, name) is None and name not in images]
    numbers = [
        name
        for name in rest
        if (_dtype(features, name) or "").startswith(("float", "double", "int", "uint"))
        and name.lower() not in _ABOUT_ROWS
    ]
    if options.tokenizer and texts:
        candidates = texts if len(texts) == 1 else [name for name in _TEXTS if name in texts][:1]
    else:
        usual = [name for name in lists if name in ("input_ids", "pixel_values", "features")]
        candidates = images or usual or lists
    if len(candidates) == 1:
        return candidates
    if not candidates and numbers:
        for name in texts:
            _check_text(table, name, where)
        return numbers
    tokenizer = " and --tokenizer FOLDER if it is text" if texts and not options.tokenizer else ""
    raise DataError(
        f"{where}: which columns the model reads is not clear; it has {first_few(list(features), 8)}. Name them "
        f"with --inputs{tokenizer}"
    )


def _check_text(table: Any, name: str, where: str) -> None:
    """A column of numbers in which a gap is written out is none of text."""
    values = table.with_format(None)[name][:]
    gap = next((row for row, value in enumerate(values) if str(value).lower() in NO_LABEL), None)
    if gap is not None and any(_number(value) is not None for value in values):
        raise DataError(_no_number(where, name, values, gap))


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _no_number(where: str, name: str, values: Sequence[Any], row: int) -> str:
    return (
        f"{where}: column {name!r} has {values[row]!r:.100} in row {row}, expected numbers; fill the gap, or turn the "
        "column into numbers as in training"
    )


def _read(
    table: Any, features: Mapping[str, Any], inputs: list[str], options: DataOptions, where: str
) -> tuple[Source, tuple[str, ...], tuple[str, ...]]:
    """Return the inputs, the names of the rows, if they have any, and notes for the user."""
    if type(features[inputs[0]]).__name__ == "Image":
        return _images(table, inputs, options, where)
    if all("string" in (_dtype(features, name) or "") for name in inputs):
        texts = {name: table.with_format(None)[name][:] for name in inputs}
        found, note = _tokenize(texts, options, where)
    elif len(inputs) == 1 and _dtype(features, inputs[0]) is None:
        found, note = _lists(table.with_format(None)[inputs[0]][:], f"{where}, column {inputs[0]!r}")
    else:
        arrow = table.select_columns([*dict.fromkeys(inputs)]).with_format("arrow")[:]
        found = read_inputs(where, np.stack([_numbers(arrow[name], name, where) for name in inputs], axis=1))
        note = f"{len(inputs)} numbers a row, as they are"
    return TensorSource(found.to(options.device)), (), (note,)


def _numbers(column: Any, name: str, where: str) -> npt.NDArray[np.float32]:
    """Return a column of Arrow as float32 (N,)."""
    if column.null_count == 0 and str(column.type).startswith(("int", "uint", "float", "double")):
        return np.asarray(column.to_numpy(), dtype=np.float64).astype(np.float32)
    values = column.to_pylist()
    found = [_number(value) for value in values]
    if None in found:
        raise DataError(_no_number(where, name, values, found.index(None)))
    return np.asarray(found, dtype=np.float32)


def _images(
    table: Any, inputs: list[str], options: DataOptions, where: str
) -> tuple[Source, tuple[str, ...], tuple[str, ...]]:
    library = load_extra("datasets", "datasets", "data", f"reading {where}")
    if len(inputs) > 1:
        raise DataError(
            f"{where}: one image column is expected, got {first_few(inputs, 8)}; name one with --inputs"
        )
    cells = table.with_format(None).cast_column(inputs[0], library.Image(decode=False))[inputs[0]]
    openers, names = [], []
    for row, cell in enumerate(cells):
        if cell is None or (cell["bytes"] is None and cell["path"] is None):
            raise DataError(f"{where}: row {row} has no image; take the row out")
        openers.append(opener_of(cell["bytes"] if cell["bytes"] is not None else cell["path"]))
        names.append(printable(cell["path"]) if cell["path"] else "")
    shown = [f"{where}, row {row}" + (f" ({name})" if name else "") for row, name in enumerate(names)]
    source, notes = read_pictures(openers, shown, options)
    return source, tuple(names) if all(names) else (), notes


def _lists(values: Sequence[Any], what: str) -> tuple[Tensor, str]:
    row = next((i for i, value in enumerate(values) if not isinstance(value, list)), None)
    if row is not None:
        raise DataError(f"{what}: row {row} holds {values[row]!r:.40}, expected a list of numbers")
    if all(isinstance(item, int) for value in values for item in value):
        tokens = pad_tokens(values, 0, what)
        return read_inputs(what, tokens.numpy()), "token ids, padded with 0"
    try:
        array = np.asarray(values, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{what}: the lists are not of one shape of numbers ({error}); pad or cut them as in training"
        ) from error
    inputs = read_inputs(what, array)
    return inputs, f"{' x '.join(map(str, inputs.shape[1:]))} numbers a row, as they are"


def _tokenize(
    columns: Mapping[str, Sequence[str | None]], options: DataOptions, where: str
) -> tuple[Tensor, str]:
    """Return token ids int64 (N, T) of one column of texts, or of pairs, and a note on what was done."""
    inputs = list(columns)
    if not options.tokenizer:
        raise InvalidInput(
            f"{where}: column {inputs[0]!r} is text; name the model's tokenizer with --tokenizer FOLDER"
        )
    if len(inputs) > 2:
        raise DataError(f"{where}: a text is one column or a pair, got {', '.join(inputs)}")
    transformers = load_extra("transformers", "transformers", "text", f"tokenizing {where}")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(Path(options.tokenizer).expanduser()))
    # A folder without a tokenizer, an absent network and damaged files fail in different ways.
    except Exception as error:
        said = str(error).partition("\n")[0]
        raise InvalidInput(
            f"no tokenizer can be loaded from {options.tokenizer!r}: {said} Give the folder its "
            "save_pretrained wrote"
        ) from error
    for name, column in columns.items():
        if None in column:
            raise DataError(
                f"{where}: column {name!r} has no text in row {column.index(None)}; take the row out"
            )
    longest = options.max_length
    if longest is None and tokenizer.model_max_length < 10**6:
        longest = tokenizer.model_max_length
    encoded = tokenizer(*map(list, columns.values()), truncation=longest is not None, max_length=longest)
    found = encoded["input_ids"]
    padding = 0 if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)
    tokens = pad_tokens(found, padding, where)
    cut = 0 if longest is None else sum(len(ids) == longest for ids in found)
    note = f"text of {tokens.shape[1]} tokens at most, padded with {padding}"
    return tokens, note + (f"; {cut} texts fill all {longest} and may be cut" if cut else "")
