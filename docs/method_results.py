"""What was measured of a method on the digits map: its map as a table, and where it fails in sentences."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

FILES = {"digits-methods.csv": "", "digits-all.csv": "2026-11-22"}
"""Under docs/results, newest first, and the day of one that is not of today's code.

A method is shown by the first file that has rows of it.
"""
CORRUPTION = {0.0: "random labels", 0.5: "two classes exchanged", 1.0: "poison"}
UNTOUCHED = "none"
ELSEWHERE = {
    "relearn": "On 10,000 CIFAR-10 images it heals exchanged classes least: Utility x Healed 32.1 with 10 % known, "
    "where a network that never saw the corruption has 45 to 52 ([relearn](../results/relearn.md), three seeds).",
    "sap": "Its strength was the default and was not tuned for this map, as that of the other rivals was.",
}
"""What the figures of the map do not say of a method."""

# A difference that the seeds of these files can carry, in percent. Below it nothing is said.
_POINTS = 5
_EASY = 90
_MEASURES = ("uxh", "utility", "asr", "uxh_recalibrated", "asr_recalibrated")
# Viridis in steps of a tenth, as on the map of the README.
_VIRIDIS = (
    "440154", "482475", "414487", "355f8d", "2a788e", "21918c", "22a884", "44bf70", "7ad151", "bddf26", "fde725",
)  # fmt: skip
_DARK_TEXT_FROM = 45


@dataclass(frozen=True)
class Cell:
    """Means over the seeds of one method at one place of the map, in percent; ``None`` where nothing was measured."""

    regularity: float
    discovery: float
    seeds: int
    uxh: float | None
    utility: float | None
    asr: float | None
    uxh_recalibrated: float | None
    asr_recalibrated: float | None

    @property
    def place(self) -> str:
        """Return the place in words: "poison, 10 % known"."""
        return f"{_corruption(self.regularity)}, {_known(self.discovery)}"


@dataclass(frozen=True)
class Measured:
    """The cells of every method in one file."""

    source: str
    cells: Mapping[str, Sequence[Cell]]
    day: str = ""


def read(folder: Path) -> list[Measured]:
    """Return what the files of ``folder`` hold, newest first; files that are not there are left out."""
    return [
        parse(name, (folder / name).read_text(encoding="utf-8"), day)
        for name, day in FILES.items()
        if (folder / name).exists()
    ]


def parse(source: str, text: str, day: str = "") -> Measured:
    """Return the means over seeds of a table with a line for each run; runs that are not done are left out."""
    runs: dict[tuple[str, float, float], list[dict[str, str]]] = {}
    for line in csv.DictReader(text.splitlines()):
        if line["status"] == "done" and line["regularity"]:
            where = (line["method"], float(line["regularity"]), float(line["discovery"]))
            runs.setdefault(where, []).append(line)
    cells: dict[str, list[Cell]] = {}
    for (method, regularity, discovery), lines in sorted(runs.items()):
        means = [_mean(line.get(measure) for line in lines) for measure in _MEASURES]
        seeds = len({line["seed"] for line in lines})
        cells.setdefault(method, []).append(Cell(regularity, discovery, seeds, *means))
    return Measured(source, cells, day)


def section(method: str, measured: Sequence[Measured], limits: Sequence[str] = (), page: str = "") -> str:
    """Return "Where it fails" of a method's page.

    Args:
        method: its name.
        measured: files, newest first.
        limits: sentences that hold whatever was measured.
        page: on recalibration, whose table counts where the files have no such figures.
    """
    found = next((each for each in measured if method in each.cells), None)
    cells = found.cells[method] if found else ()
    said = list(limits)
    if found:
        said += failures(cells, _untouched([found, *measured]))
        said += [ELSEWHERE[method]] if method in ELSEWHERE else []
    else:
        said.append("It has not been measured on the digits map, so there is no map of it here.")
    if all(cell.uxh_recalibrated is None for cell in cells):
        said += hidden_elsewhere(method, page)
    text = "\n".join(["## Where it fails", "", *(f"- {sentence}" for sentence in said), ""])
    return f"{text}\n{map_table(cells)}\n\n{_caption(cells, found)}\n" if found else text


def _untouched(measured: Sequence[Measured]) -> Sequence[Cell]:
    """Return the cells of the model as it was; a file without them has the original models of the next."""
    return next((each.cells[UNTOUCHED] for each in measured if UNTOUCHED in each.cells), ())


def hidden_elsewhere(method: str, page: str) -> list[str]:
    """Return a sentence for each row of the page's table in which the trigger comes back or U x H changes."""
    said = []
    for line in page.splitlines():
        parts = [part.strip() for part in line.strip("|").split("|")]
        if len(parts) != 6 or re.sub(r"[^a-z]", "", parts[0].lower()) != method.replace("_", ""):
            continue
        place, uxh, again, attack, attack_again = parts[1:]
        trigger = (
            f"; the trigger works on {attack_again} % in place of {attack} %" if attack[:1].isdigit() else ""
        )
        said.append(
            f"On a ResNet9 ({place} known, one seed) Utility x Healed is {again} % in place of {uxh} % once the "
            f"normalisation statistics are those of the retain set{trigger}: [recalibration](../recalibration.md)."
        )
    return said


def failures(cells: Sequence[Cell], untouched: Sequence[Cell]) -> list[str]:
    """Return sentences about the worst cell, lost utility, a trigger that is left, and what statistics hide.

    Args:
        cells: of the method.
        untouched: of the model as it was.
    """
    known = [cell for cell in cells if cell.uxh is not None]
    if not known:
        return ["No run of it ended with a result."]
    worst = min(known, key=lambda cell: cell.uxh)
    said = [f"Its lowest cell is {worst.place}: Utility x Healed {_percent(worst.uxh)}."]
    if worst.uxh >= _EASY:
        said.append("So this map is too easy to show where it fails.")
    before = {(cell.regularity, cell.discovery): cell for cell in untouched}
    said += _no_better(known, before) + _lost(known, before) + _trigger(known) + _hidden(known)
    return said


def _no_better(cells: Sequence[Cell], before: Mapping[tuple[float, float], Cell]) -> list[str]:
    same = [
        cell for cell in cells
        if (was := before.get((cell.regularity, cell.discovery))) and was.uxh is not None and cell.uxh < was.uxh + 1
    ]  # fmt: skip
    if not same or same == list(before.values()):
        return []
    return [f"It leaves the model as damaged as it was (within a point) in {_places(same)}."]


def _lost(cells: Sequence[Cell], before: Mapping[tuple[float, float], Cell]) -> list[str]:
    drops = {
        cell: was.utility - cell.utility
        for cell in cells
        if (was := before.get((cell.regularity, cell.discovery))) and was.utility is not None
        and cell.utility is not None
    }  # fmt: skip
    most = max(drops, key=lambda cell: drops[cell], default=None)
    if most is None or drops[most] < _POINTS:
        return []
    number = sum(drop >= _POINTS for drop in drops.values())
    return [
        f"It costs {_POINTS} points of utility or more in {number} of {len(drops)} cells; most in {most.place}: "
        f"{_percent(most.utility)} is left of {_percent(most.utility + drops[most])}."
    ]


def _trigger(cells: Sequence[Cell]) -> list[str]:
    left = [cell for cell in cells if cell.asr is not None and cell.asr >= 2 * _POINTS]
    if not left:
        return []
    listed = ", ".join(f"{_percent(cell.asr)} with {_known(cell.discovery)}" for cell in left)
    return [f"The trigger still works on test images: {listed}."]


def _hidden(cells: Sequence[Cell]) -> list[str]:
    said = []
    back = [
        cell for cell in cells
        if cell.asr is not None and cell.asr_recalibrated is not None and cell.asr_recalibrated - cell.asr >= _POINTS
    ]  # fmt: skip
    if back:
        listed = ", ".join(
            f"{_percent(cell.asr_recalibrated)} in place of {_percent(cell.asr)} with {_known(cell.discovery)}"
            for cell in back
        )
        said.append(
            "A part of the trigger is hidden by normalisation statistics, not forgotten: with those of the retain set "
            f"it works on {listed}. See [recalibration](../recalibration.md)."
        )
    gains = [
        cell for cell in cells
        if cell.uxh_recalibrated is not None and cell.uxh_recalibrated - cell.uxh >= _POINTS
    ]  # fmt: skip
    if gains:
        most = max(gains, key=lambda cell: cell.uxh_recalibrated - cell.uxh)
        said.append(
            f"Its own statistics harm it in {len(gains)} of {len(cells)} cells; most in {most.place}: recalibrated, "
            f"Utility x Healed is {_percent(most.uxh_recalibrated)} in place of {_percent(most.uxh)}."
        )
    return said


def map_table(cells: Sequence[Cell]) -> str:
    """Return the map as a table in HTML: a row for each corruption, a column for each share that is known."""
    at = {(cell.regularity, cell.discovery): cell for cell in cells}
    columns = sorted({cell.discovery for cell in cells})
    head = "".join(f'<th scope="col">{_known(column)}</th>' for column in columns)
    lines = [
        '<table class="cells">',
        f'<thead><tr><th scope="col">Utility x Healed, %</th>{head}</tr></thead>',
    ]
    lines.append("<tbody>")
    for row in sorted({cell.regularity for cell in cells}, reverse=True):
        tiles = "".join(_tile(at.get((row, column))) for column in columns)
        lines.append(f'<tr><th scope="row">{_corruption(row)}</th>{tiles}</tr>')
    return "\n".join([*lines, "</tbody></table>"])


def colour(percent: float) -> str:
    """Return viridis at ``percent`` of its length, as #rrggbb."""
    place = min(max(percent, 0.0), 100.0) / 100 * (len(_VIRIDIS) - 1)
    low = min(int(place), len(_VIRIDIS) - 2)
    pairs = [
        (int(_VIRIDIS[low][at : at + 2], 16), int(_VIRIDIS[low + 1][at : at + 2], 16)) for at in (0, 2, 4)
    ]
    return "#" + "".join(f"{round(below + (above - below) * (place - low)):02x}" for below, above in pairs)


def _tile(cell: Cell | None) -> str:
    if cell is None or cell.uxh is None:
        return '<td class="empty">×</td>'
    shown, again = cell.uxh, ""
    if _differs(cell):
        shown = min(cell.uxh, cell.uxh_recalibrated)
        again = f"<br><small>{cell.uxh_recalibrated:.0f} recalibrated</small>"
    ink = "black" if shown >= _DARK_TEXT_FROM else "white"
    return f'<td style="background:{colour(shown)};color:{ink}">{cell.uxh:.0f}{again}</td>'


def _differs(cell: Cell) -> bool:
    """Return whether the normalisation statistics of the retain set change the cell."""
    return cell.uxh_recalibrated is not None and abs(cell.uxh_recalibrated - cell.uxh) >= _POINTS


def _caption(cells: Sequence[Cell], found: Measured) -> str:
    seeds = max(cell.seeds for cell in cells)
    mean = f"mean of {seeds} seeds" if seeds > 1 else "one seed"
    both = (
        " A cell that the normalisation statistics of the retain set change shows both figures, "
        "in the colour of the lower."
        if any(_differs(cell) for cell in cells)
        else ""
    )
    day = f", of {found.day}" if found.day else ""
    return (
        f"*1,437 handwritten digits, 100 of them corrupted; a small convolutional network; {mean}. 100 is a model "
        f"that was never damaged.{both} Every run: `docs/results/{found.source}`{day}. Other data give other figures.*"
    )


def _places(cells: Sequence[Cell]) -> str:
    shares: dict[float, list[float]] = {}
    for cell in cells:
        shares.setdefault(cell.regularity, []).append(cell.discovery)
    return "; ".join(
        f"{_corruption(regularity)} ({', '.join(_known(share) for share in sorted(known))})"
        for regularity, known in sorted(shares.items())
    )


def _mean(values: Iterable[str | None]) -> float | None:
    numbers = [100 * float(value) for value in values if value]
    return fmean(numbers) if numbers else None


def _corruption(regularity: float) -> str:
    return CORRUPTION.get(regularity, f"regularity {regularity:g}")


def _known(discovery: float) -> str:
    return "all known" if discovery == 1 else f"{100 * discovery:.0f} % known"


def _percent(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.0f} %"
