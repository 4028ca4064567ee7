"""Every method on a device that is none: bit for bit what the CPU gives, without waiting for it in its steps."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from torch.utils import backend_registration

from expunge.registry import METHODS

SCRIPT = Path(__file__).with_name("pretend_device.py")
MOST_WAITS = 2
"""In one step; the published rules of who is drawn into a batch need one or two."""
BY_HAND = {"rem", "bad_teacher", "scrub"}
"""The quick ones that go through routes, masks in a batch and a teacher."""
OTHERS = sorted(set(METHODS.names()) - BY_HAND)
AT_A_TIME = 8
"""Methods in one process; a process takes seconds to start."""

pytestmark = pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this torch does not take a device written in Python",
)


def carried_out(names: Sequence[str], out: Path) -> dict[str, dict[str, Any]]:
    subprocess.run([sys.executable, SCRIPT, out, *names], check=True, capture_output=True, timeout=900)
    return {row["what"]: row for row in map(json.loads, out.read_text(encoding="utf-8").splitlines())}


def check(row: dict[str, Any]) -> None:
    name = row["what"]
    assert "error" not in row, "\n".join([name, *row["traceback"]])
    assert (row["weights_max"], row["logits_max"], row["metrics"]) == (0, 0, 0), (
        f"{name}: not what the CPU gives"
    )
    in_steps = {place: count for place, count in row["places"].items() if place.startswith("step ")}
    assert sum(in_steps.values()) <= MOST_WAITS * max(1, row["steps"]), (
        f"{name}: waits in {row['steps']} steps: {in_steps}"
    )


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(sorted(BY_HAND), id="by hand"),
        *(
            pytest.param(OTHERS[start : start + AT_A_TIME], id=OTHERS[start], marks=pytest.mark.slow)
            for start in range(0, len(OTHERS), AT_A_TIME)
        ),
    ],
)
def test_methods(tmp_path: Path, names: list[str]) -> None:
    found = carried_out(names, tmp_path / "out.jsonl")
    assert set(found) == set(names)
    for row in found.values():
        check(row)


def test_rows_that_stay_on_the_cpu_are_read_onto_it() -> None:
    """Images and data sets that are kept, or not kept and read by workers, alone and joined."""
    code = """
        import torch
        from torch.utils.data import TensorDataset
        from expunge.data.examples import Examples
        from expunge.data.images import Augmentation, ImageSource
        from expunge.data.joined import join
        from expunge.data.mapped import examples_from_dataset
        from expunge.data.reader import Reader
        from pretend_device import DEVICE, NAME, register
        register()
        images = torch.arange(640).remainder(256).to(torch.uint8).view(40, 1, 4, 4)
        rows = TensorDataset(torch.randn(40, 1, 4, 4), torch.arange(40) % 2)

        def read(device):
            change, place = Augmentation(1, True), torch.device(device)
            kept = ImageSource(images, (0.5,), (0.5,), change, place=place)
            kept = Examples.all_of(kept, torch.arange(40) % 2, 2)
            found = []
            for cache, workers in (("memory", 0), ("none", 0), ("none", 2)):
                own = examples_from_dataset(rows, 2, device, Reader(cache=cache, workers=workers))
                for part in (own, kept, join(own, own.select(torch.arange(3)))):
                    draw = torch.Generator().manual_seed(0)
                    batches = [*part.batches(16, draw, augment=True), part.sample(5, draw)]
                    assert all(batch.x.device.type == place.type for batch in batches)
                    found += [batch.x.cpu() for batch in batches]
            return found

        here = read("cpu")
        with DEVICE:
            there = read(NAME)
        print(len(here), all(torch.equal(one, other) for one, other in zip(here, there, strict=True)))
    """
    assert answered(code) == ["36", "True"]


def test_the_device_notices() -> None:
    """Tensors of two devices, float64 and waits are noticed; a test on it can fail."""
    code = """
        import torch
        from pretend_device import DEVICE, NAME, register
        register()
        with DEVICE:
            x = torch.ones(3, device=NAME)
            for bad in (lambda: x + torch.ones(3), lambda: x.double(), lambda: x[torch.zeros(1, dtype=torch.int64)]):
                try:
                    bad()
                except (RuntimeError, TypeError) as error:
                    print(type(error).__name__)
            y = (x + torch.tensor(2.0)).sum()
            assert not DEVICE.waits.total()
            print(float(y), float((x > 0).nonzero().sum()), DEVICE.waits.total())
            x[x > 0] = 5.0
            torch.ones(2).to(NAME, non_blocking=True)
            assert DEVICE.waits.total() == 3
            torch.ones(2).to(NAME), x.cpu(), x.tolist(), x[x > 0]
            print(DEVICE.waits.total())
    """
    assert answered(code) == ["RuntimeError", "TypeError", "RuntimeError", "9.0", "3.0", "3", "7"]


def answered(code: str) -> list[str]:
    """Return the words that indented code prints in a process of its own, beside the pretend device."""
    found = subprocess.run(
        [sys.executable, "-c", "\n".join(line[8:] for line in code.splitlines())],
        cwd=SCRIPT.parent, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    return found.stdout.split()
