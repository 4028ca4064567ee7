from __future__ import annotations

from pathlib import Path

import pytest
from reviewing import listed, server

from expunge.errors import DataError, InvalidInput
from expunge.inputs.forget_list import read_forget_list, read_true_labels
from expunge.review.decisions import Decision


def test_clean_reads_what_was_decided(tmp_path: Path) -> None:
    path = listed(tmp_path)
    with server(path) as serving:
        decisions, data = serving.page.decisions, serving.page.display.data
        assert decisions.taken == {11: Decision("bad")}  # it was known
        decisions.decide(0, "bad")
        decisions.decide(1, "good")
        decisions.decide(2, "bad", 0)
        decisions.decide(3, "bad", 0)  # row 3 is an ant: that is its given label
        decisions.decide(4, "bad")
        decisions.decide(4, None)
    kept = path.with_suffix(".reviewed.csv")
    assert read_forget_list(str(kept), data).positions.tolist() == [0, 2, 11]
    true = read_true_labels(str(kept), data)
    assert {row: int(true[row]) for row in range(30) if true[row] >= 0} == {1: 1, 2: 0, 3: 0}


def test_it_goes_on_from_there(tmp_path: Path) -> None:
    path = listed(tmp_path)
    with server(path) as serving:
        serving.page.decisions.decide(11, None)
        serving.page.decisions.decide(5, "bad", 1)
    with server(path) as serving:
        assert serving.page.decisions.taken == {5: Decision("bad", 1)}


def test_bad_decisions_and_files(tmp_path: Path) -> None:
    path = listed(tmp_path)
    with server(path) as serving:
        for given in ((29, "bad", None), (0, "ugly", None), (0, "bad", 3)):
            with pytest.raises(InvalidInput):
                serving.page.decisions.decide(*given)
    kept = path.with_suffix(".reviewed.csv")
    kept.write_text("index,is_label_issue,given_label,true_label\n29,True,ant,\n")
    with pytest.raises(DataError, match="holds row 29, which is not in this list; move it away"):
        server(path)
    kept.write_text("a\n1\n")
    with pytest.raises(DataError, match="is no list of decisions"):
        server(path)
