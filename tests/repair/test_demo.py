"""The demo: what it damages, and that the way it shows is the way it goes."""

from __future__ import annotations

import io
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import typer

from expunge.cli import app
from expunge.data.digits import load_digits
from expunge.repair.demo import TARGET, damage, demo_page, run_demo, stamp
from expunge.results.png import png


def test_damage_is_what_was_asked_for() -> None:
    data = load_digits()
    damaged = damage(data, 0, wrong=20, poisoned=30)
    untouched = ~damaged.bad
    assert int(damaged.bad.sum()) == 50
    assert int(damaged.poisoned.sum()) == 30
    assert bool((damaged.labels[damaged.poisoned] == TARGET).all())
    assert bool((damaged.true_labels[damaged.bad] != TARGET).all())
    assert torch.equal(damaged.images[untouched], data.train_images[untouched])
    assert torch.equal(damaged.images[damaged.poisoned], stamp(data.train_images[damaged.poisoned]))
    assert torch.equal(damaged.true_labels, data.train_labels)


def test_the_trigger_is_a_white_square_in_the_corner() -> None:
    images = torch.zeros(1, 1, 4, 4, dtype=torch.uint8)
    expected = torch.tensor([[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 255, 255], [0, 0, 255, 255]])
    assert torch.equal(stamp(images)[0, 0].long(), expected)
    assert int(images.sum()) == 0


@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_is_read_back(channels: int) -> None:
    image = pytest.importorskip("PIL.Image")
    pixels = torch.arange(channels * 6).reshape(channels, 2, 3).to(torch.uint8) * 10
    read = image.open(io.BytesIO(png(pixels)))
    assert read.size == (3, 2)
    expected = pixels.permute(1, 2, 0).reshape(6, channels).tolist()
    found = [read.getpixel((i % 3, i // 3)) for i in range(6)]
    assert [list(p) if isinstance(p, tuple) else [p] for p in found] == expected


@pytest.mark.slow
@pytest.mark.trains
def test_the_whole_way(tmp_path: Path, margin: Callable[..., None]) -> None:
    folder = tmp_path / "demo"
    shares: list[float] = []
    demo = run_demo(folder, report=lambda share, doing: shares.append(share))
    bad = demo.damaged.bad
    assert shares[-1] == 1
    assert shares == sorted(shares)

    def healed(predictions: torch.Tensor) -> float:
        return 100 * float((predictions == demo.damaged.true_labels)[bad].float().mean())

    margin("points healed", healed(demo.after.train) - healed(demo.before.train), above=50)
    triggers = [100 * float((each.triggered == TARGET).float().mean()) for each in (demo.before, demo.after)]
    margin("trigger before", triggers[0], above=60)
    margin("trigger after", triggers[1], below=25)
    margin("share of the list that is bad", float(bad[demo.suspects].float().mean()), above=0.7)

    page = demo_page(demo)
    assert "http" not in re.sub(r'content="[^"]*"|http-equiv', "", page), "a page that asks for something"
    for link in re.findall(r'href="([^"]+)"', page):
        assert (folder / link).is_file(), link
    for line in demo.commands.values():
        words = shlex.split(line)
        command = typer.main.get_command(app).commands[words[1]]  # type: ignore[attr-defined]
        command.make_context(words[1], words[2:])
        for word in words[2:]:
            assert not word.startswith(str(folder)) or "again" in word or Path(word).exists(), word
