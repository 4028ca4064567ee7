from __future__ import annotations

import base64
import hashlib
import html
import json
import random
import re
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import pytest
from report_records import make, store_of

from expunge.errors import InvalidInput
from expunge.results.cells import Cells, Grids
from expunge.results.html import asset
from expunge.results.method_facts import method_facts
from expunge.results.page import build_page, embedded_json
from expunge.store.record import Record

EVIL = "</script><img src=x onerror=alert(1)>"


class Seen(HTMLParser):
    """Tags, attributes and text of a page, scripts and styles apart."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] not in ("script", "style"):
            self.text += data


def packed(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    content: dict[str, Any] = json.loads(found[1])
    return content


def test_text_from_outside_is_escaped() -> None:
    records = [
        make(
            key="1", method=EVIL, data=EVIL, model=EVIL, uxh=0.5, seconds=1.0, settings={EVIL: EVIL},
            recipe={EVIL: EVIL}, log=[{EVIL: 1.0}, {EVIL: 2.0}],
            provenance={EVIL: EVIL, "device": EVIL, "created": EVIL},
        ),
        make(key="2", method=EVIL, data=EVIL, model=EVIL, seed=1, status="failed", error=f"a\n{EVIL}\n\x1b[2J{EVIL}"),
        make(
            key="3", task=EVIL, regularity=None, discovery=None, method=EVIL, metrics={"forget_accuracy": 0.5},
            task_settings={EVIL: EVIL},
        ),
    ]  # fmt: skip
    page = build_page(records, {}, title=EVIL)
    seen = Seen(page)
    assert not [tag for tag, _ in seen.tags if tag == "img"]
    assert not [name for _, attributes in seen.tags for name in attributes if name.startswith("on")]
    assert page.count("</script>") == 3  # data, Vega, the page's own
    assert EVIL in seen.text
    assert EVIL in json.dumps(packed(page))
    assert "\x1b" not in page


def test_no_address_outside_and_only_named_scripts() -> None:
    page = build_page(store_of(["none", "rem"]), {})
    seen = Seen(page)
    for tag, attributes in seen.tags:
        for name in ("src", "href", "action", "data"):
            assert (attributes.get(name) or "#").startswith("#"), (tag, attributes)
    assert "@import" not in page
    assert "url(" not in page.partition("</style>")[0]
    (policy,) = [
        dict(a)["content"] for tag, a in seen.tags if a.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "unsafe-eval" not in policy
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert len(scripts) == 2
    for script in scripts:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy


def test_the_same_records_give_the_same_bytes() -> None:
    records = store_of(["none", "rem", "retrain"])
    facts = {name: method_facts(name) for name in ("none", "rem", "retrain")}
    first = build_page(records, facts)
    shuffled = list(records)
    random.Random(4).shuffle(shuffled)
    assert build_page(shuffled, facts) == first


def test_a_large_sweep_stays_under_five_megabytes() -> None:
    tenths = tuple(step / 10 for step in range(1, 11))
    records = store_of(
        [f"m{number}" for number in range(26)], data=("cifar10", "svhn"), discoveries=tenths, log_rows=40
    )
    page = build_page(records, {})
    assert len(page.encode()) < 5_000_000
    assert len(packed(page)["cells"]) == 2 * 26 * 3 * 10
    assert re.search(r"Learning curves with more than \d+ rows are thinned", page)


def test_json_cannot_end_its_element() -> None:
    text = embedded_json({"a": "</script><!--&\u2028\u2029"})
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == {"a": "</script><!--&\u2028\u2029"}


def test_a_method_card_tells_needs_source_and_worst_cells() -> None:
    records = store_of(["rem", "elsewhere"], seeds=1)
    page = build_page(records, {"rem": method_facts("rem"), "elsewhere": None})
    text = Seen(page).text
    assert "the examples to be forgotten; the remaining training data" in text
    assert "Schoepf" in text
    assert "lr=0.01, batch_size=128, optimiser=sgd, augment=false" in text
    assert "elsewhere is not installed here" in text
    worst = min((record for record in records if record.method == "rem"), key=lambda record: record.uxh or 0)
    assert worst.uxh is not None
    assert worst.healed is not None
    assert f"{100 * worst.uxh:.1f} % (healed {100 * worst.healed:.1f}" in text


def test_warnings() -> None:
    records = [
        make(key="a", method="none", model_key="m", corruption_learned=0.42, uxh=0.1),
        make(key="b", method="rem", model_key="m", uxh=0.3),
        make(key="c", method="rem", model_key="w", regularity=1.0, status="failed", error="Diverged: nan"),
    ]
    page = build_page(records, {})
    text = Seen(page).text
    assert "random: the original model had learned only 42 % (seed 0) of the corruption, under 95 %" in text
    assert "one seed. No interval can be given" in text
    assert "1 of 3 runs failed" in text
    assert "Diverged: nan" in text
    labels = [
        str(attributes["aria-label"])
        for tag, attributes in Seen(page).tags
        if attributes.get("class") == "tile"
    ]
    assert len([label for label in labels if "original model had not learned" in label]) == 2
    drawn = json.dumps(packed(page)["charts"]["s1-map"]["datasets"])
    assert ('"label": "10\\u00b0"' in drawn, '"label": "30\\u00b0"' in drawn) == (True, True)


def test_no_warning_where_nothing_is_wrong() -> None:
    text = Seen(build_page(store_of(["none", "rem"]), {})).text
    assert "Read this first" not in text
    assert "Every recorded run was finished." in text


def test_a_cell_tells_everything_about_its_runs() -> None:
    records = store_of(["none", "rem"], log_rows=3)
    content = packed(build_page(records, {}))
    (cell,) = [cell for cell in content["cells"] if cell["title"] == "rem: poison, 50% known"]
    runs = [
        record
        for record in records
        if (record.method, record.regularity, record.discovery) == ("rem", 1.0, 0.5)
    ]
    assert {run["key"] for run in cell["runs"]} == {record.key for record in runs}
    columns = content["shared"][cell["columns"]]
    for run in cell["runs"]:
        record = next(record for record in runs if record.key == run["key"])
        assert run["values"][columns.index("U × H %")] == pytest.approx(100 * (record.uxh or 0), rel=1e-3)
        assert run["classes"] == pytest.approx(record.per_class, rel=1e-3)
        assert run["curve"]["epoch"] == [0, 1, 2]
        assert run["created"] == record.provenance["created"]
        assert content["shared"][run["model"]] == record.model_key
        assert "lr=0.01" in content["shared"][run["from"]]["settings"]
    assert "95 % t-interval, 3 seeds" in cell["lines"][0]
    assert cell["command"] is None  # no grid was given


def test_the_map_is_drawn_and_written_as_a_table() -> None:
    records = store_of(["none", "rem"])
    page = build_page(records, {})
    content = packed(page)
    assert content["charts"]["s1-map"]["concat"][0]["title"]["text"] == "none"
    tiles = [row for rows in content["charts"]["s1-map"]["datasets"].values() for row in rows]
    buttons = {
        int(number): text for number, text in re.findall(r'class="tile" data-cell="(\d+)"[^>]*>(\d+)<', page)
    }
    assert {row["cell"]: row["label"] for row in tiles} == buttons
    assert len(buttons) == 18
    titles = {row["cell"]: content["cells"][row["cell"]]["title"] for row in tiles}
    assert all(
        titles[row["cell"]].endswith(f"{row['regularity']}, {row['discovery']} known") for row in tiles
    )


def test_grids_and_the_command_of_a_cell() -> None:
    records = store_of(["none", "rem"])
    settings = "lr = 0.01\nbatch_size = 128\noptimiser = 'sgd'\naugment = false\n"
    head = "run = ['none', 'rem']\nseeds = [0, 1, 2]\n[data]\nname = 'digits'\n"
    task = "[[tasks]]\nkind = 'corruption'\nregularity = 1.0\ndiscovery = 0.5\n"
    recipe = "[recipe]\nmodel = 'resnet9'\n"
    grid = f"{head}{task}{recipe}[methods.none]\n{settings}[methods.rem]\n{settings}"
    page = build_page(records, {}, grids=[grid])
    (cell,) = [cell for cell in packed(page)["cells"] if cell["title"] == "rem: poison, 50% known"]
    assert (
        cell["command"]
        == "expunge bench grid.toml --only method=rem,regularity=poison,discovery=0.5 --device cpu"
    )
    assert grid.rstrip() in html.unescape(page)
    two = build_page(records, {}, grids=[grid, grid.replace("0.01", "0.02")])
    assert "grid-2.toml" in two


def test_forgetting_has_a_section_of_its_own() -> None:
    def forgetting(method: str, seed: int, forget: float) -> Record:
        return make(
            key=f"{method}{seed}", task="classes", task_settings={"classes": [3], "seed": seed}, regularity=None,
            discovery=None, method=method, seed=seed, metrics={"forget_accuracy": forget, "retain_accuracy": 1.0},
        )  # fmt: skip

    records = [forgetting("retrain", seed, 0.1) for seed in (0, 1)]
    records += [forgetting("natmu", seed, 0.3) for seed in (0, 1)]
    page = build_page(records, {})
    text = Seen(page).text
    assert "Forget classes classes=3" in text
    assert "10.0 ±0.0" in text  # gap: (|0.3 - 0.1| + 0) / 2
    assert "Accuracy and cost" not in text
    (cell,) = [cell for cell in packed(page)["cells"] if cell["title"].startswith("natmu")]
    assert len(cell["runs"]) == 2


def test_curves_are_thinned_evenly_and_keep_their_ends() -> None:
    cells = Cells(Grids([]))
    log = [{"loss": float(row)} for row in range(1000)]
    cells.add("t", [], [make(log=log)], {}, {"rem": "rem"})
    content, rows = cells.pack()
    curve = content["cells"][0]["runs"][0]["curve"]["loss"]
    assert (len(curve), rows) == (400, 400)
    assert (curve[0], curve[-1]) == (0, 999)
    assert max(after - before for before, after in pairwise(curve)) <= 3


def contrast(first: str, second: str) -> float:
    """Contrast of two colours, 1 to 21 (WCAG 2.2, "contrast ratio")."""

    def luminance(colour: str) -> float:
        channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def test_text_has_contrast_in_both_themes() -> None:
    style = asset("page.css")
    blocks = re.findall(r"\{([^{}]*--page:[^{}]*)\}", style)
    assert len(blocks) == 3
    for block in blocks:
        colours = dict(re.findall(r"(--[a-z-]+): (#[0-9a-f]{6})", block))
        for paper in ("--page", "--soft", "--empty", "--warn"):
            assert contrast(colours["--ink"], colours[paper]) >= 4.5
        for ink in ("--faint", "--link"):
            for paper in ("--page", "--soft"):
                assert contrast(colours[ink], colours[paper]) >= 4.5
        assert contrast(colours["--accent"], colours["--page"]) >= 3
        assert contrast(colours["--faint"], colours["--empty"]) >= 4.5


def test_no_records() -> None:
    with pytest.raises(InvalidInput, match="holds no records; run a sweep first"):
        build_page([], {})
