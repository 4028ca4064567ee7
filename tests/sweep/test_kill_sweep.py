"""A short run of the benchmark that kills coordinators and workers."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "kill_sweep.py"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds worker processes through /proc")
def test_a_handful_of_kills() -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, "--kills", "5", "--pause", "2", "--seeds", "1"],
        capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"5 kills .* in (\d+) sweeps: (\d+) records, each there once and equal", done.stdout)
    assert found is not None, done.stdout
    assert int(found[2]) == 24 * int(found[1])
