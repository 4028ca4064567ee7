"""Every method on a device that is none: bit for bit what the CPU gives, without waiting for it in its steps."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import lru_cache
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

pytestmark = pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this torch does not take a device written in Python",
)


@pytest.fixture(scope="session")
def on_device(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[tuple[str, ...]], dict[str, dict[str, Any]]]:
    @lru_cache
    def run(names: tuple[str, ...]) -> dict[str, dict[str, Any]]:
        out = tmp_path_factory.mktemp("pretend") / "out.jsonl"
        subprocess.run([sys.executable, SCRIPT, out, *names], check=True, capture_output=True, timeout=900)
        return {row["what"]: row for row in map(json.loads, out.read_text(encoding="utf-8").splitlines())}

    return run


def check(row: dict[str, Any]) -> None:
    assert "error" not in row, "\n".join(row["traceback"])
    assert (row["weights_max"], row["logits_max"], row["metrics"]) == (0, 0, 0), "not what the CPU gives"
    in_steps = {place: count for place, count in row["places"].items() if place.startswith("step ")}
    assert sum(in_steps.values()) <= MOST_WAITS * max(1, row["steps"]), (
        f"waits in {row['steps']} steps: {in_steps}"
    )


@pytest.mark.parametrize("name", sorted(BY_HAND))
def test_method(on_device: Callable[[tuple[str, ...]], dict[str, dict[str, Any]]], name: str) -> None:
    check(on_device(tuple(sorted(BY_HAND)))[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(METHODS.names()) - BY_HAND))
def test_every_other_method(
    on_device: Callable[[tuple[str, ...]], dict[str, dict[str, Any]]], name: str
) -> None:
    check(on_device(tuple(sorted(set(METHODS.names()) - BY_HAND)))[name])


def test_the_device_notices(tmp_path: Path) -> None:
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
    found = subprocess.run(
        [sys.executable, "-c", "\n".join(line[8:] for line in code.splitlines())],
        cwd=SCRIPT.parent, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert found.stdout.split() == [
        "RuntimeError", "TypeError", "RuntimeError", "9.0", "3.0", "3", "7",
    ], found.stderr  # fmt: skip
