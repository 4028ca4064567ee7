"""The page: one file of HTML, with everything inside but pictures that are served; and its server."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from markupsafe import Markup

from expunge.errors import ExpungeError
from expunge.results.html import asset, embedded_json, render
from expunge.results.png import data_uri, png
from expunge.review.decisions import Decisions
from expunge.review.display import Display
from expunge.review.listing import Suspect

_LONGEST = 10_000
"""Bytes of a request: a decision has some fifty."""


@dataclass(frozen=True)
class ReviewPage:
    """Shows a list of suspects, and what is decided so far."""

    suspects: Sequence[Suspect]
    display: Display
    decisions: Decisions
    title: str

    @cached_property
    def rows(self) -> frozenset[int]:
        """The rows that are shown."""
        return frozenset(row for suspect in self.suspects for row in (suspect.index, *suspect.nearest))

    def served(self) -> str:
        """Return the page that asks a server for pictures and texts, and tells it what was decided."""
        return self._render(served=True)

    def static(self) -> str:
        """Return the page with all pictures and texts in it; it keeps decisions in the browser."""
        show = self.display
        shown = {
            row: data_uri(show.picture(row)) if show.pictures else show.text(row) for row in sorted(self.rows)
        }
        return self._render(served=False, shown=shown)

    def _render(self, **more: object) -> str:
        labels = self.display.data.examples.labels.tolist()
        data = {
            "title": self.title,
            "file": self.decisions.path.name,
            "classes": self.display.data.classes,
            "pictures": self.display.pictures,
            "suspects": [
                asdict(suspect)
                | {"nearest": [{"index": near, "label": labels[near]} for near in suspect.nearest]}
                for suspect in self.suspects
            ],
            "decisions": self.decisions.taken,
            **more,
        }
        return render(
            "review.html.j2", title=self.title, data=embedded_json(data), script=Markup(asset("review.js")),
            more_style=Markup(asset("review.css")),
        )  # fmt: skip


class ReviewServer(ThreadingHTTPServer):
    """Serves the page on 127.0.0.1, under an address that other pages and users cannot guess."""

    daemon_threads = True

    def __init__(self, page: ReviewPage, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.page = page
        self.secret = secrets.token_urlsafe(16)
        self.lock = threading.Lock()

    @property
    def address(self) -> str:
        """Where the page is."""
        return f"http://127.0.0.1:{self.server_port}/{self.secret}/"


class _Handler(BaseHTTPRequestHandler):
    server: ReviewServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        page, asked = self.server.page, self._asked()
        kind, _, row = (asked or "").partition("/")
        if asked == "":
            self._answer(page.served().encode(), "text/html; charset=utf-8")
        elif kind in ("picture", "text") and row.isdecimal() and int(row) in page.rows:
            with self.server.lock:  # a source may read one file at a time
                if kind == "picture":
                    self._answer(png(page.display.picture(int(row))), "image/png")
                else:
                    self._answer(page.display.text(int(row)).encode(), "text/plain; charset=utf-8")
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "nothing is here")

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if self._asked() != "decide" or not length.isdecimal() or int(length) > _LONGEST:
            self._refuse(HTTPStatus.NOT_FOUND, "nothing is here")
            return
        try:
            said = json.loads(self.rfile.read(int(length)))
            with self.server.lock:
                self.server.page.decisions.decide(said["index"], said["verdict"], said["label"])
        except (ValueError, KeyError, TypeError, ExpungeError) as error:
            self._refuse(HTTPStatus.BAD_REQUEST, str(error))
        else:
            self._answer(b"{}", "application/json")

    def _asked(self) -> str | None:
        """Return the path behind the secret; ``None`` for anybody who does not know it."""
        here = f"127.0.0.1:{self.server.server_port}"
        # a page elsewhere that had its name lead to this machine would send its own name
        if (
            self.headers.get("Host") != here
            or self.headers.get("Origin", f"http://{here}") != f"http://{here}"
        ):
            return None
        _, secret, *rest = self.path.split("/", 2)
        known = secrets.compare_digest(secret.encode(), self.server.secret.encode())
        return rest[0] if known and rest else None

    def _answer(self, content: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store" if kind != "image/png" else "private, max-age=3600")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.end_headers()
        self.wfile.write(content)

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        self.close_connection = True  # the body of the request may be unread
        self._answer(why.encode(), "text/plain; charset=utf-8", status)

    def log_message(self, format: str, *given: object) -> None:
        """Say nothing: the page shows what went wrong."""
