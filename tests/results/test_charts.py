from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from report_records import make

from expunge.errors import InvalidInput, StoreError
from expunge.results.charts import map_chart, write_chart
from expunge.results.frame import measurements
from expunge.results.summary import summarise
from expunge.store.record import Record


def grid(methods: list[str]) -> list[Record]:
    return [
        make(method=method, regularity=place, discovery=rate, uxh=0.5, oracle=method == "ideal")
        for method in methods
        for place in (0.0, 0.5, 1.0)
        for rate in (0.1, 0.5, 1.0)
    ]


def write_map(records: list[Record], path: Path) -> None:
    write_chart(map_chart(summarise(measurements(records))), path)


def svg(records: list[Record], folder: Path) -> ElementTree.Element:
    write_map(records, folder / "map.svg")
    return ElementTree.fromstring((folder / "map.svg").read_bytes())


def texts(root: ElementTree.Element) -> list[str]:
    return ["".join(node.itertext()) for node in root.iter() if node.tag.endswith("}text")]


def panels(records: list[Record]) -> list[dict[str, Any]]:
    return list(map_chart(summarise(measurements(records))).to_dict(validate=True)["concat"])


def rows_of(records: list[Record]) -> list[dict[str, Any]]:
    """The data of the only heat map, which Altair keeps aside under a name."""
    (rows,) = map_chart(summarise(measurements(records))).to_dict()["datasets"].values()
    return list(rows)


def test_panels_in_the_order_of_the_summary() -> None:
    records = [
        make(method="none", uxh=0.1),
        make(method="worse", uxh=0.2),
        make(method="ideal", uxh=0.9, oracle=True),
        make(method="better", uxh=0.3),
        make(method="broken", status="failed"),
    ]
    titles = [(panel["title"]["text"], panel["title"]["subtitle"]) for panel in panels(records)]
    assert titles == [
        ("none", "mean 10.0"),
        ("better", "mean 30.0"),
        ("worse", "mean 20.0"),
        ("broken", "no value"),
        ("ideal", "oracle, mean 90.0"),
    ]


def test_values_of_the_cells() -> None:
    records = [
        make(regularity=1.0, discovery=0.1, seed=0, uxh=0.2),
        make(regularity=1.0, discovery=0.1, seed=1, uxh=0.6),
        make(regularity=0.25, discovery=0.5, seed=0, uxh=0.9),
        make(regularity=0.25, discovery=0.5, seed=1, status="failed"),
        make(regularity=1.0, discovery=0.5, status="failed"),
    ]
    found = {
        (row["regularity"], row["discovery"]): (row["percent"], row["label"]) for row in rows_of(records)
    }
    assert found == {
        ("poison", "10%"): (pytest.approx(40.0), "40"),
        ("0.25", "50%"): (90.0, "90!"),
        ("poison", "50%"): (None, "×"),
        ("0.25", "10%"): (None, "×"),
    }
    assert map_chart(summarise(measurements(records))).to_dict()["title"]["subtitle"] == (
        "digits, resnet9, mean of 2 seeds, × failed or not run, ! some seeds failed"
    )
    (panel,) = panels(records)
    assert panel["title"]["subtitle"] == "mean 65.0 (2 of 4 cells)"


def test_axes_and_shared_scale() -> None:
    for panel in panels(grid(["none", "rem"])):
        layers = panel["layer"]
        assert {tuple(layer["encoding"]["y"]["sort"]) for layer in layers} == {
            ("poison", "interclass", "random")
        }
        assert {tuple(layer["encoding"]["x"]["sort"]) for layer in layers} == {("10%", "50%", "100%")}
        (scale,) = [layer["encoding"]["color"]["scale"] for layer in layers if "color" in layer["encoding"]]
        assert (scale["domain"], scale["scheme"]) == ([0, 100], "viridis")


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (2, 2), (3, 3), (4, 2), (5, 3), (7, 3), (9, 3)])
def test_columns(count: int, columns: int) -> None:
    records = grid([f"m{number}" for number in range(count)])
    assert map_chart(summarise(measurements(records))).columns == columns


def test_svg_holds_every_word(tmp_path: Path) -> None:
    root = svg([*grid(["none", "rem", "ideal"]), make(method="npo", uxh=0.25)], tmp_path)
    words = texts(root)
    for word in (
        "none",
        "rem",
        "ideal",
        "npo",
        "oracle, mean 50.0",
        "mean 25.0 (1 of 9 cells)",
        "Utility × Healed",
    ):
        assert words.count(word) == 1
    # Values in 27 + 1 cells; the scale of the legend says 50 once more.
    assert (words.count("50"), words.count("×"), words.count("100")) == (28, 8, 1)
    assert "digits, resnet9, 1 seed, × failed or not run" in words


def test_headings_do_not_cover_tiles(tmp_path: Path) -> None:
    """Tiles of one heat map end above the heading of the next."""
    root = svg(grid([f"m{number}" for number in range(5)]), tmp_path)
    tops: dict[str, float] = {}
    bottoms: list[float] = []

    def walk(node: ElementTree.Element, above: float) -> None:
        moved = re.match(r"translate\(([^,]+),([^)]+)\)", node.get("transform", ""))
        here = above + (float(moved.group(2)) if moved else 0.0)
        if node.tag.endswith("}text") and re.fullmatch(r"m\d", node.text or ""):
            tops[node.text or ""] = here - 15
        if node.get("aria-roledescription") == "rect mark":
            drawn = re.fullmatch(r"M[^,]+,([\d.]+)h[\d.]+v([\d.]+)h.*", node.get("d", ""))
            assert drawn is not None
            bottoms.append(here + float(drawn.group(1)) + float(drawn.group(2)))
        for child in node:
            walk(child, here)

    walk(root, 0.0)
    assert sorted(tops) == ["m0", "m1", "m2", "m3", "m4"]
    assert len(bottoms) == 45
    assert tops["m0"] == tops["m1"] == tops["m2"] < tops["m3"] == tops["m4"]
    above = [bottom for bottom in bottoms if bottom < tops["m4"] + 60]
    assert len(above) == 27
    assert max(above) < tops["m4"]


def luminance(colour: str) -> float:
    named = {"white": (255, 255, 255), "black": (0, 0, 0)}
    rgb = named.get(colour) or tuple(int(part) for part in re.findall(r"\d+", colour))
    linear = [part / 255 / 12.92 if part <= 10 else ((part / 255 + 0.055) / 1.055) ** 2.4 for part in rgb]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_stands_out_from_every_shade(tmp_path: Path) -> None:
    # 4.5 is what WCAG 2 asks of small text.
    records = [make(discovery=percent / 100, uxh=percent / 100) for percent in range(101)]
    root = svg(records, tmp_path)
    tiles, inks = {}, {}
    for node in root.iter():
        if node.get("aria-roledescription") == "rect mark":
            (label,) = re.findall(r"percent: (\d+)", node.get("aria-label", ""))
            tiles[label] = luminance(node.get("fill", ""))
        if node.get("aria-roledescription") == "text mark":
            inks["".join(node.itertext())] = luminance(node.get("fill", ""))
    assert len(tiles) == 101
    assert tiles.keys() == inks.keys()
    for label, shade in tiles.items():
        low, high = sorted([shade, inks[label]])
        assert (high + 0.05) / (low + 0.05) >= 4.5, label


def test_names_are_data_not_markup(tmp_path: Path) -> None:
    name = '<script>alert(1)</script>&"\x1b'
    root = svg([make(method=name, data="<b>&", model="]]>", uxh=0.5)], tmp_path)
    content = (tmp_path / "map.svg").read_text(encoding="utf-8")
    assert "<script" not in content
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&amp;" in content
    assert not any(node.tag.endswith("script") for node in root.iter())
    assert "<b>&, ]]>, 1 seed" in texts(root)


def test_everything_failed(tmp_path: Path) -> None:
    root = svg([make(status="failed"), make(method="npo", status="skipped")], tmp_path)
    assert texts(root).count("×") == 2
    assert texts(root).count("no value") == 2


@pytest.mark.parametrize(("suffix", "magic"), [(".pdf", b"%PDF-"), (".svg", b"<svg")])
def test_formats(suffix: str, magic: bytes, tmp_path: Path) -> None:
    path = tmp_path / "out" / f"map{suffix}"
    write_map([make(uxh=0.5)], path)
    assert path.read_bytes().startswith(magic)
    assert list(path.parent.iterdir()) == [path]


def test_no_records(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="there are no records to report, at least one was expected"):
        write_map([], tmp_path / "map.svg")
    assert list(tmp_path.iterdir()) == []


def test_path_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match=r"figure .*map\.svg cannot be written: .*; choose a path"):
        write_map([make(uxh=0.5)], tmp_path / "file" / "map.svg")
