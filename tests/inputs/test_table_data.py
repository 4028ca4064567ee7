from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from expunge.data.images import ImageSource
from expunge.errors import DataError, InvalidInput
from expunge.inputs.sources import load_training_data
from expunge.inputs.table_data import load_table
from expunge.inputs.training_data import DataOptions, TrainingData

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


def png(value: int, size: int = 4) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (size, size), value).save(buffer, "png")
    return buffer.getvalue()


@pytest.fixture
def tokenizer(tmp_path: Path) -> str:
    transformers = pytest.importorskip("transformers")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "film", "a"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizerFast(
        vocab={word: number for number, word in enumerate(words)}, model_max_length=6
    ).save_pretrained(tmp_path / "tokenizer")
    return str(tmp_path / "tokenizer")


def inputs(data: TrainingData) -> torch.Tensor:
    return next(data.examples.batches(len(data))).x


def test_numbers_from_csv_and_parquet(tmp_path: Path) -> None:
    table = datasets.Dataset.from_dict(
        {
            "age": [0.5, 1.5, 2.5],
            "label": ["no", "yes", "no"],
            "pay": [1.0, 2.0, 3.0],
            "is_bad": [True, False, False],
        }
    )
    table.to_csv(str(tmp_path / "a.csv"), index=False)
    table.to_parquet(str(tmp_path / "a.parquet"))
    table.to_json(str(tmp_path / "a.jsonl"))
    table.save_to_disk(str(tmp_path / "disk"))
    for name in ("a.csv", "a.parquet", "a.jsonl", "disk", "datasets:" + str(tmp_path / "disk")):
        data = load_training_data(name if ":" in name else str(tmp_path / name))
        assert inputs(data).tolist() == [[0.5, 1], [1.5, 2], [2.5, 3]]
        assert data.examples.labels.tolist() == [0, 1, 0]
        assert data.classes == ("no", "yes")
        assert list(data.columns["is_bad"]) == [True, False, False]
        assert data.notes[0] == "labels from column 'label', inputs from 'age', 'pay'; left out: is_bad"
    chosen = load_training_data(str(tmp_path / "a.csv"), DataOptions(inputs=("pay",), classes=("yes", "no")))
    assert inputs(chosen).tolist() == [[1], [2], [3]]
    assert chosen.examples.labels.tolist() == [1, 0, 1]


@pytest.mark.parametrize("name", ["NA", "None", "null", "nan"])
def test_a_class_may_be_called_as_what_is_missing_elsewhere(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.csv").write_text(f"a,label\n0.5,{name}\n1.5,SA\n2.5,{name}\n")
    data = load_training_data(str(tmp_path / "a.csv"))
    assert [data.classes[label] for label in data.examples.labels.tolist()] == [name, "SA", name]
    assert set(data.classes) == {name, "SA"}
    for text in (f"a,label\n0.5,{name}\n1.5,1\n", "a,label\n0.5,\n1.5,SA\n"):
        (tmp_path / "b.csv").write_text(text)
        with pytest.raises(DataError, match="row 0 has no label"):
            load_training_data(str(tmp_path / "b.csv"))


def test_every_column_of_numbers_is_read(tmp_path: Path) -> None:
    titles = ["label", *(f"pixel{i}" for i in range(784)), "is_bad", "id", "town"]
    rows = [[row % 2, *range(783), row + 0.5, 0, row, "Ulm"] for row in range(4)]
    text = "\n".join(",".join(map(str, row)) for row in (titles, *rows))
    (tmp_path / "a.csv").write_text(text)
    data = load_training_data(str(tmp_path / "a.csv"))
    assert data.shape == (784,)
    assert inputs(data)[2].tolist() == [*range(783), 2.5]
    assert data.notes[0].endswith("and 776 more; left out: is_bad, id, town")


def test_images_in_a_table(tmp_path: Path) -> None:
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])}
    )
    cells = [{"bytes": png(value), "path": f"{value}.png"} for value in (10, 200)]
    table = datasets.Dataset.from_dict({"image": cells, "label": [1, 0]}, features=features)
    table.to_parquet(str(tmp_path / "images.parquet"))
    data = load_training_data(str(tmp_path / "images.parquet"))
    assert isinstance(data.examples.source, ImageSource)
    assert data.examples.source.images.flatten(1)[:, 0].tolist() == [10, 200]
    assert (data.classes, data.names, data.shape) == (("cat", "dog"), ("10.png", "200.png"), (1, 4, 4))
    other = load_table(table, DataOptions(classes=("dog", "cow", "cat")), "it")
    assert other.examples.labels.tolist() == [0, 2]
    broken = [cells[0], {"bytes": b"no image", "path": None}]
    table = datasets.Dataset.from_dict({"image": broken, "label": [1, 0]}, features=features)
    with pytest.raises(DataError, match="it, row 1: cannot be read as an image"):
        load_table(table, DataOptions(), "it")
    table = datasets.Dataset.from_dict({"image": [cells[0], None], "label": [1, 0]}, features=features)
    with pytest.raises(DataError, match="row 1 has no image"):
        load_table(table, DataOptions(), "it")
    table = datasets.Dataset.from_dict({"image": cells, "label": [1, -1]}, features=features)
    with pytest.raises(DataError, match="row 1 has no label"):
        load_table(table, DataOptions(), "it")


def test_an_image_folder_by_the_library(folder: Path) -> None:
    data = load_training_data(f"datasets:imagefolder?data_dir={folder}")
    assert data.classes == ("ant", "bee", "cat")
    assert len(data) == 12
    assert all(Path(name).name[1:] in ("0.png", "1.png", "2.png", "3.png") for name in data.names)


def test_text(tmp_path: Path, tokenizer: str) -> None:
    rows = {"text": ["good film", "a bad bad film film film", "good"], "label": [1, 0, 1]}
    table = datasets.Dataset.from_dict(rows)
    data = load_table(table, DataOptions(tokenizer=tokenizer), "it")
    assert inputs(data).tolist() == [[2, 4, 6, 3, 0, 0], [2, 7, 5, 5, 6, 3], [2, 4, 3, 0, 0, 0]]
    assert "1 texts fill all 6 and may be cut" in data.notes[-1]
    short = load_table(table, DataOptions(tokenizer=tokenizer, max_length=3), "it")
    assert inputs(short).shape == (3, 3)
    pair = datasets.Dataset.from_dict({**rows, "b": ["a", "a", "a"]})
    both = load_table(pair, DataOptions(tokenizer=tokenizer, inputs=("text", "b"), max_length=9), "it")
    assert inputs(both)[2].tolist()[:5] == [2, 4, 3, 7, 3]
    with pytest.raises(DataError, match=r"Name them with --inputs and --tokenizer FOLDER if it is text"):
        load_table(table, DataOptions(), "it")
    with pytest.raises(InvalidInput, match="column 'text' is text; name the model's tokenizer"):
        load_table(table, DataOptions(inputs=("text",)), "it")
    with pytest.raises(InvalidInput, match="no tokenizer can be loaded from"):
        load_table(table, DataOptions(tokenizer=str(tmp_path)), "it")
    gap = datasets.Dataset.from_dict({"text": ["good", None], "label": [0, 1]})
    with pytest.raises(DataError, match="column 'text' has no text in row 1"):
        load_table(gap, DataOptions(tokenizer=tokenizer), "it")


def test_lists_are_vectors_or_tokens() -> None:
    table = datasets.Dataset.from_dict({"features": [[0.5, 1.0], [2.0, 3.0]], "label": [0, 1]})
    assert inputs(load_table(table, DataOptions(), "it")).tolist() == [[0.5, 1], [2, 3]]
    table = datasets.Dataset.from_dict({"input_ids": [[5], [6, 7]], "other": [[1], [1]], "label": [0, 1]})
    assert inputs(load_table(table, DataOptions(), "it")).tolist() == [[5, 0], [6, 7]]
    table = datasets.Dataset.from_dict({"features": [[0.5, 1.0], [2.0]], "label": [0, 1]})
    with pytest.raises(DataError, match="not of one shape"):
        load_table(table, DataOptions(), "it")


@pytest.mark.parametrize(
    ("columns", "options", "said"),
    [
        ({"a": [], "label": []}, {}, "it has no rows"),
        ({"a": [0.5], "kind": [1]}, {}, "no column of labels was found among a, kind; name it with --label"),
        ({"a": [0.5], "label": [1]}, {"label": "lable"}, "no column 'lable'; did you mean 'label'"),
        ({"a": [0.5], "label": [0]}, {"inputs": ("b",)}, "no column 'b'"),
        ({"n": ["x"], "label": [0]}, {}, "which columns the model reads is not clear; it has n, label"),
        ({"a": [0.5, None], "label": [0, 1]}, {}, "column 'a' has None in row 1"),
        ({"a": [0.5, float("nan")], "label": [0, 1]}, {}, "row 1 contains NaN"),
        (
            {"a": [0.5], "label": [0]},
            {"inputs": ("a", "label")},
            "column 'label' is the label and an input too",
        ),
        (
            {"a": ["1", "NA"], "b": [1, 2], "label": [0, 1]},
            {},
            "column 'a' has 'NA' in row 1, expected numbers",
        ),
        (
            {"a": ["1", "NA"], "b": [1, 2], "label": [0, 1]},
            {"inputs": ("b", "a")},
            "column 'a' has 'NA' in row 1",
        ),
        ({f"c{i}": ["x"] for i in range(999)}, {}, "among c0, c1, .* and 991 more; name it"),
        ({"a": ["x"], "b": [0.5], "label": [0]}, {"inputs": ("a", "b")}, "column 'a' has 'x' in row 0"),
    ],
)
def test_bad_tables(columns: dict[str, Any], options: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        load_table(datasets.Dataset.from_dict(columns), DataOptions(**options), "it")


def test_tables_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(DataError, match="the datasets library cannot load it"):
        load_training_data(str(tmp_path / "bad.parquet"))
    with pytest.raises(DataError, match=r"\./gone: no such file or folder"):
        load_training_data("datasets:./gone")
    with pytest.raises(DataError, match="nobody/nothing: the datasets library cannot load it"):
        load_training_data("datasets:nobody/nothing")


def test_splits(tmp_path: Path) -> None:
    parts = {
        name: datasets.Dataset.from_dict({"a": [float(i)], "label": [0]})
        for i, name in enumerate(("train", "test", "extra"))
    }
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "disk"))
    where = str(tmp_path / "disk")
    assert inputs(load_training_data(where)).tolist() == [[0]]
    assert inputs(load_training_data(where, part="validation")).tolist() == [[1]]
    assert inputs(load_training_data(where, DataOptions(split="extra"))).tolist() == [[2]]
    with pytest.raises(DataError, match="no split 'dev'; it has train, test, extra"):
        load_training_data(where, DataOptions(split="dev"))


def test_a_factory_may_return_a_table(tmp_path: Path) -> None:
    (tmp_path / "made.py").write_text(
        "import datasets\ndef make(n=2):\n"
        "    return datasets.Dataset.from_dict({'a': [0.5] * n, 'label': list(range(n))})\n"
    )
    assert len(load_training_data(f"{tmp_path}/made.py:make?n=3")) == 3
    np.testing.assert_allclose(inputs(load_training_data(f"{tmp_path}/made.py:make")), 0.5)
