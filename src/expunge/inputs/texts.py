"""Text turned into token ids by the tokenizer of the user's model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from expunge.errors import DataError, InvalidInput
from expunge.inputs.arrays import pad_tokens
from expunge.inputs.training_data import DataOptions
from expunge.optional import load_extra


def tokenize(
    columns: Mapping[str, Sequence[str | None]], options: DataOptions, where: str
) -> tuple[Tensor, str]:
    """Return token ids int64 (N, T) of one column of texts, or of pairs, and a note on what was done.

    They are padded to the longest with the tokenizer's padding token, or with 0 if it has none.

    Raises:
        InvalidInput: no tokenizer is named, or it cannot be loaded.
        DataError: more than two columns, a row without a text, or a text without a token.
    """
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
        row = next((i for i, text in enumerate(column) if text is None), None)
        if row is not None:
            raise DataError(f"{where}: column {name!r} has no text in row {row}; take the row out")
    longest = options.max_length
    if longest is None and tokenizer.model_max_length < 10**6:
        longest = tokenizer.model_max_length
    found = tokenizer(*map(list, columns.values()), truncation=longest is not None, max_length=longest)[
        "input_ids"
    ]
    padding = 0 if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)
    tokens = pad_tokens(found, padding, where)
    cut = 0 if longest is None else sum(len(ids) == longest for ids in found)
    note = f"text of {tokens.shape[1]} tokens at most, padded with {padding}"
    return tokens, note + (f"; {cut} texts fill all {longest} and may be cut" if cut else "")
