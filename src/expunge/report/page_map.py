"""The map as HTML: one table of buttons per method, which needs no script to be read."""

from __future__ import annotations

from collections.abc import Mapping

from expunge.report.comparison import Standing, half_width
from expunge.report.html import Html, element
from expunge.report.page_cells import MAP_COLUMNS, Asked, Cells
from expunge.report.repeat import Commands
from expunge.report.summary import CellSummary, MethodSummary, Place, Spread, Summary
from expunge.report.sweeps import Sweep
from expunge.report.wording import MISSING, count, duration, percent, place_text, with_interval
from expunge.store.record import LEARNED_ENOUGH, Record

# Viridis at 0, 10, ... 100 %: even in lightness, and told apart with any kind of colour vision.
_VIRIDIS = (
    "440154", "482475", "414487", "355f8d", "2a788e", "21918c", "22a884", "44bf70", "7ad151", "bddf26", "fde725",
)  # fmt: skip


def map_section(
    summary: Summary,
    sweep: Sweep,
    overall: Mapping[str, Standing],
    learned: Mapping[str, float],
    cells: Cells,
    card_of: Mapping[str, str],
) -> Html:
    """Return the heat maps of a sweep and take up their cells.

    ``learned``: key of a first model -> share of the corruption it had learned; ``card_of``: method -> id
    of its card.
    """
    writer = _Writer(summary, sweep, learned, cells)
    maps = [
        writer.heat_map(method, overall[method.method], card_of[method.method]) for method in summary.methods
    ]
    return element("div", *maps, class_="maps", style=f"--columns:{len(summary.discoveries)}")


def legend() -> Html:
    """Return the colour scale and the marks."""
    stops = ", ".join(f"#{colour}" for colour in _VIRIDIS)
    return element(
        "p",
        element("span", "0", class_="end"),
        element(
            "span", class_="scale", style=f"background:linear-gradient(90deg, {stops})", aria_hidden="true"
        ),
        element("span", "100 %", class_="end"),
        element("span", element("span", "×", class_="swatch none"), " failed", class_="key"),
        element("span", element("span", MISSING, class_="swatch none"), " not run", class_="key"),
        element("span", element("span", "!", class_="swatch none"), " some seeds failed", class_="key"),
        element(
            "span",
            element("span", class_="swatch hatched"),
            " first model had not learned the corruption",
            class_="key",
        ),
        class_="legend",
    )


def colour(fraction: float) -> tuple[str, str]:
    """Return the tile's colour and the ink, black or white, that stands out more from it."""
    position = min(max(fraction, 0.0), 1.0) * (len(_VIRIDIS) - 1)
    left = min(int(position), len(_VIRIDIS) - 2)
    pairs = zip(_channels(_VIRIDIS[left]), _channels(_VIRIDIS[left + 1]), strict=True)
    mixed = [round(low + (high - low) * (position - left)) for low, high in pairs]
    tile = "#" + "".join(f"{channel:02x}" for channel in mixed)
    return tile, max(("#000", "#fff"), key=lambda ink: contrast(ink, tile))


def contrast(first: str, second: str) -> float:
    """Return the contrast of two colours, 1 to 21 (WCAG 2.2, "contrast ratio")."""
    low, high = sorted((_luminance(first), _luminance(second)))
    return (high + 0.05) / (low + 0.05)


def not_learned(records: list[Record], learned: Mapping[str, float]) -> float | None:
    """Return the least share that a first model of these runs had learned, if that is too little."""
    shares = [learned[record.model_key] for record in records if record.model_key in learned]
    least = min(shares, default=1.0)
    return least if least < LEARNED_ENOUGH else None


class _Writer:
    def __init__(self, summary: Summary, sweep: Sweep, learned: Mapping[str, float], cells: Cells) -> None:
        self.summary, self.learned, self.cells = summary, learned, cells
        self.commands = Commands(sweep.method_of)
        self.records: dict[tuple[str, float, float], list[Record]] = {}
        for record in sweep.corruption:
            assert record.regularity is not None
            assert record.discovery is not None
            self.records.setdefault((record.method, record.regularity, record.discovery), []).append(record)
        self.ranks = {place: self._ranks(place) for place in summary.places}
        self.retraining = {
            (cell.regularity, cell.discovery): cell.sample_gradients
            for cell in summary.cells.values()
            if cell.method == "retrain"
        }

    def heat_map(self, method: MethodSummary, standing: Standing, card: str) -> Html:
        columns = self.summary.discovery_labels
        head = element(
            "tr",
            element("td"),
            *(element("th", label, scope="col") for label in columns.values()),
        )
        rows = [
            element(
                "tr",
                element("th", label, scope="row"),
                *(self._tile(method, (regularity, discovery)) for discovery in columns),
            )
            for regularity, label in reversed(self.summary.regularity_labels.items())
        ]
        kind = " (oracle)" if method.oracle else ""
        of_all = (
            f", {method.cells} of {len(self.summary.places)} cells"
            if method.cells < len(self.summary.places)
            else ""
        )
        caption = element(
            "caption",
            element("a", method.method, href=f"#{card}", class_="name"),
            element("span", f"{kind} mean {with_interval(standing.interval)}{of_all}", class_="mean"),
        )
        table = element(
            "table", caption, element("thead", head), element("tbody", *rows), role="grid", class_="heat",
            aria_label=f"{method.method}: Utility times Healed in percent, regularity by share known",
        )  # fmt: skip
        return element("div", table, class_="map")

    def _tile(self, method: MethodSummary, place: Place) -> Html:
        cell = self.summary.cells.get((method.method, *place))
        if cell is None:
            label = element("span", "not run", class_="unseen")
            return element("td", element("span", MISSING, class_="tile none", aria_hidden="true"), label)
        records = self.records[(method.method, *place)]
        weak = not_learned(records, self.learned)
        lines = self._lines(cell, weak)
        where = place_text(self.summary, cell)
        number = self.cells.add(
            Asked(
                title=f"{method.method}: {where}",
                lines=lines,
                records=records,
                columns=MAP_COLUMNS,
                command=self.commands.command(records),
            )
        )
        if cell.uxh is None:
            text, style = "×" if cell.failed else MISSING, None
        else:
            tile, ink = colour(cell.uxh.mean)
            text, style = (
                percent(cell.uxh.mean, 0) + ("!" if cell.failed else ""),
                f"--tile:{tile};--ink-tile:{ink}",
            )
        classes = "tile" + (" none" if cell.uxh is None else "") + (" hatched" if weak is not None else "")
        button = element(
            "button", element("span", text), type="button", class_=classes, style=style, data_cell=number,
            aria_label=f"{where}: {lines[0]}" + (", first model had not learned the corruption" if weak else ""),
            aria_haspopup="dialog",
        )  # fmt: skip
        return element("td", button)

    def _lines(self, cell: CellSummary, weak: float | None) -> tuple[str, ...]:
        lines = []
        if cell.uxh is None:
            lines.append("failed" if cell.failed else "skipped")
        else:
            lines.append(_mean_text(cell.uxh))
            lines.append(f"healed {_mean(cell.healed)}, utility {_mean(cell.utility)}" + self._attack(cell))
            lines.append(self._cost(cell))
            rank = self.ranks[cell.regularity, cell.discovery].get(cell.method)
            if rank is not None:
                lines.append(
                    f"place {rank} of {len(self.ranks[cell.regularity, cell.discovery])} here, oracles apart"
                )
        if cell.failed and cell.uxh is not None:
            lines.append(f"{cell.failed} of {cell.failed + cell.seeds} seeds failed")
        if weak is not None:
            lines.append(
                f"a first model had learned only {percent(weak, 0)} % of the corruption: this cell says little"
            )
        return tuple(lines)

    @staticmethod
    def _attack(cell: CellSummary) -> str:
        return "" if cell.asr is None else f", attack succeeds {percent(cell.asr.mean)}"

    def _cost(self, cell: CellSummary) -> str:
        seconds = None if cell.seconds is None else cell.seconds.mean
        gradients = None if cell.sample_gradients is None else cell.sample_gradients.mean
        text = f"{duration(seconds)}, {count(gradients)} sample gradients"
        whole = self.retraining.get((cell.regularity, cell.discovery))
        if whole is not None and whole.mean and gradients is not None and cell.method != "retrain":
            share = gradients / whole.mean
            text += f" ({'under 1' if 0 < share < 0.01 else percent(share, 0)} % of retrain's)"
        return text

    def _ranks(self, place: Place) -> dict[str, int]:
        means = {
            method.method: cell.uxh.mean
            for method in self.summary.methods
            if not method.oracle
            and (cell := self.summary.cells.get((method.method, *place))) is not None
            and cell.uxh is not None
        }
        return {method: 1 + sum(other > mean for other in means.values()) for method, mean in means.items()}


def _mean_text(spread: Spread) -> str:
    half = half_width(spread)
    if half is None:
        return f"{percent(spread.mean)} %, one seed"
    return f"{percent(spread.mean)} % ± {percent(half)} (95 % t-interval, {spread.n} seeds)"


def _mean(spread: Spread | None) -> str:
    return MISSING if spread is None else percent(spread.mean)


def _channels(colour: str) -> tuple[int, int, int]:
    digits = colour.removeprefix("#")
    if len(digits) == 3:
        digits = "".join(2 * digit for digit in digits)
    return int(digits[:2], 16), int(digits[2:4], 16), int(digits[4:], 16)


def _luminance(colour: str) -> float:
    linear = [
        channel / 3294.6 if channel <= 10 else ((channel / 255 + 0.055) / 1.055) ** 2.4
        for channel in _channels(colour)
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
