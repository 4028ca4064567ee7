"""Run the tests that train networks as other processors would, and print what failed and by how much the rest passed.

How sums are rounded depends on the instructions a processor has and on how many threads share a sum; a training carries
the last bit on to other weights. What is asserted of a trained network is to hold for all of them.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]
AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
ARITHMETICS = {
    "as it is": {},
    "ATen default": {"ATEN_CPU_CAPABILITY": "default"},
    "ATen avx2": {"ATEN_CPU_CAPABILITY": "avx2"},
    "oneDNN avx2": {"ONEDNN_MAX_CPU_ISA": "AVX2"},
    "all avx2": AVX2,
}
QUICK = ("ATen default", "all avx2")
QUICK_TESTS = (
    "tests/evaluation/test_audit_known_answers.py",
    "tests/cli/test_clean.py::test_a_text_classifier",
    "tests/metrics",
    "tests/training",
)


class Outcome(NamedTuple):
    """What one run of the tests gave: names of those that failed, and (test, figure) -> distance from its limit."""

    passed: int
    skipped: int
    failed: list[str]
    margins: dict[tuple[str, str], float]


def read(report: Path) -> Outcome:
    """Read the file that ``pytest --junitxml`` wrote."""
    passed, skipped, failed, margins = 0, 0, [], dict[tuple[str, str], float]()
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname', '').removeprefix('tests.')}::{case.get('name')}"
        if case.find("failure") is not None or case.find("error") is not None:
            failed.append(name)
        elif case.find("skipped") is not None:
            skipped += 1
        else:
            passed += 1
        for entry in case.iter("property"):
            key, distance = (name, entry.get("name", "")), float(entry.get("value", "nan"))
            margins[key] = min(distance, margins.get(key, distance))
    return Outcome(passed, skipped, failed, margins)


def run(settings: dict[str, str], threads: int, more: list[str]) -> Outcome:
    """Run the tests in processes of ``threads`` threads, as many as there are cores for."""
    workers = max(1, (os.cpu_count() or 1) // threads)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        # xunit1 is the form of the report that holds recorded figures.
        report_as = (f"--junitxml={report}", "-o", "junit_family=xunit1")
        command = (sys.executable, "-m", "pytest", *report_as, "-n", str(workers), "--dist=worksteal", *more)
        done = subprocess.run(
            command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": str(threads), **settings},
            stdout=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
        if done.returncode not in (0, 1) or not report.exists():
            sys.exit(f"{done.stdout}\npytest ended with {done.returncode}, so there is nothing to compare")
        return read(report)


def main() -> None:
    """Print a line for each arithmetic, then the margins; end with 1 if a test failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="some short tests, two arithmetics, one thread")
    parser.add_argument(
        "--whole", action="store_true", help="one thread: all tests, also those that train nothing"
    )
    options, more = parser.parse_known_args()
    tests = QUICK_TESTS if options.quick else ()
    runs = [
        (name, threads)
        for threads in ((1,) if options.quick else (1, 2))
        for name in (QUICK if options.quick else ARITHMETICS)
    ]
    print(f"{'':4}{'arithmetic':14}{'threads':>8}{'passed':>8}{'failed':>8}{'skipped':>8}{'seconds':>8}")
    outcomes = []
    for number, (name, threads) in enumerate(runs, 1):
        start = time.perf_counter()
        chosen = [] if options.whole and threads == 1 else ["-m", "trains"]
        found = run(ARITHMETICS[name], threads, [*chosen, *tests, *more])
        counts = f"{found.passed:8}{len(found.failed):8}{found.skipped:8}"
        print(f"{number:>2}  {name:14}{threads:8}{counts}{time.perf_counter() - start:8.0f}", flush=True)
        for test in found.failed:
            print(f"      failed: {test}", flush=True)
        outcomes.append(found)
    print("\ndistance from the limit, in the figure's unit, by the number of the arithmetic")
    print(f"{'':60}{''.join(f'{number:>9}' for number in range(1, len(runs) + 1))}")
    above = ""
    for test, figure in sorted({key for found in outcomes for key in found.margins}):
        if test != above:
            print(test)
            above = test
        found_in = (found.margins.get((test, figure)) for found in outcomes)
        cells = (f"{'-':>9}" if distance is None else f"{distance:9.3g}" for distance in found_in)
        print(f"    {figure:56}{''.join(cells)}")
    sys.exit(int(any(found.failed for found in outcomes)))


if __name__ == "__main__":
    main()
