"""The store on a real PostgreSQL server."""

from __future__ import annotations

import multiprocessing
import threading
import time
from multiprocessing.synchronize import Barrier
from typing import Any

import pytest
from sqlalchemy import create_engine

from expunge.errors import StoreError
from expunge.store.claims import Claims
from expunge.store.database import AlreadyDone, Database
from expunge.store.record import KINDS, SCHEMA_VERSION, Record
from postgresql_server import Server

SPAWN = multiprocessing.get_context("spawn")


def make(number: int = 0, **changed: Any) -> Record:
    values: dict[str, Any] = {
        "key": f"{number:032x}", "status": "done", "data": "digits", "model": "resnet9", "method": "rem",
        "seed": number, "data_seed": 2**63 - 1 - number, "healed": 0.1, "regularity": 0.5, "discovery": 0.1,
        "per_class": [None, number / 7 % 1], "settings": {"rate": 0.1, "name": "ü", "nul": "a\0b"},
        "log": [{"loss": (number + 1) / 3}], "oracle": number % 2 == 1,
    }  # fmt: skip
    return Record(**(values | changed))


def test_round_trip_and_selection(empty_postgresql: Server) -> None:
    records = [
        make(0),
        make(1, status="failed", error="a \0 and \udcff\n", healed=None),
        make(2, method="npo"),
    ]
    with Database(empty_postgresql.url) as database:
        assert database.name == "postgresql+psycopg://expunge@/postgres"
        for record in records:
            database.add(record)
        with pytest.raises(AlreadyDone, match="is done already in postgresql"):
            database.add(make(0, healed=0.5))
        database.add(make(1, status="failed", error="again"))
    with Database(empty_postgresql.url) as database:
        assert database.records() == [records[2], records[0], make(1, status="failed", error="again")]
        assert database.keys("failed") == {records[1].key}
        many = [f"{number:032x}" for number in range(2000)]
        assert database.get_many(many).keys() == {record.key for record in records}


def test_a_table_of_schema_1_is_brought_up_to_date(empty_postgresql: Server) -> None:
    with Database(empty_postgresql.url) as database:
        database.add(make(1))
    engine = create_engine(empty_postgresql.url)
    with engine.begin() as connection:
        for statement in (
            "DROP TABLE claims",
            "ALTER TABLE records ALTER COLUMN regularity SET NOT NULL",
            "ALTER TABLE records DROP COLUMN metrics",
            "UPDATE meta SET value = '1'",
            "UPDATE records SET schema = 1",
        ):
            connection.exec_driver_sql(statement)
    with Database(empty_postgresql.url) as database:
        assert database.records() == [make(1, schema=1)]
        database.add(make(2, regularity=None, metrics={"a": 0.5}))
        assert Claims(database).take("a")
    with engine.begin() as connection:
        assert connection.exec_driver_sql("SELECT value FROM meta").scalar() == str(SCHEMA_VERSION)
    engine.dispose()
    assert set(KINDS) >= {"metrics"}


def add_and_claim(url: str, count: int, start: Barrier, queue: Any) -> None:
    start.wait(60)
    with Database(url) as database:  # both make the tables
        claims, won = Claims(database), []
        for number in range(count):
            key = f"{number:032x}"
            if claims.take(key) and database.get(key) is None:
                database.add(make(number), owner=claims.owner)
                won.append(number)
    queue.put(won)


def test_two_processes_claim_every_key_once(empty_postgresql: Server) -> None:
    start, queue, count = SPAWN.Barrier(2), SPAWN.Queue(), 150
    workers = [
        SPAWN.Process(target=add_and_claim, args=(empty_postgresql.url, count, start, queue)) for _ in "ab"
    ]
    for worker in workers:
        worker.start()
    won = [queue.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join(60)
    assert sorted(won[0] + won[1]) == list(range(count))
    with Database(empty_postgresql.url) as database:
        assert database.records() == [make(number) for number in range(count)]


def test_a_server_that_restarts_is_waited_for(empty_postgresql: Server) -> None:
    with Database(empty_postgresql.url, patience=30) as database:
        claims = Claims(database)
        assert claims.take("a" * 32)
        empty_postgresql.stop()
        back = threading.Timer(1.5, empty_postgresql.start)
        back.start()
        started = time.monotonic()
        database.add(make(1))
        assert time.monotonic() - started > 1
        back.join()
        claims.renew()
        assert database.records() == [make(1)]


def test_a_server_that_stays_away_is_told(empty_postgresql: Server) -> None:
    with Database(empty_postgresql.url, patience=0.5) as database:
        empty_postgresql.stop()
        try:
            started = time.monotonic()
            with pytest.raises(
                StoreError, match=r"cannot be written: .*; check that the server runs.* give the same command"
            ):
                database.add(make(1))
            assert 0.2 < time.monotonic() - started < 10
            # who only opens does not wait
            with pytest.raises(StoreError, match=r"cannot be opened: .*; check that the server runs"):
                Database(empty_postgresql.url)
        finally:
            empty_postgresql.start()
        database.add(make(1))
        assert database.records() == [make(1)]


def test_a_commit_whose_answer_was_lost_is_no_conflict(
    empty_postgresql: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Database(empty_postgresql.url, patience=30) as database:
        claims = Claims(database)
        assert claims.take(make(1).key)
        commit, cut = database._engine.dialect.do_commit, []

        def lose(connection: Any) -> None:
            commit(connection)
            if not cut:
                cut.append(True)
                connection.dbapi_connection.close()
                connection.dbapi_connection.execute("SELECT 1")  # raises what a lost connection raises

        monkeypatch.setattr(database._engine.dialect, "do_commit", lose)
        database.add(make(1), owner=claims.owner)
        assert cut == [True]
        assert database.records() == [make(1)]
        assert claims.holders([make(1).key]) == []
        with pytest.raises(AlreadyDone):
            database.add(make(1))
