from __future__ import annotations

import sqlite3
from typing import Any

import pytest

from expunge.store import sqlite


class Refusing:
    """A connection whose switch to the write-ahead log fails as often as it is told."""

    def __init__(self, failures: int, message: str) -> None:
        self.failures, self.message = failures, message
        self.executed: list[str] = []

    def cursor(self) -> Refusing:
        return self

    def execute(self, statement: str) -> None:
        self.executed.append(statement)
        if "WAL" in statement and self.failures:
            self.failures -= 1
            raise sqlite3.OperationalError(self.message)

    def close(self) -> None:
        self.executed.append("close")


def configured(connection: Any) -> list[str]:
    sqlite.configure(connection, None)
    executed: list[str] = connection.executed
    return executed


def test_a_switch_that_another_process_is_making_is_tried_again() -> None:
    executed = configured(Refusing(3, "database is locked"))
    assert executed.count("PRAGMA journal_mode = WAL") == 4
    assert executed[-1] == "close"


def test_other_errors_are_not_waited_out() -> None:
    connection = Refusing(1, "disk I/O error")
    with pytest.raises(sqlite3.OperationalError, match="disk"):
        configured(connection)
    assert connection.executed.count("PRAGMA journal_mode = WAL") == 1


def test_it_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "WAITING_SECONDS", 0)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        configured(Refusing(10**6, "database is locked"))
