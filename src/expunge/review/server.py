"""A server of the page for this machine alone."""

from __future__ import annotations

import json
import secrets
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from expunge.errors import ExpungeError
from expunge.review.decisions import Decisions
from expunge.review.display import Display
from expunge.review.page import served_page

_LONGEST = 10_000
"""Bytes of a request: a decision has some fifty."""


class ReviewServer(ThreadingHTTPServer):
    """Serves the page on 127.0.0.1, under an address that other pages and users cannot guess.

    Args:
        found: what the page shows, see :func:`expunge.review.page.contents`.
        display: shows rows.
        decisions: takes decisions.
        port: 0 for a free one.
    """

    daemon_threads = True

    def __init__(self, found: dict[str, Any], display: Display, decisions: Decisions, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.found, self.display, self.decisions = found, display, decisions
        self.secret = secrets.token_urlsafe(16)
        self.lock = threading.Lock()
        self.rows = {suspect["index"] for suspect in found["suspects"]}
        self.rows |= {near["index"] for suspect in found["suspects"] for near in suspect["nearest"]}

    @property
    def address(self) -> str:
        """Where the page is."""
        return f"http://127.0.0.1:{self.server_port}/{self.secret}/"

    def page(self) -> bytes:
        """Return the page with what is decided so far."""
        taken = {str(index): list(decision) for index, decision in self.decisions.taken.items()}
        return served_page(self.found | {"decisions": taken}).encode()


class _Handler(BaseHTTPRequestHandler):
    server: ReviewServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        asked = self._asked()
        kind, _, row = (asked or "").partition("/")
        if asked == "":
            self._answer(self.server.page(), "text/html; charset=utf-8")
        elif kind in ("picture", "text") and row.isdecimal() and int(row) in self.server.rows:
            with self.server.lock:  # a source may read one file at a time
                if kind == "picture":
                    self._answer(self.server.display.picture(int(row)), "image/png")
                else:
                    self._answer(self.server.display.text(int(row)).encode(), "text/plain; charset=utf-8")
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
                self.server.decisions.decide(said["index"], said["verdict"], said["label"])
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
