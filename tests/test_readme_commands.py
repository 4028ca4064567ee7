"""The four commands of the README, run as they stand there on a small damaged model of one's own."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
NETWORK = """
from torch import nn


class Net(nn.Sequential):
    def __init__(self):
        super().__init__(
            nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(2),
            nn.Flatten(), nn.Linear(128, 10),
        )
"""


def network() -> nn.Module:
    """A new network of the file net.py."""
    names: dict[str, type[nn.Module]] = {}
    exec(NETWORK, names)
    return names["Net"]()


def printed_commands() -> list[list[str]]:
    """Return the words of the four commands, with continued lines joined."""
    section = README.partition("four commands")[2]
    block = re.search(r"```sh\n(.*?)```", section, flags=re.DOTALL)
    assert block
    return [
        shlex.split(line, comments=True)
        for line in block[1].replace("\\\n", " ").splitlines()
        if line.strip()
    ]


@pytest.fixture(scope="module")
def problem(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[str]]:
    """A folder with net.py, net.pt, images/ and held_out/, and the names of images that lie in a wrong folder."""
    folder = tmp_path_factory.mktemp("damaged")
    digits = load_digits()
    draw = np.random.default_rng(0)
    wrong, images, labels = set[str](), list[np.ndarray](), list[int]()
    for number, row in enumerate(draw.permutation(len(digits.target))[:500]):
        given = int(digits.target[row])
        if number < 30:
            given = (given + int(draw.integers(1, 10))) % 10
            wrong.add(f"{given}/{row}.png")
        path = folder / ("images" if number < 300 else "held_out") / str(given) / f"{row}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.repeat(
            np.kron(digits.images[row] * 15.9, np.ones((2, 2))).astype(np.uint8)[..., None], 3, axis=2
        )
        Image.fromarray(pixels).save(path)
        if number < 300:
            images.append(pixels)
            labels.append(given)
    (folder / "net.py").write_text(NETWORK)
    torch.manual_seed(0)
    net = network()
    x = torch.tensor(np.stack(images), dtype=torch.float32).permute(0, 3, 1, 2) / 255
    y = torch.tensor(labels)
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    for _ in range(100):
        for rows in torch.randperm(len(x)).split(50):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
            optimizer.step()
    torch.save(net.state_dict(), folder / "net.pt")
    return folder, wrong


def run(words: list[str], folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# A browser that opens nothing, and one thread beside other tests.
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "BROWSER": "true"}


def decide(words: list[str], folder: Path, verdict: Callable[[str], str]) -> None:
    """Start the page, decide every row over its address as its keys do, and end it by Ctrl-C."""
    with subprocess.Popen(
        [sys.executable, "-u", "-m", *words], cwd=folder, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout
        try:
            address = running.stdout.readline().split()[-1]
            with (folder / "suspects.csv").open(encoding="utf-8") as lines:
                for row in csv.DictReader(lines):
                    choice = {"index": int(row["index"]), "verdict": verdict(row["name"]), "label": None}
                    with urlopen(
                        Request(f"{address}decide", json.dumps(choice).encode()), timeout=60
                    ) as answer:
                        assert answer.read() == b"{}"
        finally:
            running.send_signal(signal.SIGINT)
        running.communicate(timeout=60)


@pytest.mark.slow
@pytest.mark.trains
def test_find_review_clean_and_audit(problem: tuple[Path, set[str]], margin: Callable[..., None]) -> None:
    folder, wrong = problem
    find, review, clean, audit = printed_commands()
    assert [words[:2] for words in (find, review, clean, audit)] == [
        ["expunge", "find"], ["expunge", "review"], ["expunge", "clean"], ["expunge", "audit"],
    ]  # fmt: skip
    run(find, folder)
    decide(review, folder, lambda name: "bad" if name in wrong else "good")
    with (folder / "suspects.reviewed.csv").open(encoding="utf-8") as lines:
        bad = {row["name"] for row in csv.DictReader(lines) if row["is_label_issue"] == "True"}
    assert bad <= wrong
    margin("share of the wrong labels that find lists", len(bad) / len(wrong), above=0.4)

    run(clean, folder)
    repaired = network()
    weights = torch.load(folder / "cleaned" / "checkpoint.pt", weights_only=True)
    repaired.load_state_dict(weights)  # names and shapes of the network
    pixels = np.stack([np.asarray(Image.open(folder / "images" / name)) for name in sorted(bad)])
    with torch.no_grad():
        said = repaired.eval()(torch.tensor(pixels, dtype=torch.float32).permute(0, 3, 1, 2) / 255).argmax(1)
    given = torch.tensor([int(name.partition("/")[0]) for name in sorted(bad)])
    margin("listed rows that keep the bad label", (said == given).float().mean(), below=0.3)
    assert (folder / "cleaned" / "report.html").exists()

    told = run(audit, folder)
    assert "verdict: " in told
    assert "undecided" not in told
