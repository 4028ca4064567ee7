from __future__ import annotations

import json
from pathlib import Path

import pytest

from expunge.cli.options import Reading
from expunge.data.reader import Reader
from expunge.errors import InvalidInput
from expunge.inputs.sources import load_training_data


def test_lists_are_split() -> None:
    given = Reading(mean="0.1,0.2,0.3", std="1,1, 1", classes=["cat, dog"], inputs=["a,b", "c"])
    options = given.options("expunge:mlp", "cpu")
    assert options.mean == (0.1, 0.2, 0.3)
    assert options.std == (1.0, 1.0, 1.0)
    assert options.classes == ("cat", " dog")
    assert options.inputs == ("a,b", "c")
    assert options.normalise == "auto"
    assert options.mean is not None


def test_what_is_left_open_comes_from_the_models_own_pipeline(tmp_path: Path) -> None:
    content = {"image_mean": [0.5] * 3, "image_std": [0.4] * 3, "size": {"height": 32, "width": 32}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(content))
    arch = f"transformers:{tmp_path}"
    options = Reading().options(arch, "cpu")
    assert (options.mean, options.std, options.size) == ((0.5,) * 3, (0.4,) * 3, 32)
    chosen = Reading(normalise="imagenet", size=16).options(arch, "cpu")
    assert (chosen.mean, chosen.normalise, chosen.size) == (None, "imagenet", 16)


def test_numbers_that_are_none() -> None:
    with pytest.raises(InvalidInput, match=r"--std takes numbers separated by commas; got 'x'"):
        Reading(mean="0.5", std="x").options("expunge:mlp", "cpu")


def test_who_reads_and_what_is_kept(tmp_path: Path) -> None:
    options = Reading(workers=2, cache=str(tmp_path)).options("expunge:mlp", "cpu")
    assert options.reader == Reader(workers=2, cache=str(tmp_path))
    assert options.reading == Reading().options("expunge:mlp", "cpu").reading
    with pytest.raises(InvalidInput, match="cache must be auto, memory, disk, none or a folder"):
        Reading(cache="ram").options("expunge:mlp", "cpu")
    with pytest.raises(InvalidInput, match="--workers says nothing about digits"):
        load_training_data("digits", options)
