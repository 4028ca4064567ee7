"""What SQLite needs beside SQL: settings of a connection, and a look at the file before it is opened."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

from sqlalchemy import Connection

# Another process that makes the same file has it empty for an instant.
CREATION_SECONDS = 2.0
WAITING_SECONDS = 30


def configure(connection: sqlite3.Connection, _: object) -> None:
    """Set up a new connection: write-ahead log, 30 s of waiting for another writer."""
    give_up = time.monotonic() + WAITING_SECONDS
    with closing(connection.cursor()) as cursor:
        cursor.execute(f"PRAGMA busy_timeout = {WAITING_SECONDS * 1000}")
        while True:
            # Where two processes switch a new file at once SQLite fails the one without waiting, whatever the timeout.
            try:
                cursor.execute("PRAGMA journal_mode = WAL")
                break
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > give_up:
                    raise
            time.sleep(0.02)
        cursor.execute("PRAGMA synchronous = NORMAL")


def identity(file: Path) -> tuple[int, int]:
    """Return what tells a file from another of its name; (0, 0) where there is none."""
    try:
        found = file.stat()
    except OSError:
        return 0, 0
    return found.st_dev, found.st_ino


def copy(connection: Connection, file: Path) -> None:
    """Write all records of an open database to a new ``file``, even where the database's own has been deleted."""
    opened = connection.connection.driver_connection
    assert isinstance(opened, sqlite3.Connection)
    # A connection made since then has an empty file of its own.
    if not opened.execute("SELECT 1 FROM sqlite_master WHERE name = 'records'").fetchone():
        return
    with closing(sqlite3.connect(file)) as target:
        opened.backup(target)


def damage(file: Path) -> str | None:
    """Name what shows that ``file`` is cut, which SQLite would take for empty or fill up with zeros.

    Raises:
        OSError: the file cannot be read.
    """
    # Beside a log of unmerged pages a file may be incomplete, and SQLite completes it.
    if not file.is_file() or file.with_name(f"{file.name}-wal").exists():
        return None
    size = file.stat().st_size
    deadline = time.monotonic() + CREATION_SECONDS
    while size == 0 and time.monotonic() < deadline:
        time.sleep(0.02)
        size = file.stat().st_size
    with file.open("rb") as opened:
        header = opened.read(100)
    if size == 0:
        return "it is empty"
    if not header.startswith(b"SQLite format 3\0") or len(header) < 100:
        return "it does not begin like an SQLite file"
    page = int.from_bytes(header[16:18], "big")
    page = 65536 if page == 1 else page
    if page == 0 or size % page:
        return f"{size} bytes are no whole number of pages; the file was cut"
    return None
