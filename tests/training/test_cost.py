from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from expunge.training import cost
from expunge.training.cost import Meter


def test_only_seconds_inside_the_block_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 11.5, 20.0, 20.25])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    meter = Meter()
    for _ in range(2):
        with meter:
            pass
    assert meter.seconds == 1.75


def test_an_accelerator_is_waited_for_before_and_after(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[str] = []
    monkeypatch.setattr(torch.xpu, "synchronize", waited.append)
    monkeypatch.setattr(torch.mps, "synchronize", lambda: waited.append("mps"))
    with Meter("xpu:1"):
        assert waited == ["xpu:1"]
    with Meter("mps"):
        pass
    assert waited == ["xpu:1", "xpu:1", "mps", "mps"]


def test_counts_and_rows() -> None:
    meter = Meter()
    with meter:
        meter.count(3)
        meter.count(4)
        meter.write(loss=0.5)
        meter.write(loss=0.25, round=2)
    assert meter.sample_gradients == 7
    assert [{name: value for name, value in row.items() if name != "seconds"} for row in meter.log] == [
        {"loss": 0.5},
        {"loss": 0.25, "round": 2},
    ]
    assert 0 <= meter.log[0]["seconds"] <= meter.log[1]["seconds"] <= meter.seconds + 0.001


def test_seconds_count_after_an_error() -> None:
    meter = Meter()
    with pytest.raises(ZeroDivisionError), meter:
        raise ZeroDivisionError
    assert meter.seconds > 0


def test_peak_memory_sees_a_tensor_that_is_gone() -> None:
    meter = Meter()
    with meter:
        torch.ones(40_000_000)  # 160 MB
    if meter.peak_memory is None:
        pytest.skip("this system does not tell a process its peak memory")
    assert 120e6 < meter.peak_memory < 400e6
    with Meter() as idle:
        pass
    assert idle.peak_memory is not None
    assert idle.peak_memory < 20e6


def test_memory_is_none_where_the_system_does_not_tell(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(cost, "_STATUS", tmp_path / "status")
    monkeypatch.setattr(cost, "_RESET", tmp_path / "nowhere" / "clear_refs")
    with Meter() as meter:
        pass
    assert meter.peak_memory is None
    (tmp_path / "status").write_text("Name:\tpython\n")
    monkeypatch.setattr(cost, "_RESET", tmp_path / "clear_refs")
    with Meter() as meter:
        pass
    assert meter.peak_memory is None


def test_memory_is_read_in_kibibytes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    status = tmp_path / "status"
    monkeypatch.setattr(cost, "_STATUS", status)
    monkeypatch.setattr(cost, "_RESET", tmp_path / "clear_refs")
    status.write_text("VmHWM:\t    500 kB\nVmRSS:\t    100 kB\n")
    with Meter() as meter:
        status.write_text("VmHWM:\t    350 kB\nVmRSS:\t    100 kB\n")
    assert meter.peak_memory == 250 * 1024
    assert (tmp_path / "clear_refs").read_text() == "5"
