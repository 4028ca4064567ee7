"""The page as a person uses it, in a browser; skipped where there is none."""

from __future__ import annotations

import csv
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from reviewing import CLASSES, listed, server
from typer.testing import CliRunner

from expunge.cli import app
from expunge.inputs.forget_list import read_forget_list

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (pip install playwright)")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium on the PATH")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        flags = ["--no-sandbox", "--disable-background-networking", "--disable-component-update"]
        opened = started.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield opened
        opened.close()


@pytest.fixture
def opened(browser: Any) -> Iterator[Callable[[str], Any]]:
    """Open a page; at the end it must have logged no error and asked nobody but its own server."""
    faults: list[str] = []
    requests: list[str] = []
    allowed: list[str] = []
    context = browser.new_context(viewport={"width": 1200, "height": 900})

    def show(address: str) -> Any:
        page = context.new_page()
        page.on(
            "console", lambda said: faults.append(said.text) if said.type in ("error", "warning") else None
        )
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        allowed.append(address)
        page.goto(address)
        page.wait_for_selector("#shown *")
        return page

    yield show
    context.close()
    assert faults == []
    own = (*allowed, "data:", "blob:")
    assert [url for url in requests if not url.startswith(own)] == []


@pytest.fixture
def serve() -> Iterator[Callable[[Path], Any]]:
    running = []

    def begin(path: Path) -> Any:
        made = server(path)
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        running.append((made, thread))
        return made

    yield begin
    for made, thread in running:
        made.shutdown()
        thread.join()
        made.server_close()


def decided(path: Path) -> dict[str, tuple[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return {line["index"]: (line["is_label_issue"], line["true_label"]) for line in csv.DictReader(file)}


def wait_saved(page: Any, path: Path, rows: int) -> dict[str, tuple[str, str]]:
    for _ in range(100):
        if path.exists() and len(decided(path)) == rows:
            break
        page.wait_for_timeout(50)
    return decided(path)


def test_deciding_by_keys_closing_and_going_on(
    tmp_path: Path, opened: Callable[[str], Any], serve: Callable[[Path], Any]
) -> None:
    path = listed(tmp_path)
    serving = serve(path)
    kept = path.with_suffix(".reviewed.csv")
    page = opened(serving.address)
    assert "1 of 12, worst first" in page.inner_text("#place")
    assert page.inner_text("#given") == "ant"
    assert page.locator("#nearest figure").count() == 2
    assert page.evaluate("document.querySelector('#shown img').naturalWidth") == 8
    for key in ("b", "g", "s", "1"):  # rows 0 to 3; row 3 is an ant, the first label
        page.keyboard.press(key)
    page.keyboard.press("o")
    page.keyboard.type("</scr")
    page.keyboard.press("Enter")
    assert "6 of 12, worst first" in page.inner_text("#place")
    expected = {
        "0": ("True", ""),
        "1": ("False", "bee"),
        "2": ("True", "ant"),
        "3": ("False", "ant"),
        "4": ("True", CLASSES[2]),
        "11": ("True", ""),
    }
    assert wait_saved(page, kept, 6) == expected
    page.close()

    page = opened(serving.address)
    assert "6 of 12 decided" in page.inner_text("#count")
    assert "6 of 12, worst first" in page.inner_text("#place")  # the first that is undecided
    page.keyboard.press("ArrowLeft")
    assert f"bad, is {CLASSES[2]}" in page.inner_text("#decided")
    page.keyboard.press("u")
    page.keyboard.press("n")
    assert "6 of 12, worst first" in page.inner_text("#place")
    assert wait_saved(page, kept, 5) == {row: said for row, said in expected.items() if row != "4"}
    assert read_forget_list(str(kept), serving.page.display.data).positions.tolist() == [0, 2, 11]


def test_a_decision_that_cannot_be_saved_is_told_and_sent_again(
    tmp_path: Path, opened: Callable[[str], Any], serve: Callable[[Path], Any]
) -> None:
    serving = serve(listed(tmp_path))
    page = opened(serving.address)
    page.evaluate("() => { window.real = fetch; window.fetch = () => Promise.reject(new Error('gone')); }")
    page.keyboard.press("b")
    page.wait_for_selector("#warning:not([hidden])")
    assert "1 decisions are not saved (gone)" in page.inner_text("#warning")
    page.evaluate("() => { window.fetch = window.real; }")
    page.keyboard.press("g")
    page.wait_for_selector("#warning", state="hidden")
    assert wait_saved(page, serving.page.decisions.path, 3)["0"] == ("True", "")


def test_two_thousand_suspects_by_keyboard(
    tmp_path: Path, opened: Callable[[str], Any], serve: Callable[[Path], Any]
) -> None:
    path = listed(tmp_path, n=2100, suspects=2000, known=0)
    page = opened(serve(path).address)
    for key in "bgs" * 10:
        page.keyboard.press(key)
    kept = wait_saved(page, path.with_suffix(".reviewed.csv"), 30)
    assert sum(bad == "True" for bad, _ in kept.values()) == 20
    assert "30 of 2,000 decided: 10 bad, 10 with another label, 10 good" in page.inner_text("#count")


def test_one_file_without_a_server(tmp_path: Path, opened: Callable[[str], Any]) -> None:
    path = listed(tmp_path)
    target = tmp_path / "page.html"
    result = CliRunner().invoke(app, ["review", str(path), "--static", str(target)])
    assert result.exit_code == 0, result.output
    page = opened(target.as_uri())
    page.keyboard.press("b")
    page.keyboard.press("s")
    page.close()
    page = opened(target.as_uri())
    assert "3 of 12 decided" in page.inner_text("#count")
    with page.expect_download() as waiting:
        page.click("#download")
    assert waiting.value.suggested_filename == "suspects.reviewed.csv"
    waiting.value.save_as(tmp_path / "down.csv")
    assert decided(tmp_path / "down.csv") == {
        "0": ("True", ""),
        "1": ("True", CLASSES[2]),
        "11": ("True", ""),
    }
