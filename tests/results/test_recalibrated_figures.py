from __future__ import annotations

from report_records import cost_table, make
from rich.console import Console

from expunge.results.comparisons import further_measures
from expunge.results.frame import measurements
from expunge.results.page import build_page
from expunge.store.record import Record


def records(**metrics: float) -> list[Record]:
    return [
        make(
            key=f"{number:032x}", regularity=1.0, method=name, uxh=0.8, asr=0.1, healed=0.9, utility=0.9,
            metrics=metrics if name == "npo" else {},
        )
        for number, name in enumerate(("none", "npo"))
    ]  # fmt: skip


def drawn(found: list[Record]) -> str:
    console = Console(width=120, file=None, record=True, quiet=False)
    with console.capture() as capture:
        console.print(cost_table(found))
    return capture.get()


HIDDEN = {"uxh_recalibrated": 0.25, "asr_recalibrated": 0.75, "healed_recalibrated": 0.28}


def test_the_table_shows_both_and_names_the_difference() -> None:
    text = drawn(records(**HIDDEN))
    line = next(line for line in text.splitlines() if line.startswith("npo"))
    assert line.split()[1:7] == ["80.0", "90.0", "90.0", "10.0", "25.0", "75.0"]
    assert "recal." in text
    assert "hidden by normalisation statistics" in " ".join(text.split())
    assert "recal." not in drawn(records())


def test_the_page_does_too() -> None:
    page = build_page(records(**HIDDEN), {})
    assert "hidden by normalisation statistics, points" in page
    assert "ASR recalibrated %" in page
    assert ">55.0<" in page  # 80 as returned, 25 recalibrated
    assert "hidden by normalisation statistics, points" not in build_page(records(), {})


def test_they_are_no_further_measures_but_the_others_are() -> None:
    assert set(further_measures(measurements(records(**HIDDEN)))["measure"]) == {"healed_recalibrated"}
