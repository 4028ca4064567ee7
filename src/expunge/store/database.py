"""Records in an SQL database, SQLite unless told otherwise; safe to share between processes."""

from __future__ import annotations

import errno
import hashlib
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

from sqlalchemy import ColumnElement, Connection, create_engine, delete, event, insert, select, update
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError, SQLAlchemyError

from expunge.errors import StoreError
from expunge.store import schema, sqlite
from expunge.store.record import Record
from expunge.store.schema import CLAIMS, GRID, META, RECORDS

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_GO_ON = "then give the same command again: finished records are kept"
# SQLSTATE of PostgreSQL and of the standard.
_FULL = "53100"
_TRANSIENT = ("08", "40", "53300", "57P01", "57P02", "57P03")
_T = TypeVar("_T")


class AlreadyDone(StoreError):
    """A done record of this key is stored and is never replaced."""


class Database:
    """The records of a sweep, one row per cell; use it as a context manager.

    SQLite runs in WAL mode and waits up to 30 s for another writer; WAL needs a local disk, so give the
    URL of a database server to share records between machines (PostgreSQL: ``postgresql+psycopg://``). A file that is
    deleted or replaced meanwhile is an error at the next use, and its records are kept beside it. A
    table written by an older schema gets the columns it lacks when it is opened. Once open, a server that
    goes away is called again, with growing pauses, for ``patience`` seconds.

    Every method raises StoreError where the database is closed, is lost for longer, or refuses.

    Args:
        url_or_path: path of an SQLite file (made with its folder if missing) or an SQLAlchemy URL, which
            is told from a path by its ``://``.
        patience: seconds.

    Raises:
        StoreError: the database cannot be opened, is damaged, is not one of expunge's, or was written by
            a newer expunge.
    """

    def __init__(self, url_or_path: str | Path, *, patience: float = 60.0) -> None:
        self._closed, self._patience = False, patience
        self._file: tuple[Path, tuple[int, int]] | None = None
        if isinstance(url_or_path, str) and "://" in url_or_path:
            file, url = None, _parse(url_or_path)
            # Options after "?" may hold credentials too.
            self.name = url.set(query={}).render_as_string(hide_password=True)
        else:
            # Absolute, so that ":memory:" is a file name and a later change of folder does no harm.
            file = Path(url_or_path).expanduser().absolute()
            url = URL.create("sqlite", database=str(file))
            self.name = str(file)
        self._password = str(url.password or "")
        try:
            if file is not None:
                file.parent.mkdir(parents=True, exist_ok=True)
            self._engine = create_engine(url, hide_parameters=True)
        except (SQLAlchemyError, ImportError, OSError, ValueError, TypeError) as error:
            raise self._failure("opened", error) from error
        if file is not None:
            try:
                damage = sqlite.damage(file)
            except OSError as error:
                raise self._failure("read", error) from error
            if damage is not None:
                raise self._damaged(damage)
        if self._engine.dialect.name == "sqlite":
            event.listen(self._engine, "connect", sqlite.configure)
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise
        if file is not None:
            self._file = (file, sqlite.identity(file))

    def add(self, record: Record, *, owner: str | None = None) -> None:
        """Store ``record``; one that failed or was skipped is replaced, one that is done never.

        The claim of ``owner`` on its key, if any, ends with the same transaction.

        Raises:
            AlreadyDone: a done record of this key is stored already.
        """
        row, tries = record.to_row(), 0
        # The update comes first: it takes the write lock before anything was read, so that of two
        # processes the second sees the first one's row.
        replace = update(RECORDS).where(RECORDS.c.key == record.key, RECORDS.c.status != "done").values(row)

        def write(connection: Connection) -> None:
            nonlocal tries
            tries += 1
            if connection.execute(replace).rowcount == 0:
                connection.execute(insert(RECORDS).values(row))
            if owner is not None:
                connection.execute(delete(CLAIMS).where(CLAIMS.c.key == record.key, CLAIMS.c.owner == owner))

        for attempts_left in (1, 0):
            try:
                self.transact("written", write)
                return
            except StoreError as error:
                if not isinstance(error.__cause__, IntegrityError):
                    raise
                stored = self.get(record.key)
                if stored is not None and stored.status == "done":
                    if tries > 1 and stored == record:
                        return  # the connection was lost after the first try had been committed
                    raise AlreadyDone(
                        f"record {record.key} is done already in {self.name} and is never replaced; "
                        "look it up with get() before running its cell again"
                    ) from error
                # On a server another process may have inserted the same key, not done, in between:
                # then there is a row to update now.
                if not attempts_left:
                    raise

    def get(self, key: str) -> Record | None:
        """Return the record of ``key``, or None."""
        return self.get_many([key]).get(key)

    def get_many(self, keys: Iterable[str]) -> dict[str, Record]:
        """Return the records of those ``keys`` that have one."""
        found: dict[str, Record] = {}
        wanted = list(keys)
        for start in range(0, len(wanted), 500):  # the number of a statement's parameters is limited
            some = self._select(RECORDS.c.key.in_(wanted[start : start + 500]))
            found |= {record.key: record for record in some}
        return found

    def keys(self, status: str | None = None) -> set[str]:
        """Keys of all records, or of those with one ``status``."""
        query = select(RECORDS.c.key).where(*_of_status(status))
        return self.transact("read", lambda connection: set(connection.scalars(query)))

    def records(self, status: str | None = None) -> list[Record]:
        """All records, or those with one ``status``, ordered by method, regularity, discovery, seed, key."""
        # Sorted here: database servers order text by their own locale.
        return sorted(
            self._select(*_of_status(status)),
            key=lambda item: (item.method, item.regularity or 0, item.discovery or 0, item.seed, item.key),
        )

    def add_grid(self, text: str) -> None:
        """Keep the text of a grid that is run into this store; one that is kept already is not kept twice."""
        name = GRID + hashlib.sha256(text.encode()).hexdigest()[:32]
        row = insert(META).values(name=name, value=text)
        try:
            self.transact("written", lambda connection: connection.execute(row))
        except StoreError as error:
            if not isinstance(error.__cause__, IntegrityError):  # it is there
                raise

    def grids(self) -> list[str]:
        """Return the texts of the grids that were run into this store, sorted."""
        query = select(META.c.value).where(META.c.name.startswith(GRID, autoescape=True))
        return self.transact("read", lambda connection: sorted(connection.scalars(query)))

    def transact(self, doing: str, work: Callable[[Connection], _T], *, patience: float | None = None) -> _T:
        """Return ``work(connection)``, all of which happens or nothing.

        A server that goes away is called again: ``work`` may then be done a second time although the first
        was committed, and must allow for that. So is a file that another program keeps locked.

        ``doing`` is "read" or "written", for messages; ``patience`` stands in for that of the database.
        """
        deadline = time.monotonic() + (self._patience if patience is None else patience)
        pause = _FIRST_PAUSE
        while True:
            try:
                with self._transaction(doing) as connection:
                    return work(connection)
            except StoreError as error:
                waited_for = is_lost(error.__cause__) or is_locked(error.__cause__)
                if not waited_for or time.monotonic() + pause > deadline:
                    raise
                print(f"waiting: {error}", file=sys.stderr)
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def close(self) -> None:
        """Release every connection; closing twice does nothing."""
        self._closed = True
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _select(self, *conditions: Any) -> list[Record]:
        query = select(RECORDS).where(*conditions)
        rows = self.transact("read", lambda connection: connection.execute(query).mappings().all())
        try:
            return [Record.from_row(dict(row)) for row in rows]
        except StoreError as error:
            raise StoreError(f"{self.name}: {error}") from error

    @contextmanager
    def _transaction(self, doing: str) -> Iterator[Connection]:
        if self._closed:
            raise StoreError(f"the database {self.name} is closed; open it again with Database(...)")
        try:
            with self._engine.begin() as connection:
                self._check_place(connection)
                yield connection
        except (SQLAlchemyError, ImportError, OSError, ValueError) as error:
            raise self._failure(doing, error) from error

    def _check_place(self, connection: Connection) -> None:
        """Keep the records in another file if this one was deleted or replaced, and say so."""
        if self._file is None or sqlite.identity(self._file[0]) == self._file[1]:
            return
        file = self._file[0]
        kept = file.with_name(f"{file.stem}.kept-{os.getpid()}{file.suffix}")
        sqlite.copy(connection, kept)
        raise StoreError(
            f"the database {file} was deleted or replaced while it was in use; the records until then are in {kept}: "
            f"move it to {file.name}, then give the same command again"
        )

    def _prepare(self) -> None:
        """Make tables and columns that are missing."""
        if self._is_current():
            return
        try:
            with self._transaction("opened") as connection:
                if connection.dialect.name == "sqlite":
                    connection.exec_driver_sql("BEGIN IMMEDIATE")
                schema.upgrade(connection, self.name)
        except StoreError:
            # Two processes may make the tables at once: the slower one finds them made.
            if not self._is_current():
                raise

    def _is_current(self) -> bool:
        with self._transaction("opened") as connection:
            return schema.is_current(connection, self.name)

    def _failure(self, doing: str, error: Exception) -> StoreError:
        text = " ".join(str(getattr(error, "orig", None) or error).split())
        if self._password:
            text = text.replace(self._password, "***")
        if is_damage(error) or (doing == "read" and isinstance(error, ValueError)):
            return self._damaged(text)
        return StoreError(f"the database {self.name} cannot be {doing}: {text}; {advice(error)}")

    def _damaged(self, finding: str) -> StoreError:
        return StoreError(
            f"the database {self.name} is damaged or not a database ({finding}); move it away, with its "
            "-wal and -shm files if there are any, or restore a copy"
        )


def _of_status(status: str | None) -> list[ColumnElement[bool]]:
    return [] if status is None else [RECORDS.c.status == status]


def _parse(text: str) -> URL:
    try:
        return make_url(text)
    except (SQLAlchemyError, ValueError):
        # Neither the text nor the cause is shown: both may quote the password.
        raise StoreError(
            f"the database URL that begins with {text.partition('://')[0]!r} cannot be parsed; expected "
            "dialect://user:password@host:port/name, with special characters written as %XX"
        ) from None


def is_lost(error: BaseException | None) -> bool:
    """Whether the server went away, as it does when it is restarted: the same call may work a little later."""
    if not isinstance(error, DBAPIError) or isinstance(error.orig, sqlite3.Error):
        return False
    state = _state(error)
    if state:
        return state.startswith(_TRANSIENT)
    return error.connection_invalidated or isinstance(error, OperationalError | InterfaceError)


def is_locked(error: BaseException | None) -> bool:
    """Whether another program keeps an SQLite file locked: the same call may work later."""
    return error is not None and _sqlite_code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def is_damage(error: BaseException) -> bool:
    """Whether SQLite found its file damaged."""
    return _sqlite_code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def advice(error: BaseException) -> str:
    """What to do about it."""
    full = isinstance(error, OSError) and error.errno == errno.ENOSPC
    if full or _state(error) == _FULL or _sqlite_code(error) == sqlite3.SQLITE_FULL:
        return f"its disk is full: free space, {_GO_ON}"
    if _sqlite_code(error) == sqlite3.SQLITE_IOERR:
        return f"its disk fails or is full: check it, {_GO_ON}"
    if is_lost(error):
        return f"check that the server runs, can be reached and lets you in, {_GO_ON}"
    return (
        "check that it can be reached and written, that its driver is installed and that no other program "
        "keeps it locked"
    )


def _state(error: BaseException) -> str:
    return getattr(getattr(error, "orig", None), "sqlstate", None) or ""


def _sqlite_code(error: BaseException) -> int:
    cause = getattr(error, "orig", None) or error
    return (getattr(cause, "sqlite_errorcode", None) or 0) & 0xFF
