from __future__ import annotations

import json
from pathlib import Path

import pytest
from reviewing import listed

from expunge.errors import DataError, InvalidInput, StoreError
from expunge.review.listing import load_data, read_summary, read_suspects


def test_a_line_is_read(tmp_path: Path) -> None:
    path = listed(tmp_path)
    found = read_suspects(path, load_data(read_summary(path)))
    first, last = found[0], found[-1]
    assert (first.index, first.name, first.given, first.suggested) == (0, "0.png", 0, 1)
    assert (first.score, first.detector, first.nearest, first.known) == (1.0, "labels", (29, 28), False)
    assert last.known


@pytest.mark.parametrize(
    ("old", "new", "error", "said"),
    [
        (
            "0.png,True,1.0,labels,ant",
            "0.png,True,1.0,labels,bee",
            DataError,
            "row 0 is bee there and ant in the data",
        ),
        ("\n0,", "\n99,", DataError, "line 2 is no line of a list of 'expunge find' for this data"),
        ("given_label", "label", DataError, "line 2 is no line"),
        (",1.0,labels", ",nan,labels", DataError, "the score is nan"),
    ],
)
def test_bad_lists(tmp_path: Path, old: str, new: str, error: type[Exception], said: str) -> None:
    path = listed(tmp_path)
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(error, match=said):
        read_suspects(path, load_data(read_summary(path)))


def test_what_belongs_to_it(tmp_path: Path) -> None:
    path = listed(tmp_path)
    summary = dict(read_summary(path))
    data = load_data(summary)
    with pytest.raises(DataError, match="made from 31 rows and the data has 30"):
        load_data(summary | {"n_examples": 31})
    path.write_text(path.read_text(encoding="utf-8").partition("\n")[0] + "\n", encoding="utf-8")
    with pytest.raises(InvalidInput, match="lists no row"):
        read_suspects(path, data)
    path.with_suffix(".json").write_text(json.dumps({"settings": {}}))
    with pytest.raises(
        StoreError, match=r"suspects\.json, which says how the data .* run 'expunge find' again"
    ):
        read_summary(path)
