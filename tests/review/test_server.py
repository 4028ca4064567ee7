from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from reviewing import listed, server

from expunge.review.page import ReviewServer


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[ReviewServer]:
    with server(listed(tmp_path)) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def ask(serving: ReviewServer, way: str, body: object = None, **headers: str) -> tuple[int, bytes]:
    connection = HTTPConnection("127.0.0.1", serving.server_port, timeout=10)
    method = "GET" if body is None else "POST"
    connection.request(method, way, None if body is None else json.dumps(body), headers)
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found


def test_the_page_pictures_and_decisions(serving: ReviewServer) -> None:
    home = f"/{serving.secret}/"
    status, page = ask(serving, home)
    assert status == 200
    assert b"</script><b>cat" not in page
    assert ask(serving, f"{home}picture/3")[1].startswith(b"\x89PNG")
    assert ask(serving, f"{home}picture/29")[0] == 200  # a neighbour
    assert ask(serving, f"{home}decide", {"index": 3, "verdict": "bad", "label": 1}) == (200, b"{}")
    assert serving.page.decisions.path.read_text(encoding="utf-8").splitlines()[1] == "3,3.png,True,ant,bee"
    assert b'"3":["bad",1]' in ask(serving, home)[1]


def test_nobody_else_is_answered(serving: ReviewServer) -> None:
    home = f"/{serving.secret}/"
    decision = {"index": 3, "verdict": "bad", "label": None}
    assert ask(serving, "/")[0] == 404
    assert ask(serving, "/guess/")[0] == 404
    assert ask(serving, f"{home}picture/20")[0] == 404  # neither a suspect nor a neighbour
    assert ask(serving, f"{home}../data.npz")[0] == 404
    assert ask(serving, home, Host="elsewhere.example")[0] == 404
    assert ask(serving, f"{home}decide", decision, Origin="http://elsewhere.example")[0] == 404
    assert ask(serving, f"{home}decide", decision | {"index": 29})[0] == 400
    assert ask(serving, f"{home}decide", [])[0] == 400
    assert not serving.page.decisions.path.exists()


@pytest.mark.parametrize("ends", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_until_it_is_interrupted(tmp_path: Path, ends: signal.Signals) -> None:
    path = listed(tmp_path)
    command = [sys.executable, "-u", "-m", "expunge", "review", str(path), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout is not None
            address = running.stdout.readline().split()[-1]
            with urlopen(address, timeout=60) as answer:
                assert b"suspects.csv" in answer.read()
            asked = Request(
                f"{address}decide", json.dumps({"index": 0, "verdict": "bad", "label": None}).encode()
            )
            with urlopen(asked, timeout=60) as answer:
                assert answer.read() == b"{}"
        finally:
            running.send_signal(ends)
            try:
                running.wait(60)
            except subprocess.TimeoutExpired:
                running.kill()
        said = running.stdout.read()
    assert running.returncode == 0
    assert "2 of 12 decided, 2 of them bad" in said
    assert f"expunge clean --forget {path.with_suffix('.reviewed.csv')}" in said
