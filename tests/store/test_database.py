from __future__ import annotations

import errno
import json
import multiprocessing
import sqlite3
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy.event
import sqlalchemy.exc

from expunge.errors import StoreError
from expunge.results.tables import write_csv
from expunge.store import database as module
from expunge.store import schema, sqlite
from expunge.store.claims import Claims
from expunge.store.database import Database
from expunge.store.record import KINDS, REQUIRED, SCHEMA_VERSION, Record

SPAWN = multiprocessing.get_context("spawn")


def make(number: int = 0, **changed: Any) -> Record:
    values: dict[str, Any] = {
        "key": f"{number:032x}",
        "status": "done",
        "data": "digits",
        "regularity": 0.5,
        "discovery": 0.1,
        "model": "resnet9",
        "method": "rem",
        "seed": number,
        "data_seed": 2**63 - 1 - number,
        "healed": 0.1,
        "per_class": [None, number / 7 % 1],
        "settings": {"rate": 0.1, "name": "ü"},
        "log": [{"step": float(step), "loss": (number + step) / 3} for step in range(50)],
        "provenance": {"torch": "2"},
    }
    return Record(**(values | changed))


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_add_get_and_reopen(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "store.sqlite"
    records = [make(0), make(1, status="failed", error="diverged", healed=None), make(2, oracle=True)]
    with Database(path) as database:
        assert database.get(records[0].key) is None
        assert database.keys() == set()
        for record in records:
            database.add(record)
        assert [database.get(record.key) for record in records] == records
    with Database(str(path)) as database:
        assert database.records() == records
        assert database.keys() == {record.key for record in records}
        assert database.keys("failed") == {records[1].key}
        assert database.keys("skipped") == set()


def test_columns_are_real_and_version_is_kept(tmp_path: Path) -> None:
    with Database(tmp_path / "a.sqlite") as database:
        database.add(make(5))
    connection = sqlite3.connect(tmp_path / "a.sqlite")
    columns = {row[1]: row[2] for row in connection.execute("PRAGMA table_info(records)")}
    assert list(columns) == list(KINDS)
    assert (columns["healed"], columns["data_seed"], columns["log"]) == ("DOUBLE", "BIGINT", "JSON")
    assert connection.execute("SELECT data_seed, healed FROM records").fetchone() == (2**63 - 6, 0.1)
    assert connection.execute("SELECT * FROM meta").fetchall() == [("schema_version", str(SCHEMA_VERSION))]
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_grids_are_kept_once_and_survive(tmp_path: Path) -> None:
    with Database(tmp_path / "a.sqlite") as database:
        assert database.grids() == []
        for text in ("run = ['rem']\n", "run = ['npo']\n", "run = ['rem']\n"):
            database.add_grid(text)
    with Database(tmp_path / "a.sqlite") as database:
        assert database.grids() == ["run = ['npo']\n", "run = ['rem']\n"]
        assert database.records() == []


def test_a_store_of_the_same_schema_without_grids_still_reads(tmp_path: Path) -> None:
    with Database(tmp_path / "a.sqlite") as database:
        database.add(make())
    connection = sqlite3.connect(tmp_path / "a.sqlite")
    assert [name for (name,) in connection.execute("SELECT name FROM meta")] == ["schema_version"]
    connection.close()
    with Database(tmp_path / "a.sqlite") as database:
        assert (database.records(), database.grids()) == ([make()], [])


def test_url_and_strange_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Database(f"sqlite:///{tmp_path / 'b.sqlite'}") as database:
        database.add(make())
        with Database(tmp_path / "b.sqlite") as same:
            assert same.records() == [make()]
    monkeypatch.chdir(tmp_path)
    with Database(":memory:"):
        assert (tmp_path / ":memory:").is_file()


def test_done_is_never_replaced(tmp_path: Path) -> None:
    with Database(tmp_path / "a.sqlite") as database:
        database.add(make(1))
        for again in (make(1), make(1, healed=0.9), make(1, status="failed")):
            with pytest.raises(
                StoreError, match=r"is done already in .*a\.sqlite and is never replaced; look"
            ):
                database.add(again)
        assert database.records() == [make(1)]


def test_failed_and_skipped_are_replaced(tmp_path: Path) -> None:
    steps = [
        make(1, status="failed", error="out of memory"),
        make(1, status="skipped", error="no such device"),
        make(1, status="failed", error="again"),
        make(1),
    ]
    with Database(tmp_path / "a.sqlite") as database:
        database.add(make(2, status="failed"))
        for step in steps:
            database.add(step)
            assert database.get(step.key) == step
        assert database.records() == [make(1), make(2, status="failed")]


def test_order_and_selection(tmp_path: Path) -> None:
    grid = [
        (method, regularity, discovery, seed)
        for method in ("npo", "rem", "rem_ideal")
        for regularity in (0.0, 0.5, 1.0)
        for discovery in (0.1, 1.0)
        for seed in (2, 10)
    ]
    records = [
        make(number, method=method, regularity=regularity, discovery=discovery, seed=seed, healed=None)
        for number, (method, regularity, discovery, seed) in enumerate(grid)
    ]
    with Database(tmp_path / "a.sqlite") as database:
        for record in reversed(records):
            database.add(record)
        assert database.records() == records
        assert database.records("done") == records
        assert database.records("failed") == []


def test_closed(tmp_path: Path) -> None:
    database = Database(tmp_path / "a.sqlite")
    database.close()
    database.close()
    with pytest.raises(StoreError, match=r"a\.sqlite is closed; open it again"):
        database.keys()


# --- several processes ---------------------------------------------------------------------------------


def add_range(path: Path, numbers: range, start: Barrier) -> None:
    start.wait(60)
    with Database(path) as database:
        for number in numbers:
            database.add(make(number))


def test_two_processes_add_different_keys(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    start = SPAWN.Barrier(2)
    workers = [
        SPAWN.Process(target=add_range, args=(path, numbers, start)) for numbers in (range(40), range(40, 80))
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0]
    with Database(path) as database:
        assert database.records() == [make(number) for number in range(80)]


def add_same(path: Path, count: int, mine: float, start: Barrier, queue: Any) -> None:
    won = []
    with Database(path) as database:
        start.wait(60)
        for number in range(count):
            try:
                database.add(make(number, healed=mine))
                won.append(number)
            except StoreError as error:
                if "is done already" not in str(error):
                    raise
    queue.put((mine, won))


def test_two_processes_add_the_same_keys(tmp_path: Path) -> None:
    path, count = tmp_path / "a.sqlite", 40
    with Database(path) as database:
        for number in range(0, count, 2):
            database.add(make(number, status="failed"))
    start, queue = SPAWN.Barrier(2), SPAWN.Queue()
    workers = [
        SPAWN.Process(target=add_same, args=(path, count, mine, start, queue)) for mine in (0.25, 0.75)
    ]
    for worker in workers:
        worker.start()
    won = dict(queue.get(timeout=120) for _ in workers)
    for worker in workers:
        worker.join(60)
    assert sorted(won[0.25] + won[0.75]) == list(range(count))
    with Database(path) as database:
        found = database.records()
    for mine in (0.25, 0.75):
        expected = [make(number, healed=mine) for number in won[mine]]
        assert [record for record in found if record.healed == mine] == expected


def add_until_killed(path: Path, sender: Any) -> None:
    with Database(path) as database:
        for number in range(10**9):
            database.add(make(number))
            sender.send(number)


def test_killed_while_adding(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    receiver, sender = SPAWN.Pipe(duplex=False)
    worker = SPAWN.Process(target=add_until_killed, args=(path, sender))
    worker.start()
    sender.close()
    assert receiver.poll(60)
    while receiver.recv() < 30:
        pass
    worker.kill()
    worker.join(60)
    assert worker.exitcode == -9
    acknowledged = 30
    try:
        while receiver.poll():
            acknowledged = receiver.recv()
    except EOFError:
        pass
    with Database(path) as database:
        records = database.records()
        assert records == [make(number) for number in range(len(records))]
        # Nothing that add() returned for is lost; the one under way may be there or not.
        assert len(records) - (acknowledged + 1) in (0, 1)
        database.add(make(10**6))
        assert len(database.keys()) == len(records) + 1


@pytest.mark.parametrize("replaced", [False, True])
def test_a_file_that_is_deleted_or_replaced_in_use(tmp_path: Path, replaced: bool) -> None:
    path = tmp_path / "a.sqlite"
    with Database(path) as database:
        database.add(make(1))
        for file in tmp_path.glob("a.sqlite*"):
            file.unlink()
        if replaced:
            Database(path).close()
        with pytest.raises(
            StoreError, match=r"a\.sqlite was deleted or replaced while it was in use; .* are in"
        ):
            database.add(make(2))
    (kept,) = tmp_path.glob("a.kept-*.sqlite")
    with Database(kept) as rescued:
        assert rescued.records() == [make(1)]


def test_another_writer_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        sqlite, "configure", lambda connection, _: connection.execute("PRAGMA busy_timeout = 50")
    )
    with Database(tmp_path / "a.sqlite", patience=0.3) as database:
        other = sqlite3.connect(tmp_path / "a.sqlite", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        started = time.monotonic()
        with pytest.raises(
            StoreError, match=r"cannot be written: database is locked; check .*keeps it locked"
        ):
            database.add(make())
        assert time.monotonic() - started >= 0.15
        assert "waiting: the database" in capsys.readouterr().err
        other.execute("ROLLBACK")
        other.close()
        database.add(make())
        assert database.records() == [make()]


# --- damage --------------------------------------------------------------------------------------------


@pytest.fixture
def whole(tmp_path: Path) -> bytes:
    with Database(tmp_path / "whole.sqlite") as database:
        for number in range(60):
            database.add(make(number))
    assert snapshot(tmp_path).keys() == {"whole.sqlite"}
    return (tmp_path / "whole.sqlite").read_bytes()


def read(path: Path) -> list[Record]:
    with Database(path) as database:
        return database.records()


def test_garbage(tmp_path: Path, whole: bytes) -> None:
    garbage = np.random.default_rng(0).bytes(len(whole))
    contents = [
        garbage,
        b"x",
        b"not a database\n" * 100,
        whole[:4096] + garbage[4096:],
        whole[:100] + garbage[100:],
    ]
    for number, content in enumerate(contents):
        path = tmp_path / str(number) / "bad.sqlite"
        path.parent.mkdir()
        path.write_bytes(content)
        with pytest.raises(
            StoreError, match=r"bad\.sqlite is damaged or not a database \(.+\); move it away, .*copy"
        ):
            read(path)
        assert path.read_bytes() == content


def test_truncation_at_any_length(tmp_path: Path, whole: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "CREATION_SECONDS", 0.0)
    lengths = [
        0,
        1,
        16,
        99,
        100,
        512,
        4095,
        *range(4096, len(whole), 8192),
        len(whole) - 4096,
        len(whole) - 1,
    ]
    for length in lengths:
        path = tmp_path / f"cut{length}.sqlite"
        path.write_bytes(whole[:length])
        with pytest.raises(StoreError, match=rf"cut{length}\.sqlite is damaged or not a database"):
            read(path)
        assert path.read_bytes() == whole[:length]


def test_damaged_value(tmp_path: Path, whole: bytes) -> None:
    path = tmp_path / "whole.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE records SET log = '[{' WHERE seed = 7")
    connection.close()
    with pytest.raises(StoreError, match=r"whole\.sqlite is damaged or not a database"):
        read(path)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE records SET log = '[3]' WHERE seed = 7")
    connection.close()
    with pytest.raises(StoreError, match=rf"whole\.sqlite: record '{7:032x}' is damaged: log must be"):
        read(path)


def test_unfinished_log_is_not_taken_for_a_cut_file(tmp_path: Path) -> None:
    with Database(tmp_path / "a.sqlite") as database:
        database.add(make())
        assert (tmp_path / "a.sqlite-wal").exists()
        # Copied while in use, as after a crash: the records are in the log still.
        (tmp_path / "copy").mkdir()
        for path in tmp_path.glob("a.sqlite*"):
            (tmp_path / "copy" / path.name).write_bytes(path.read_bytes())
    # A kill while the log was being merged: the main file ends within a page.
    with (tmp_path / "copy" / "a.sqlite").open("ab") as file:
        file.write(bytes(1000))
    assert read(tmp_path / "copy" / "a.sqlite") == [make()]


def test_cut_within_the_last_page_is_seen_on_opening(tmp_path: Path, whole: bytes) -> None:
    # SQLite itself would fill the page with zeros.
    (tmp_path / "cut.sqlite").write_bytes(whole[:-1])
    with pytest.raises(
        StoreError, match=rf"\({len(whole) - 1} bytes are no whole number of pages; the file was cut"
    ):
        Database(tmp_path / "cut.sqlite")


def test_interrupted_creation_leaves_no_half_made_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upgrade = schema.upgrade

    def stop(connection: Any, database: str) -> None:
        upgrade(connection, database)
        raise OSError("stopped")

    with monkeypatch.context() as patched:
        patched.setattr(schema, "upgrade", stop)
        with pytest.raises(StoreError, match=r"a\.sqlite cannot be opened: stopped; check"):
            Database(tmp_path / "a.sqlite")
    connection = sqlite3.connect(tmp_path / "a.sqlite")
    assert connection.execute("SELECT name FROM sqlite_master").fetchall() == []
    connection.close()
    assert read(tmp_path / "a.sqlite") == []


# --- schemas -------------------------------------------------------------------------------------------


def old_table(path: Path, names: list[str], rows: list[Record], extra: str = "") -> None:
    connection = sqlite3.connect(path)
    connection.execute(f"CREATE TABLE records ({', '.join(names)}{extra}, PRIMARY KEY (key))")
    for record in rows:
        row = record.to_row()
        values = [json.dumps(row[name]) if KINDS[name] == "json" else row[name] for name in names]
        marks = ", ".join("?" * len(names))
        connection.execute(f"INSERT INTO records ({', '.join(names)}) VALUES ({marks})", values)
    connection.commit()
    connection.close()


def test_older_schema_reads_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite"
    names = [*REQUIRED, "schema", "settings", "healed"]
    old = make(1, schema=0)
    old_table(path, names, [old], extra=", temperature DEFAULT 3")
    expected = Record(**{name: getattr(old, name) for name in names})
    assert (expected.log, expected.data_seed) == ([], 0)
    for added in ([], [make(2)]):
        with Database(path) as database:
            assert database.records() == [expected]
            for record in added:
                database.add(record)
    assert read(path) == [expected, make(2)]
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT value FROM meta").fetchall() == [(str(SCHEMA_VERSION),)]
        assert connection.execute("SELECT temperature FROM records WHERE seed = 1").fetchone() == (3,)
    connection.close()


def set_version(path: Path, value: str) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE meta SET value = ?", (value,))
    connection.close()


def test_older_version_number_is_raised(tmp_path: Path, whole: bytes) -> None:
    set_version(tmp_path / "whole.sqlite", "0")
    assert len(read(tmp_path / "whole.sqlite")) == 60
    with sqlite3.connect(tmp_path / "whole.sqlite") as connection:
        assert connection.execute("SELECT value FROM meta").fetchall() == [(str(SCHEMA_VERSION),)]
    connection.close()


def test_newer_schema_is_refused(tmp_path: Path, whole: bytes) -> None:
    path = tmp_path / "whole.sqlite"
    set_version(path, str(SCHEMA_VERSION + 1))
    with pytest.raises(
        StoreError, match=r"whole\.sqlite has schema 5, this expunge reads up to 4; upgrade expunge"
    ):
        Database(path)
    set_version(path, str(SCHEMA_VERSION))
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE records SET schema = 5 WHERE seed = 3")
    connection.close()
    with pytest.raises(StoreError, match=r"whole\.sqlite: record .* has schema 5, .*; upgrade expunge"):
        read(path)


def test_schema_1_demanded_a_place_on_the_map_and_no_longer_does(tmp_path: Path, whole: bytes) -> None:
    path = tmp_path / "whole.sqlite"
    with sqlite3.connect(path) as connection:
        sql = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'records'").fetchone()[0]
        strict = sql.replace("regularity DOUBLE", "regularity DOUBLE NOT NULL")
        assert strict != sql
        connection.execute("ALTER TABLE records RENAME TO loose")
        connection.execute(strict)
        connection.execute("INSERT INTO records SELECT * FROM loose")
        connection.execute("DROP TABLE loose")
    connection.close()
    set_version(path, "1")
    before = len(read(path))
    with Database(path) as database:
        database.add(make(1, task="classes", regularity=None, discovery=None, key="f" * 32))
        assert len(database.records()) == before + 1 > 1
        assert database.get("f" * 32).regularity is None


def test_schema_3_had_an_entry_for_what_stands_beside_a_number(tmp_path: Path) -> None:
    path, csv = tmp_path / "old.sqlite", tmp_path / "results.csv"
    now = {
        "js": {"value": 0.3, "retrained": 0.1, "floor": 0.02, "oracle": None},
        "kl_to_retrained": {"value": 0.7},
    }
    then = {
        "js": 0.3, "js_retrained": 0.1, "js_floor": 0.02, "js_oracle": None, "kl_to_retrained": 0.7,
    }  # fmt: skip
    with Database(path) as database:
        database.add(make(1, metrics=now))
    write_csv(read(path), csv)
    wanted = csv.read_text()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE records SET schema = 3, metrics = ?", (json.dumps(then),))
    connection.close()
    set_version(path, "3")
    (record,) = read(path)
    assert record == make(1, schema=3, metrics=now)
    assert record.flat_metrics() == then
    assert record.number("js") == 0.3
    # The file for spreadsheets has the columns it had.
    write_csv([record], csv)
    assert csv.read_text() == wanted
    assert {"js", "js_retrained", "js_floor", "js_oracle"} <= set(wanted.partition("\n")[0].split(","))


def test_schema_2_had_no_claims(tmp_path: Path, whole: bytes) -> None:
    path = tmp_path / "whole.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE claims")
        connection.execute("UPDATE records SET schema = 2")
    connection.close()
    set_version(path, "2")
    assert read(path) == [make(number, schema=2) for number in range(60)]
    with Database(path) as database:
        assert Claims(database).take("a")
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT value FROM meta").fetchall() == [(str(SCHEMA_VERSION),)]
    connection.close()


def test_other_peoples_tables(tmp_path: Path, whole: bytes) -> None:
    set_version(tmp_path / "whole.sqlite", "one")
    with pytest.raises(StoreError, match="names schema 'one' where a number was expected; restore a copy or"):
        Database(tmp_path / "whole.sqlite")
    old_table(tmp_path / "music.sqlite", ["key", "seed"], [])
    before = (tmp_path / "music.sqlite").read_bytes()
    with pytest.raises(
        StoreError, match=r"has a table 'records' without status, data.*: it is not one of expunge's"
    ):
        Database(tmp_path / "music.sqlite")
    connection = sqlite3.connect(tmp_path / "music.sqlite")
    assert connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall() == [
        ("records",)
    ]
    connection.close()
    assert len(before) == (tmp_path / "music.sqlite").stat().st_size


def test_refusal_that_is_not_about_the_key(tmp_path: Path) -> None:
    old_table(tmp_path / "a.sqlite", list(REQUIRED), [], extra=", needed NOT NULL")
    with Database(tmp_path / "a.sqlite") as database:
        with pytest.raises(
            StoreError, match=r"cannot be written: NOT NULL constraint failed: records\.needed; check"
        ):
            database.add(make())
        assert database.keys() == set()


# --- opening -------------------------------------------------------------------------------------------


def test_paths_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(
        StoreError, match=r"file/a\.sqlite cannot be opened: .*; check that it can be reached"
    ):
        Database(tmp_path / "file" / "a.sqlite")
    with pytest.raises(StoreError, match="cannot be opened: unable to open database file; check"):
        Database(tmp_path)
    with pytest.raises(StoreError, match="cannot be opened: unable to open database file; check"):
        Database(f"sqlite:///{tmp_path}/missing/a.sqlite")


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("nosuch://me:hush@host/x", r"nosuch://me:\*\*\*@host/x cannot be opened: Can't load plugin"),
        ("nosuch+hush://me:hush@host/x?token=hush", r"me:\*\*\*@host/x cannot be opened"),
        (
            "nosuch://me:hush@host:port/x",
            "URL that begins with 'nosuch' cannot be parsed; expected dialect://user",
        ),
        ("://me:hush@host/x", "URL that begins with '' cannot be parsed"),
    ],
)
def test_urls_that_cannot_be_opened(url: str, text: str) -> None:
    with pytest.raises(StoreError, match=text) as caught:
        Database(url)
    assert "hush@" not in str(caught.value)
    assert "=hush" not in str(caught.value)


def test_password_in_a_drivers_words_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise sqlalchemy.exc.ArgumentError("no entry for me with hush")

    monkeypatch.setattr(module, "create_engine", refuse)
    with pytest.raises(StoreError, match=r"cannot be opened: no entry for me with \*\*\*; check"):
        Database("postgresql://me:hush@host/x")


# --- a full disk and other faults -----------------------------------------------------------------------


def test_full_disk(tmp_path: Path) -> None:
    with Database(tmp_path / "a.sqlite") as database:
        database.add(make(0))
        limit = database.transact(
            "read", lambda connection: connection.exec_driver_sql("PRAGMA page_count").scalar()
        )

        def small(connection: sqlite3.Connection, *_: object) -> None:
            connection.execute(f"PRAGMA max_page_count = {limit}")

        sqlalchemy.event.listen(database._engine, "checkout", small)
        added = [0]

        def add_from(number: int) -> None:
            while True:
                database.add(make(number))
                added.append(number)
                number += 1

        with pytest.raises(
            StoreError, match=r"written: .* is full; its disk is full: free space, then give the same"
        ):
            add_from(1)
        sqlalchemy.event.remove(database._engine, "checkout", small)
        database._engine.dispose()
        assert database.records() == [make(number) for number in added]
        for number in range(len(added), len(added) + 50):
            database.add(make(number))
    assert len(read(tmp_path / "a.sqlite")) == len(added) + 50


def test_what_each_failure_asks_for() -> None:
    def failure(code: int = 0, state: str = "", text: str = "x") -> sqlalchemy.exc.OperationalError:
        cause = sqlite3.OperationalError(text) if code else OSError(text)
        if code:
            cause.sqlite_errorcode = code  # type: ignore[union-attr]
        elif state:
            cause.sqlstate = state  # type: ignore[attr-defined]
        return sqlalchemy.exc.OperationalError("SELECT", {}, cause)

    for error in (
        failure(sqlite3.SQLITE_FULL), failure(state="53100"), OSError(errno.ENOSPC, "full")
    ):  # fmt: skip
        assert "disk is full: free space" in module.advice(error)
        assert not module.is_lost(error)
    assert "its disk fails or is full" in module.advice(failure(sqlite3.SQLITE_IOERR))
    for state in ("08006", "57P01", "57P03", "53300", "40001", ""):
        assert module.is_lost(failure(state=state)), state
        assert module.advice(failure(state=state)).startswith("check that the server runs")
    for error in (failure(state="28P01"), failure(state="42P01"), failure(sqlite3.SQLITE_BUSY)):
        assert not module.is_lost(error)
        assert "no other program keeps it locked" in module.advice(error)
    assert not module.is_lost(None)
    assert module.is_damage(failure(sqlite3.SQLITE_CORRUPT))


def test_many_by_key(tmp_path: Path) -> None:
    with Database(tmp_path / "a.sqlite") as database:
        for number in range(3):
            database.add(make(number))
        found = database.get_many(f"{number:032x}" for number in range(1, 1200))
        assert found == {make(number).key: make(number) for number in (1, 2)}
        assert database.get_many([]) == {}
