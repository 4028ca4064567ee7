"""Bad inputs by the hundred: each must end in a clear error, never in a traceback, a hang or a wrong success."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from expunge.data.joined import in_memory
from expunge.data.mapped import examples_from_dataset
from expunge.errors import ExpungeError
from expunge.inputs.arrays import load_arrays
from expunge.inputs.checkpoint import read_checkpoint
from expunge.inputs.checkpoint_weights import load_weights
from expunge.inputs.forget_list import read_forget_list, read_true_labels
from expunge.inputs.pictures import load_image_folder
from expunge.inputs.sources import load_dataset_object
from expunge.inputs.specification import Specification
from expunge.inputs.training_data import DataOptions, TrainingData
from expunge.repair.job import Job, read_recipe, read_settings

CLASSES = ("ant", "bee", "cat")
LABELS = torch.arange(12) % 3
NAMES = (*(f"{CLASSES[row % 3]}/shot #{row}.png" for row in range(11)), "cat/a, b.png")
DATA = TrainingData(in_memory(torch.zeros(12, 4), LABELS, 3), CLASSES, NAMES)
LONGEST = 2.0
"""Seconds after which an input counts as a hang; each takes milliseconds."""

Attempt = tuple[str, Callable[[], object]]


class Unharmed(Exception):
    """Read as it was before the damage, which met nothing of meaning."""


def unharmed(same: bool) -> object:
    if same:
        raise Unharmed
    return None


def damaged(content: bytes, count: int, draw: random.Random) -> Iterator[bytes]:
    """Cut the content, or overwrite a run of bytes near its beginning, where the headers are."""
    for number in range(count):
        if number % 2:
            yield content[: draw.randrange(len(content) - 1)]
        else:
            start = draw.randrange(min(60, len(content) - 8))
            yield content[:start] + draw.randbytes(8) + content[start + 8 :]


def lists(folder: Path, draw: random.Random) -> Iterator[Attempt]:
    """Lists of rows that name none, one twice, or some that are not there."""
    bad = [
        "", "\n", "#\n", "12", "-1", "1\n1", "0.5", "1e3", "nan", "00001", "1_0", "٣", "0x1", "True", "a" * 200_000,
        "9" * 5000, "ant/shot #99.png", "shot #0.png\nshot #0.png", "dog\n1", "1\nant/shot #0.png", "a, b.pn", "../x",
        "/", ".", "*", "\x00", "\u202e", "=1+1", "1;2", "1 2", "[1]", "null", "é", "ant\\", "1,2", "\t", "0" * 64,
    ]  # fmt: skip
    headers = [
        "",
        "index\n",
        "file\n",
        "is_bad\n",
        "rows\n",
        "index,index\n1,",
        "a,b\n1,",
        '"',
        "index,is_bad\n0,maybe\n",
    ]
    for number, text in enumerate(bad):
        for header in headers:
            if text.strip() == "1" or (header + text) in ("index\n1,2",):
                continue
            yield _listed(folder / f"{number}-{len(header)}.csv", header + text)
        yield _listed(folder / f"{number}.txt", text)
        yield _listed(folder / f"{number}.json", json.dumps(text.split("\n")))
    values = [
        None,
        1.5,
        [[1]],
        {"a": 1},
        {"a": [1], "b": [2]},
        [True],
        [1, "a"],
        [None],
        [2**70],
        [{}],
        "x",
        [],
    ]
    for number, value in enumerate(values):
        yield _listed(folder / f"value{number}.json", json.dumps(value))
    for text in ("[" * 100_000, '{"a":' * 50_000, "[1", "]", "{1: 2}", "'a'", "[NaN]"):
        yield _listed(folder / f"text{len(text)}.json", text)
    buffer = io.BytesIO()
    np.save(buffer, np.array([1, 2]))
    for number, content in enumerate(damaged(buffer.getvalue(), 40, draw)):
        name, read = _listed(folder / f"damaged{number}.npy", content)
        yield name, lambda read=read: unharmed(read().positions.tolist() == [1, 2])
    for number, array in enumerate(
        [
            np.zeros((2, 2)),
            np.array([0.5]),
            np.array([1 + 2j]),
            np.array([2**63], np.uint64),
            np.array([b"x"]),
        ]
    ):
        np.save(folder / f"array{number}.npy", array)
        yield _listed(folder / f"array{number}.npy", None)
    yield _listed(folder / "huge.npy", header_of((10**13,), "<i8"))
    for text in ("\xff\xfe", "caf\xe9"):
        yield _listed(folder / f"latin{len(text)}.txt", text.encode("latin-1"))
    for name in (
        "a.xlsx",
        "gone.txt",
        "x" * 300 + ".txt",
        "a.txt?column=b",
        "a.csv?b=1",
        "a.csv?",
        "column:no",
        "?",
    ):
        yield f"list {name[:20]}", lambda name=name: read_forget_list(str(folder / name), DATA)


def _listed(path: Path, content: str | bytes | None) -> Attempt:
    if content is not None:
        path.write_bytes(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)
    return f"list {path.name}", lambda: read_forget_list(str(path), DATA)


def truths(folder: Path) -> Iterator[Attempt]:
    """Labels that are no classes, of both kinds, or of rows that are not there."""
    for number, value in enumerate(
        ["dog", "3", "-1", "0.5", "1e0", "None", "ANT", "ant bee", "cat ", "0\nant", "ant\n1"]
    ):
        lines = "".join(f"{row},{label}\n" for row, label in enumerate(value.split("\n"))).replace(
            "cat ", "cat,"
        )
        path = folder / f"truth{number}.csv"
        path.write_text("index,true_label\n" + lines)
        yield f"truth {value!r}", lambda path=path: read_true_labels(str(path), DATA)
    bad: list[Any] = [
        {},
        {"99": "ant"},
        {"0": "dog"},
        {"0": None},
        {"0": {}},
        {"0": 0, "1": "ant"},
        {"0": 0.5},
        ["ant"],
        3,
    ]
    for number, found in enumerate([*bad, {"0": [1], "1": 2}, {"dog": 0}, {"-1": 0}, {"0": True}]):
        path = folder / f"truth{number}.json"
        path.write_text(json.dumps(found))
        yield f"truth {found!r}", lambda path=path: read_true_labels(str(path), DATA)


def arrays(folder: Path, draw: random.Random) -> Iterator[Attempt]:
    """Arrays of other kinds, shapes and lengths, damaged files, and headers that claim too much."""
    images, labels = np.zeros((4, 3, 3), np.uint8), np.array([0, 1, 0, 1])
    kinds: list[dict[str, Any]] = [
        {}, {"images": images}, {"labels": labels}, {"images": images, "labels": labels[:3]},
        {"images": images, "labels": labels * 0.5}, {"images": images, "labels": labels - 1},
        {"images": images, "labels": labels + 2**40}, {"images": images, "labels": labels.reshape(2, 2)},
        {"images": images.astype(np.int64), "labels": labels}, {"images": images * 2.5 + 2, "labels": labels},
        {"images": images[:, :0], "labels": labels}, {"images": images.astype(complex), "labels": labels},
        {"inputs": np.full((4, 2), np.nan), "labels": labels}, {"inputs": np.zeros(4), "labels": labels},
        {"inputs": np.array(["a"] * 4), "labels": labels}, {"inputs": -np.ones((4, 2), int), "labels": labels},
        {"images": images, "labels": labels, "names": np.array(["a"])},
        {"images": images, "labels": labels, "classes": np.array(["a"])},
        {"images": images, "labels": labels, "classes": np.array(["a", "a"])},
        {"images": images, "labels": np.array([2**63] * 4, np.uint64)},
        {"images": images, "labels": np.array(["1", "NA", "0", "1"])},
        {"images": images, "labels": np.array(["ant", "", "ant", "bee"])},
        {"images": np.array([None] * 4, object), "labels": labels}, {"images": images, "labels": labels > 0},
    ]  # fmt: skip
    for number, kind in enumerate(kinds):
        np.savez(folder / f"kind{number}.npz", **kind)
        yield _loaded(folder / f"kind{number}.npz")
    np.savez(folder / "whole.npz", images=images, labels=labels)
    for number, content in enumerate(damaged((folder / "whole.npz").read_bytes(), 60, draw)):
        path = folder / f"damaged{number}.npz"
        path.write_bytes(content)
        name, read = _loaded(path)
        yield name, lambda read=read: unharmed(read().examples.labels.tolist() == [0, 1, 0, 1])
    with zipfile.ZipFile(folder / "claims.npz", "w") as archive:
        archive.writestr("images.npy", header_of((10**13, 3, 3), "|u1"))
        archive.writestr("labels.npy", header_of((10**13,), "<i8"))
    yield _loaded(folder / "claims.npz")


def header_of(shape: tuple[int, ...], kind: str) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"shape": shape, "fortran_order": False, "descr": kind})
    return buffer.getvalue()


def _loaded(path: Path) -> Attempt:
    return f"arrays {path.name}", lambda: load_arrays(path, DataOptions())


def datasets() -> Iterator[Attempt]:
    """Items that are no pairs, inputs that are no tensors and labels that are no class numbers."""
    x = torch.zeros(2)
    labels = [0.5, None, float("nan"), float("inf"), "", [0], [0, 1], {}, torch.zeros(2), torch.tensor(0.5), 2**70,
              b"", torch.zeros(0), 1j, np.array([0.1]), object(), (), {"label": 0}, -3]  # fmt: skip
    inputs = [None, "a", object(), {}, x.to_sparse(), torch.zeros(2, device="meta"), torch.ones(2) * 1j,
              torch.tensor([float("nan"), 0]), torch.tensor([1, -1]), [[1], [1, 2]], np.array(["a"]), b"x"]  # fmt: skip
    items: list[Any] = [(x, label) for label in labels] + [(value, 0) for value in inputs]
    items += [
        x,
        None,
        3,
        "ab",
        (),
        (x,),
        {},
        {"a": 1},
        {"label": 0},
        {"x": x},
        {"x": x, "label": None},
        {1: 2},
    ]
    for number, item in enumerate(items):
        yield f"item {number}", lambda item=item: load_dataset_object([(x, 0), item], DataOptions())
        yield f"first item {number}", lambda item=item: load_dataset_object([item, (x, 0)], DataOptions())
    for number, dataset in enumerate(
        [None, 3, [], {}, "", iter([]), {0: (x, 0)}, "ab", object(), range(3), x, [x]]
    ):
        yield f"dataset {number}", lambda dataset=dataset: examples_from_dataset(dataset, 2)


def checkpoints(folder: Path, draw: random.Random) -> Iterator[Attempt]:
    """Files that are cut, changed or of another kind, and tensors that are no weights."""
    model = nn.Linear(3, 2)
    torch.save(model.state_dict(), folder / "whole.pt")
    for number, content in enumerate(damaged((folder / "whole.pt").read_bytes(), 60, draw)):
        path = folder / f"damaged{number}.pt"
        path.write_bytes(content)
        yield (
            f"checkpoint {path.name}",
            lambda path=path: unharmed(
                all(
                    torch.equal(read_checkpoint(path).state[name], tensor)
                    for name, tensor in model.state_dict().items()
                )
            ),
        )
    state = model.state_dict()
    contents: list[Any] = [
        None, 3, [], {}, {"a": 1}, {"a": {}}, {"weight": state["weight"]}, {**state, "more": torch.ones(2)},
        {"weight": torch.ones(3, 3), "bias": torch.ones(2)}, {"x": state, "y": state},
        {"a": {"b": {"c": {"d": state}}}},
        {**state, "bias": torch.ones(2).to_sparse()}, {**state, "bias": torch.ones(2, dtype=torch.complex64)},
        {"weight": state["weight"], "bias": "text"}, {1: torch.ones(2)}, [state], (state,), {"a.weight": torch.ones(2)},
    ]  # fmt: skip
    for number, content in enumerate(contents):
        torch.save(content, folder / f"content{number}.pt")
        yield (
            f"checkpoint content{number}",
            lambda number=number: load_weights(
                nn.Linear(3, 2), read_checkpoint(folder / f"content{number}.pt")
            ),
        )
    with (folder / "pickled.pt").open("wb") as file:
        pickle.dump({"a": Path("x")}, file)
    os.mkfifo(folder / "pipe.pt")
    for name in ("pickled.pt", "pipe.pt", "gone.pt", "x" * 300 + ".pt", ".", "kind0.npz"):
        yield f"checkpoint {name[:20]}", lambda name=name: read_checkpoint(folder / name)


def settings() -> Iterator[Attempt]:
    """Fields that are not there and values of other types."""
    job = {"checkpoint": Path("a.pt"), "arch": "a.py:A", "data": "a.npz", "forget": "a.txt"}
    values = [
        "[1]",
        "{a=1}",
        '""',
        "true",
        "nan",
        "-1",
        "1e400",
        "2020-01-01",
        "'x'",
        "[" * 5000,
        "9" * 5000,
        "fast",
    ]
    for field in ("lr", "batch_size", "passes", "lrr", "", "a b", "x" * 5000, "augment"):
        for value in values:
            if (field, value) in {("augment", "true")}:
                continue
            yield (
                f"--set {field[:9]}={value[:9]}",
                lambda field=field, value=value: Job(
                    **job, method="npo", settings=read_settings("--set", [f"{field}={value}"])
                ),
            )
    for field in (
        "epochs",
        "batch_size",
        "optimiser.lr",
        "optimiser.name",
        "schedule",
        "epoch",
        "model",
        "optimiser",
    ):
        for value in values:
            yield (
                f"--recipe {field}={value[:9]}",
                lambda field=field, value=value: read_recipe([f"{field}={value}"]),
            )
    for text in ("", "?", "a?b", "a?b=", "a?=1", "a?b=1&b=2", "a?&"):
        yield f"specification {text!r}", lambda text=text: Specification.parse(text)
    for options in (
        {"normalise": "x"},
        {"mean": (0.5,)},
        {"size": 0},
        {"channels": 2},
        {"crop": True},
        {"pad": -1},
    ):
        yield f"options {options}", lambda options=options: DataOptions(**options)


def folders(root: Path) -> Iterator[Attempt]:
    """Image folders without classes or images, with broken ones, and with links that go round."""
    from PIL import Image

    for name in ("empty", "loose", "parts/train", "none/ant", "broken/ant", "sizes/ant", "pipe/ant"):
        (root / name).mkdir(parents=True)
    Image.new("L", (3, 3)).save(root / "loose" / "a.png")
    (root / "none/ant" / "a.txt").write_text("x")
    (root / "broken/ant" / "a.png").write_bytes(b"x")
    for size in (3, 4):
        Image.new("L", (size, size)).save(root / "sizes/ant" / f"{size}.png")
    os.mkfifo(root / "pipe/ant/a.png")
    for name in ("empty", "loose", "parts", "none", "broken", "sizes", "pipe"):
        yield f"folder {name}", lambda name=name: load_image_folder(root / name, DataOptions())


def outcome(attempt: Callable[[], object]) -> str:
    started = time.process_time()
    try:
        attempt()
    except Unharmed:
        ended = "unharmed"
    except ExpungeError as error:
        said = str(error)
        ended = "clear error" if 10 < len(said) < 4000 else f"unclear error: {said[:60]}"
    except BaseException as error:
        ended = f"traceback: {type(error).__name__}: {str(error)[:80]}"
    else:
        ended = "wrong success"
    return "hang" if time.process_time() - started > LONGEST else ended


def test_every_bad_input_ends_in_a_clear_error(tmp_path: Path) -> None:
    draw = random.Random(0)
    attempts = [
        *lists(tmp_path, draw),
        *truths(tmp_path),
        *arrays(tmp_path, draw),
        *datasets(),
        *checkpoints(tmp_path, draw),
        *settings(),
        *folders(tmp_path / "folders"),
    ]
    assert len(attempts) >= 500
    ended = {name: outcome(attempt) for name, attempt in attempts}
    wrong = {name: said for name, said in ended.items() if said not in ("clear error", "unharmed")}
    assert not wrong, f"{Counter(said.partition(':')[0] for said in ended.values())}: {wrong}"


def test_a_link_that_goes_round_adds_no_row(tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "ant").mkdir()
    (tmp_path / "bee").mkdir()
    for name in ("ant/a.png", "bee/b.png"):
        Image.new("L", (3, 3)).save(tmp_path / name)
    (tmp_path / "ant" / "round").symlink_to(tmp_path / "ant")
    assert load_image_folder(tmp_path, DataOptions()).names == ("ant/a.png", "bee/b.png")
