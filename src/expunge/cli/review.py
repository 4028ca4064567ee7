"""``expunge review``: look through a list of suspects, and decide."""

from __future__ import annotations

import signal
import webbrowser
from pathlib import Path

import typer

from expunge.cli.screen import Screen
from expunge.errors import InvalidInput


def review_command(
    suspects: Path = typer.Argument(..., help="The list that 'expunge find' wrote."),
    data: str | None = typer.Option(None, help="The training data, if it has moved since."),
    out: Path | None = typer.Option(
        None, help="Where decisions are kept, for 'clean --forget'; by default SUSPECTS.reviewed.csv."
    ),
    static: Path | None = typer.Option(
        None, help="Write one .html file that needs no server, in place of opening the page."
    ),
    port: int = typer.Option(0, help="Of the page; by default a free one."),
    browser: bool = typer.Option(True, help="Open the page in a browser."),
) -> None:
    """Look through a list of suspects, worst first, and decide by keys: bad, good, other label.

    Each decision is written at once; close the page and end the command with Ctrl-C whenever you like, the same command
    goes on from there. The page is served by this machine to this machine alone.
    """
    from expunge.review.decisions import Decisions
    from expunge.review.display import Display
    from expunge.review.listing import load_data, read_summary, read_suspects
    from expunge.review.page import ReviewPage, ReviewServer
    from expunge.store.atomic import write_output

    console = Screen()
    if static is not None and static.suffix != ".html":
        raise InvalidInput(f"--static: expected an .html file, got {static}")
    summary = read_summary(suspects)
    loaded = load_data(summary, data)
    listed = read_suspects(suspects, loaded)
    decisions = Decisions(out or suspects.with_suffix(".reviewed.csv"), listed, loaded.classes)
    reading = summary["reading"]
    display = Display(loaded, tuple(reading.get("inputs") or ()), reading.get("tokenizer"))
    page = ReviewPage(listed, display, decisions, suspects.name)
    if static is not None:
        path = write_output(static, page.static().encode(), "the page")
        console.plain(f"wrote {path} ({path.stat().st_size / 2**20:.1f} MB)")
        return
    # A shell's background job begins with Ctrl-C ignored; kill ends it as well.
    for ends in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ends, signal.default_int_handler)
    with ReviewServer(page, port) as server:
        console.plain(
            f"{len(listed):,} suspects, {len(decisions.taken):,} of them decided, at {server.address}\n"
            "Ctrl-C ends it; what is decided is kept"
        )
        if browser:
            webbrowser.open(server.address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            bad = sum(decision.verdict == "bad" for decision in decisions.taken.values())
            console.print(f"\n{len(decisions.taken):,} of {len(listed):,} decided, {bad:,} of them bad")
    if decisions.path.exists():
        console.plain(
            f"then: expunge clean --forget {decisions.path} ... (--truth {decisions.path} learns the labels you gave)"
        )
