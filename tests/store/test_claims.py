from __future__ import annotations

import dataclasses
import multiprocessing
import os
import socket
import threading
import time
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from expunge.store import owner as owner_module
from expunge.store.claims import Claims
from expunge.store.database import Database
from expunge.store.owner import Owner
from expunge.store.record import Record
from expunge.store.schema import CLAIMS
from postgresql_server import Server

SPAWN = multiprocessing.get_context("spawn")
KEY, OTHER = "a" * 32, "b" * 32


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'a.sqlite'}"
    server: Server = request.getfixturevalue("empty_postgresql")
    return server.url


@pytest.fixture
def database(url: str) -> Any:
    with Database(url) as made:
        yield made


def held(database: Database) -> dict[str, str]:
    rows = database.transact(
        "read", lambda connection: connection.execute(select(CLAIMS.c.key, CLAIMS.c.owner)).all()
    )
    return {row.key: row.owner for row in rows}


def away(database: Database, **options: Any) -> Claims:
    """Claims of a coordinator on another machine."""
    made = Claims(database, **options)
    made.owner = dataclasses.replace(Owner.this(), host="away").text()
    return made


def test_one_holder_at_a_time(database: Database) -> None:
    first, second = Claims(database), Claims(database)
    assert first.take(KEY)
    assert first.take(KEY)  # once more is a renewal
    assert not second.take(KEY)
    assert second.take(OTHER)
    second.release(KEY)  # not its own
    assert held(database) == {KEY: first.owner, OTHER: second.owner}
    name = f"process {os.getpid()} on {socket.gethostname()}"
    assert second.holders([KEY, OTHER]) == [name]
    assert second.holders([OTHER]) == []
    first.release(KEY)
    assert second.take(KEY)


def test_a_claim_ends_with_the_record(database: Database) -> None:
    record = Record(key=KEY, status="failed", data="d", model="m", method="npo", seed=0)
    claims, other = Claims(database), Claims(database)
    assert claims.take(KEY)
    assert claims.take(OTHER)
    database.add(record, owner=other.owner)
    assert held(database).keys() == {KEY, OTHER}
    database.add(record, owner=claims.owner)
    assert held(database).keys() == {OTHER}


def test_a_claim_that_is_not_renewed_expires(database: Database) -> None:
    dead, mine = away(database, lease=0.3), Claims(database)
    assert dead.take(KEY)
    assert dead.take(OTHER)
    assert not mine.take(KEY)
    time.sleep(0.2)
    dead.renew()
    time.sleep(0.2)
    assert not mine.take(KEY)
    time.sleep(0.2)
    assert mine.take(KEY)
    dead.renew()  # too late for the one, not for the other
    assert held(database) == {KEY: mine.owner, OTHER: dead.owner}
    assert not mine.take(OTHER)


def test_claims_are_renewed_by_themselves_and_end_with_the_context(database: Database) -> None:
    assert away(database, lease=0.1).take(OTHER)  # by one that dies, and nobody needs it
    with away(database, lease=0.8) as claims:
        assert claims.take(KEY)
        time.sleep(1.5)
        assert not Claims(database).take(KEY)
    assert held(database) == {}


def test_a_closed_database_hides_no_other_error(tmp_path: Path) -> None:
    def work() -> None:
        with Database(tmp_path / "a.sqlite") as database, Claims(database) as claims:
            claims.take(KEY)
            database.close()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()


def take_and_wait(url: str, taken: Event) -> None:
    with Database(url) as database:
        assert Claims(database).take(KEY)
        taken.set()
        time.sleep(60)


def test_a_killed_process_of_this_host_loses_its_claims_at_once(url: str, database: Database) -> None:
    taken = SPAWN.Event()
    process = SPAWN.Process(target=take_and_wait, args=(url, taken))
    process.start()
    assert taken.wait(60)
    claims = Claims(database)
    assert not claims.take(KEY)
    process.kill()
    # before anybody has looked at its exit code: the system still lists it
    deadline = time.monotonic() + 5
    while not claims.take(KEY):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.join(60)
    assert held(database) == {KEY: claims.owner}


def take_all(url: str, start: Barrier, queue: Any) -> None:
    with Database(url) as database:
        claims = Claims(database)
        start.wait(60)
        queue.put([number for number in range(100) if claims.take(f"{number:032x}")])
        # a process that ends gives up what it holds: none may before all have asked for every key
        start.wait(60)


def test_of_many_at_once_one_gets_each_key(url: str, database: Database) -> None:
    # left by a process that is gone: each must be taken over once as well
    gone = Claims(database)
    gone.owner = dataclasses.replace(Owner.this(), started="1").text()
    for number in range(0, 100, 2):
        assert gone.take(f"{number:032x}")
    start, queue = SPAWN.Barrier(3), SPAWN.Queue()
    workers = [SPAWN.Process(target=take_all, args=(url, start, queue)) for _ in range(3)]
    for worker in workers:
        worker.start()
    taken = [number for _ in workers for number in queue.get(timeout=120)]
    for worker in workers:
        worker.join(60)
    assert sorted(taken) == list(range(100))


def test_threads_share_one_database(database: Database) -> None:
    taken: list[list[int]] = [[], []]

    def take(mine: list[int]) -> None:
        claims = Claims(database)
        mine.extend(number for number in range(50) if claims.take(f"{number:032x}"))

    threads = [threading.Thread(target=take, args=(mine,)) for mine in taken]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken[0] + taken[1]) == list(range(50))


# --- owners --------------------------------------------------------------------------------------------


def test_owner_as_text() -> None:
    this = Owner.this()
    assert Owner.parse(this.text()) == this
    assert Owner.this() != this
    for text in ("", "{}", "[]", "3", "nonsense", '{"host": "a"}'):
        assert Owner.parse(text) is None
    assert str(this) == f"process {os.getpid()} on {socket.gethostname()}"


@pytest.mark.skipif(os.name != "posix", reason="elsewhere no process is known to be gone")
def test_who_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    this = Owner.this()
    assert not this.is_gone()
    ended = SPAWN.Process(target=int)
    ended.start()
    pid = ended.pid
    assert pid is not None
    ended.join(60)
    gone = dataclasses.replace(this, pid=pid)
    assert gone.is_gone()
    for elsewhere in ({"host": "away"}, {"system": "another boot"}):
        assert not dataclasses.replace(gone, **elsewhere).is_gone()
    assert not dataclasses.replace(this, pid=1, started=owner_module._started(1) or "").is_gone()
    if Path("/proc/self/stat").exists():
        # the number was given to another process
        assert dataclasses.replace(this, started="1").is_gone()
    # a system that tells no start times
    monkeypatch.setattr(owner_module, "_started", lambda pid: None)
    assert not dataclasses.replace(this, started="").is_gone()
    assert gone.is_gone()
