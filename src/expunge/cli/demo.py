"""``expunge demo``: the whole way in a minute."""

from __future__ import annotations

import os
import sys
import webbrowser
from pathlib import Path

import typer
from rich.markup import escape

from expunge.cli.screen import Screen, with_progress


def demo_command(
    out: Path = typer.Option(Path("demo"), help="Folder of the results; it must be new or empty."),
    seed: int = typer.Option(0, help="Of everything random."),
    browser: bool = typer.Option(True, help="Open the page in a browser."),
) -> None:
    """Damage a small model, find out how, repair it and show before and after. A minute; no data, no network.

    Handwritten digits that come with scikit-learn get wrong labels and a trigger, and a network is trained on them.
    Then the commands find, clean and audit do their work on the files, and OUT/demo.html shows what came of it.
    """
    console = Screen()

    from expunge.repair.demo import demo_page, run_demo
    from expunge.store.atomic import write_atomically

    folder = out.expanduser()
    demo = with_progress(
        console, lambda report: run_demo(folder, seed, report), f"interrupted; {out} is incomplete"
    )
    page = folder.absolute() / "demo.html"
    write_atomically(page, demo_page(demo).encode())
    took = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in demo.seconds.items())
    console.print(f"{escape(demo.audit.audit.verdict.grade)} ({took})")
    console.plain(f"wrote {page}")
    if browser and _has_screen():
        webbrowser.open(page.as_uri())


def _has_screen() -> bool:
    """Tell whether somebody sits before a desktop; elsewhere a text browser would take the terminal."""
    if not sys.stdout.isatty():
        return False
    return sys.platform in ("darwin", "win32") or bool(
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )
