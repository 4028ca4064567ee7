"""Records in an SQL database, SQLite unless told otherwise; safe to share between processes."""

from __future__ import annotations

import operator
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Connection,
    Double,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    event,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.schema import CreateColumn
from sqlalchemy.types import TypeEngine

from expunge.errors import InvalidInput, StoreError, near_miss
from expunge.store.record import KINDS, REQUIRED, SCHEMA_VERSION, STATUSES, Record

_TYPES: dict[str, type[TypeEngine[Any]]] = {
    "str": Text,
    "int": BigInteger,  # seeds have 63 bits
    "float": Double,
    "bool": Boolean,
    "json": JSON,
}
_CONVERT: dict[str, Callable[[Any], Any]] = {
    "str": str,
    "int": operator.index,
    "float": float,
    "bool": bool,
}
_TABLES = MetaData()
_RECORDS = Table(
    "records",
    _TABLES,
    Column("key", String(64), primary_key=True),
    *(
        # Nullable unless required: a column added to an older table has no value in its old rows.
        Column(name, _TYPES[kind](), nullable=name not in REQUIRED)
        for name, kind in KINDS.items()
        if name != "key"
    ),
)
_META = Table(
    "meta", _TABLES, Column("name", String(64), primary_key=True), Column("value", Text, nullable=False)
)
_VERSION = "schema_version"

# Another process that makes the same file has it empty for an instant.
_CREATION_SECONDS = 2.0


class Database:
    """The records of a sweep, one row per cell.

    SQLite runs in WAL mode and waits up to 30 s for another writer; WAL needs a local disk, so give the
    URL of a database server to share records between machines. A table written by an older schema gets
    the columns it lacks when it is opened.

    Args:
        url_or_path: path of an SQLite file (made with its folder if missing) or an SQLAlchemy URL, which
            is told from a path by its ``://``.

    Raises:
        StoreError: the database cannot be opened, is damaged, is not one of expunge's, or was written by
            a newer expunge.
    """

    def __init__(self, url_or_path: str | Path) -> None:
        self._closed = False
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
            self._check_whole(file)
        if self._engine.dialect.name == "sqlite":
            event.listen(self._engine, "connect", _configure_sqlite)
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def add(self, record: Record) -> None:
        """Store ``record``; one that failed or was skipped is replaced, one that is done never.

        Raises:
            StoreError: a done record of this key is stored already, or the database cannot be written.
        """
        row = record.to_row()
        # The update comes first: it takes the write lock before anything was read, so that of two
        # processes the second sees the first one's row.
        replace = (
            update(_RECORDS).where(_RECORDS.c.key == record.key, _RECORDS.c.status != "done").values(row)
        )
        for attempts_left in (1, 0):
            try:
                with self._transaction("written") as connection:
                    if connection.execute(replace).rowcount == 0:
                        connection.execute(insert(_RECORDS).values(row))
                return
            except StoreError as error:
                if not isinstance(error.__cause__, IntegrityError):
                    raise
                if record.key in self.keys("done"):
                    raise StoreError(
                        f"record {record.key} is done already in {self.name} and is never replaced; "
                        "look it up with get() before running its cell again"
                    ) from error
                # On a server another process may have inserted the same key, not done, in between:
                # then there is a row to update now.
                if not attempts_left:
                    raise

    def get(self, key: str) -> Record | None:
        """Return the record of ``key``, or None.

        Raises:
            StoreError: the database or the row cannot be read.
        """
        found = self._select(_RECORDS.c.key == key)
        return found[0] if found else None

    def keys(self, status: str | None = None) -> set[str]:
        """Keys of all records, or of those with one ``status``.

        Raises:
            InvalidInput: no such status.
            StoreError: the database cannot be read.
        """
        query = select(_RECORDS.c.key)
        if status is not None:
            if status not in STATUSES:
                raise InvalidInput(f"status {status!r} is unknown; use one of {', '.join(STATUSES)}")
            query = query.where(_RECORDS.c.status == status)
        with self._transaction("read") as connection:
            return set(connection.scalars(query))

    def records(self, **equals: Any) -> list[Record]:
        """Records whose fields equal the given values, ordered by method, regularity, discovery, seed, key.

        Raises:
            InvalidInput: no such field, one that holds a dict or a list, or a value of another type.
            StoreError: the database or a row cannot be read.
        """
        conditions = []
        for name, value in equals.items():
            if name not in KINDS:
                hint = near_miss(name, KINDS)
                raise InvalidInput(f"records have no field {name!r}{hint} (known: {', '.join(KINDS)})")
            if KINDS[name] == "json":
                raise InvalidInput(
                    f"records cannot be selected by {name!r}, which holds JSON; select by other fields and "
                    "compare in Python"
                )
            try:
                # Drivers bind NumPy numbers as bytes, which equal nothing.
                wanted = None if value is None else _CONVERT[KINDS[name]](value)
            except (TypeError, ValueError) as error:
                raise InvalidInput(
                    f"{name} is compared with {value!r:.80}, expected {KINDS[name]}: {error}; convert it"
                ) from error
            conditions.append(_RECORDS.c[name] == wanted)
        found = self._select(*conditions)
        # Sorted here: database servers order text by their own locale.
        return sorted(
            found,
            key=lambda item: (item.method, item.regularity or 0, item.discovery or 0, item.seed, item.key),
        )

    def close(self) -> None:
        """Release every connection; closing twice does nothing."""
        self._closed = True
        self._engine.dispose()

    def __enter__(self) -> Database:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _select(self, *conditions: Any) -> list[Record]:
        with self._transaction("read") as connection:
            rows = connection.execute(select(_RECORDS).where(*conditions)).mappings().all()
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
                yield connection
        except (SQLAlchemyError, ImportError, OSError, ValueError) as error:
            raise self._failure(doing, error) from error

    def _prepare(self) -> None:
        """Make tables and columns that are missing."""
        if self._is_current():
            return
        try:
            with self._transaction("opened") as connection:
                if connection.dialect.name == "sqlite":
                    connection.exec_driver_sql("BEGIN IMMEDIATE")
                self._upgrade(connection)
        except StoreError:
            # Two processes may make the tables at once: the slower one finds them made.
            if not self._is_current():
                raise

    def _is_current(self) -> bool:
        with self._transaction("opened") as connection:
            return self._version(connection) == SCHEMA_VERSION and self._missing(connection) == []

    def _version(self, connection: Connection) -> int | None:
        """Schema version in ``meta``, None if there is none yet."""
        if not inspect(connection).has_table(_META.name):
            return None
        text = connection.scalar(select(_META.c.value).where(_META.c.name == _VERSION))
        if text is None:
            return None
        if not str(text).isdecimal():
            raise StoreError(
                f"the database {self.name} names schema {text!r} where a number was expected; "
                "restore a copy or choose another place"
            )
        if int(text) > SCHEMA_VERSION:
            raise StoreError(
                f"the database {self.name} has schema {text}, this expunge reads up to {SCHEMA_VERSION}; "
                "upgrade expunge"
            )
        return int(text)

    def _missing(self, connection: Connection) -> list[str] | None:
        """Columns that ``records`` lacks; None if there is no such table."""
        looking = inspect(connection)
        if not looking.has_table(_RECORDS.name):
            return None
        present = {column["name"] for column in looking.get_columns(_RECORDS.name)}
        lacking = [name for name in REQUIRED if name not in present]
        if lacking:
            raise StoreError(
                f"the database {self.name} has a table 'records' without {', '.join(lacking)}: "
                "it is not one of expunge's; choose another place"
            )
        return [name for name in KINDS if name not in present]

    def _upgrade(self, connection: Connection) -> None:
        version, missing = self._version(connection), self._missing(connection)
        _TABLES.create_all(connection)
        for name in missing or ():
            column = CreateColumn(_RECORDS.c[name]).compile(dialect=connection.dialect)
            connection.exec_driver_sql(f"ALTER TABLE records ADD COLUMN {column}")
        if version == 1:
            self._loosen(connection)
        if version is None:
            connection.execute(insert(_META).values(name=_VERSION, value=str(SCHEMA_VERSION)))
        else:
            connection.execute(
                update(_META).where(_META.c.name == _VERSION).values(value=str(SCHEMA_VERSION))
            )

    @staticmethod
    def _loosen(connection: Connection) -> None:
        """Let a place on the map be absent: schema 1 demanded one of every record."""
        if connection.dialect.name == "sqlite":  # it cannot change a column
            connection.exec_driver_sql("ALTER TABLE records RENAME TO records_1")
            _RECORDS.create(connection)
            names = ", ".join(f'"{name}"' for name in KINDS)
            connection.exec_driver_sql(f"INSERT INTO records ({names}) SELECT {names} FROM records_1")
            connection.exec_driver_sql("DROP TABLE records_1")
            return
        for name in ("regularity", "discovery"):
            connection.exec_driver_sql(f"ALTER TABLE records ALTER COLUMN {name} DROP NOT NULL")

    def _failure(self, doing: str, error: Exception) -> StoreError:
        cause = getattr(error, "orig", None) or error
        text = str(cause).strip()
        if self._password:
            text = text.replace(self._password, "***")
        code = (getattr(cause, "sqlite_errorcode", None) or 0) & 0xFF
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or (
            doing == "read" and isinstance(error, ValueError)
        ):
            return self._damaged(text)
        return StoreError(
            f"the database {self.name} cannot be {doing}: {text}; check that it can be reached and written, "
            "that its driver is installed and that no other program keeps it locked"
        )

    def _damaged(self, finding: str) -> StoreError:
        return StoreError(
            f"the database {self.name} is damaged or not a database ({finding}); move it away, with its "
            "-wal and -shm files if there are any, or restore a copy"
        )

    def _check_whole(self, file: Path) -> None:
        """Refuse a cut file that SQLite would take for an empty database or fill up with zeros."""
        if not file.is_file():
            return
        # Beside a log of unmerged pages a file may be incomplete, and SQLite completes it.
        if file.with_name(f"{file.name}-wal").exists():
            return
        try:
            size = file.stat().st_size
            deadline = time.monotonic() + _CREATION_SECONDS
            while size == 0 and time.monotonic() < deadline:
                time.sleep(0.02)
                size = file.stat().st_size
            with file.open("rb") as opened:
                header = opened.read(100)
        except OSError as error:
            raise self._failure("read", error) from error
        if size == 0:
            raise self._damaged("it is empty")
        if not header.startswith(b"SQLite format 3\0") or len(header) < 100:
            raise self._damaged("it does not begin like an SQLite file")
        page = int.from_bytes(header[16:18], "big")
        page = 65536 if page == 1 else page
        if page == 0 or size % page:
            raise self._damaged(f"{size} bytes are no whole number of pages; the file was cut")


def _parse(text: str) -> URL:
    try:
        return make_url(text)
    except (SQLAlchemyError, ValueError):
        # Neither the text nor the cause is shown: both may quote the password.
        raise StoreError(
            f"the database URL that begins with {text.partition('://')[0]!r} cannot be parsed; expected "
            "dialect://user:password@host:port/name, with special characters written as %XX"
        ) from None


def _configure_sqlite(connection: sqlite3.Connection, _: object) -> None:
    cursor = connection.cursor()
    # The timeout first: switching to WAL waits for others already.
    cursor.execute("PRAGMA busy_timeout = 30000")
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.close()
