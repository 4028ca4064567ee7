from __future__ import annotations

from pathlib import Path

import pytest

from expunge.errors import InvalidInput, StoreError
from expunge.repair.output_folder import output_folder


def test_the_folder_appears_whole(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with output_folder(out) as aside:
        assert aside.name.startswith(".out.partial-")
        (aside / "report.txt").write_text("done")
        assert not out.exists()
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    assert (out / "report.txt").read_text() == "done"


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_run_names_what_it_left(tmp_path: Path, error: type[BaseException]) -> None:
    def interrupted() -> None:
        with output_folder(tmp_path / "out") as aside:
            (aside / "half.txt").write_text("half")
            raise error

    with pytest.raises(error) as caught:
        interrupted()
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".out.partial-")
    assert caught.value.__notes__ == [f"what was written until then is in {left}"]


def test_nothing_is_left_of_a_run_that_wrote_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="early"), output_folder(tmp_path / "out"):
        raise ValueError("early")
    assert list(tmp_path.iterdir()) == []


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match="is a file, expected a folder"), output_folder(tmp_path / "file"):
        pass
    with pytest.raises(StoreError, match="cannot be made"), output_folder(tmp_path / "file" / "out"):
        pass
    with pytest.raises(InvalidInput, match="already and not empty"), output_folder(tmp_path):
        pass
    (tmp_path / "empty").mkdir()
    with output_folder(tmp_path / "empty") as aside:
        (aside / "a").write_text("")
    assert (tmp_path / "empty" / "a").exists()

    def raced() -> None:
        with output_folder(tmp_path / "raced") as aside:
            (aside / "a").write_text("mine")
            (tmp_path / "raced").mkdir()
            (tmp_path / "raced" / "a").write_text("theirs")

    with pytest.raises(InvalidInput, match="already and not empty") as caught:
        raced()
    assert "partial-" in caught.value.__notes__[0]
    assert (tmp_path / "raced" / "a").read_text() == "theirs"
