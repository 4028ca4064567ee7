"""The report as a browser shows it; skipped where there is none."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from report_records import store_of

from expunge.results.method_facts import method_facts
from expunge.results.page import build_page

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (pip install playwright)")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium on the PATH")

METHODS = ["none", "rem", "retrain", "npo"]
EVIL = "</script><img src=http://example.invalid/x onerror=alert(1)>"


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    records = store_of(METHODS)
    records.append(replace(records[0], key="bad", method=EVIL, status="failed", error=EVIL))
    facts = {name: method_facts(name) for name in METHODS}
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(build_page(records, facts), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        flags = ["--no-sandbox", "--disable-background-networking", "--disable-component-update"]
        opened = started.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield opened
        opened.close()


@pytest.fixture
def opened(browser: Any, page_file: Path) -> Iterator[Callable[..., Any]]:
    """Open the page; at the end it must have logged no error and requested nothing but itself."""
    faults: list[str] = []
    requests: list[str] = []
    contexts = []

    def show(width: int = 1280, scheme: str = "light") -> Any:
        context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on(
            "console",
            lambda message: faults.append(message.text) if message.type in ("error", "warning") else None,
        )
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("dialog", lambda dialog: faults.append(f"dialog {dialog.message}"))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(page_file.as_uri())
        page.wait_for_selector(".chart svg")
        return page

    yield show
    for context in contexts:
        context.close()
    assert faults == []
    assert set(requests) == {page_file.as_uri()}


def background(page: Any) -> str:
    found: str = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return found


def tile(page: Any, number: int) -> Any:
    """A tile of the second heat map."""
    rects = page.locator(".map svg path[aria-roledescription='rect mark']")
    return rects.nth(9 + number)


def numbers(page: Any) -> Any:
    """The map as a table, opened."""
    page.locator("details.numbers summary").first.click()
    return page.locator("table.grid").first


def test_maps_and_fronts_are_drawn(opened: Callable[..., Any]) -> None:
    page = opened()
    # A place that was not run is a grey tile; the method that failed has one such run.
    assert page.locator(".map svg path[aria-roledescription='rect mark']").count() == 9 * (len(METHODS) + 1)
    assert page.locator(".map svg .mark-text text", has_text="\N{MULTIPLICATION SIGN}").count() == 9
    shades = page.locator(".map svg .mark-rect path")
    fills = set(shades.evaluate_all("all => all.map((one) => one.getAttribute('fill'))"))
    assert len(fills) > 20
    assert page.locator(".fronts .chart svg").count() == 2
    assert page.locator(".fronts .chart svg path[aria-roledescription]").count() >= 2


def test_pointing_at_a_tile_shows_its_numbers(opened: Callable[..., Any]) -> None:
    page = opened()
    tooltip = page.locator("#tooltip")
    assert tooltip.is_hidden()
    tile(page, 4).hover(position={"x": 5, "y": 5})
    assert "95 % t-interval, 3 seeds" in tooltip.inner_text()
    assert "sample gradients" in tooltip.inner_text()
    page.mouse.move(2, 2)
    assert tooltip.is_hidden()


def test_a_tile_opens_its_panel(opened: Callable[..., Any]) -> None:
    page = opened()
    tile(page, 4).hover(position={"x": 5, "y": 5})
    title = page.locator("#tooltip div").first.inner_text()
    page.mouse.down()
    page.mouse.up()
    assert page.get_by_role("dialog").get_by_role("heading").first.inner_text() == title


def test_the_map_can_be_used_by_keyboard_alone(opened: Callable[..., Any]) -> None:
    page = opened()
    summary = page.locator("details.numbers summary").first
    summary.focus()
    page.keyboard.press("Enter")
    for _ in range(3):  # the region that scrolls, the first method's name, its first number
        page.keyboard.press("Tab")
    button = page.locator("table.grid button.tile").first
    assert button.evaluate("button => button === document.activeElement")
    tooltip = page.locator("#tooltip")
    assert "random, 10% known" in tooltip.inner_text()
    assert button.get_attribute("aria-describedby") == "tooltip"
    page.keyboard.press("Escape")
    assert tooltip.is_hidden()
    page.keyboard.press("Enter")
    assert page.get_by_role("dialog").is_visible()


def test_a_cell_opens_its_panel(opened: Callable[..., Any]) -> None:
    page = opened()
    button = numbers(page).get_by_role("button", name="poison, 100% known").nth(1)
    button.click()
    panel = page.get_by_role("dialog")
    assert panel.is_visible()
    assert "poison, 100% known" in panel.get_by_role("heading").first.inner_text()
    assert panel.get_by_role("region", name="Runs").locator("tbody tr").count() == 3
    assert panel.get_by_role("region", name="Accuracy by class").locator("tbody tr").count() == 10
    panel.locator(".chart svg").wait_for()
    assert panel.locator(".chart svg path.line, .chart svg .mark-line path").count() >= 3
    assert "See Provenance" in panel.inner_text()
    assert panel.locator("details").first.get_attribute("open") is not None
    page.keyboard.press("Escape")
    assert not panel.is_visible()
    assert button.evaluate("button => button === document.activeElement")


def test_the_table_sorts(opened: Callable[..., Any]) -> None:
    page = opened()
    table = page.locator("table.sortable").first
    heads = table.locator("thead th")

    def column(number: int) -> list[str]:
        found: list[str] = table.locator(f"tbody tr > :nth-child({number})").all_inner_texts()
        return found

    heads.nth(1).locator("button").click()
    assert heads.nth(1).get_attribute("aria-sort") == "descending"
    values = [float(text.split()[0]) for text in column(2) if text != "–"]
    assert values == sorted(values, reverse=True)
    assert len(values) == len(METHODS)
    assert column(2)[-1] == "–"  # the method that has no value
    heads.nth(1).locator("button").click()
    assert heads.nth(1).get_attribute("aria-sort") == "ascending"
    assert column(2)[-1] == "–"
    heads.nth(0).locator("button").click()
    assert heads.nth(1).get_attribute("aria-sort") is None
    assert [name.strip() for name in column(1) if name.strip() in METHODS] == sorted(METHODS)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_theme_follows_the_system_until_it_is_chosen(opened: Callable[..., Any], scheme: str) -> None:
    page = opened(scheme=scheme)
    light, dark = "rgb(255, 255, 255)", "rgb(22, 24, 29)"
    before, after = (light, dark) if scheme == "light" else (dark, light)
    assert background(page) == before
    toggle = page.locator("#theme")
    assert toggle.inner_text() == ("Dark theme" if scheme == "light" else "Light theme")
    toggle.click()
    assert background(page) == after
    page.reload()
    page.wait_for_selector(".chart svg")
    assert background(page) == after


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_runs_out_of_the_page(opened: Callable[..., Any], width: int) -> None:
    page = opened(width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    numbers(page).locator("button.tile").nth(9).click()
    panel = page.locator("#panel")
    assert panel.evaluate("panel => panel.scrollWidth <= panel.clientWidth")


def test_a_name_leads_to_its_card(opened: Callable[..., Any]) -> None:
    page = opened()
    numbers(page).locator("a", has_text="rem").first.click()
    card = page.locator("details.card:target")
    card.wait_for()
    assert card.get_attribute("open") is not None
    assert "Schoepf" in card.inner_text()


def test_every_control_has_a_name_and_every_picture_a_text(opened: Callable[..., Any]) -> None:
    page = opened()
    nameless = page.evaluate(
        """[...document.querySelectorAll("button, a, [role=img], [role=region], nav, table")]
        .filter((found) => !(found.getAttribute("aria-label") || found.textContent || "").trim()
            && !found.closest("dialog") && !found.closest("svg"))
        .map((found) => found.outerHTML.slice(0, 80))"""
    )
    assert nameless == []
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((found) => found.id)")
    assert len(ids) == len(set(ids))


def test_it_reads_without_scripts(browser: Any, page_file: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(page_file.as_uri())
    assert page.locator("table.grid button.tile").nth(5).inner_text().isdecimal()
    assert page.locator("[aria-label='Methods of this sweep'] tbody tr").count() == len(METHODS) + 1
    assert EVIL in page.locator("main").inner_text()
    context.close()
