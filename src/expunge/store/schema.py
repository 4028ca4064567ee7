"""The tables of a store: making them, and bringing those of an older expunge up to date."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy import Column, Connection, String, Table, Text
from sqlalchemy.schema import CreateColumn
from sqlalchemy.types import TypeEngine

from expunge.errors import StoreError
from expunge.store.record import KINDS, REQUIRED, SCHEMA_VERSION

_TYPES: dict[str, type[TypeEngine[Any]]] = {
    "str": Text,
    "int": sa.BigInteger,  # seeds have 63 bits
    "float": sa.Double,
    "bool": sa.Boolean,
    "json": sa.JSON,
}

TABLES = sa.MetaData()
RECORDS = Table(
    "records",
    TABLES,
    Column("key", String(64), primary_key=True),
    *(
        # Nullable unless required: a column added to an older table has no value in its old rows.
        Column(name, _TYPES[kind](), nullable=name not in REQUIRED)
        for name, kind in KINDS.items()
        if name != "key"
    ),
)
META = Table(
    "meta", TABLES, Column("name", String(64), primary_key=True), Column("value", Text, nullable=False)
)
GRID = "grid:"
"""What the names of grids in ``meta`` begin with."""
CLAIMS = Table(
    "claims",
    TABLES,
    Column("key", String(64), primary_key=True),
    Column("owner", Text, nullable=False),
    Column("expires", sa.Double, nullable=False),
)
"""Who is doing what: ``owner`` as text, ``expires`` in seconds since 1970."""
_VERSION = "schema_version"


def is_current(connection: Connection, database: str) -> bool:
    """Whether every table and column is there; raises like :func:`upgrade`."""
    return (
        _version(connection, database) == SCHEMA_VERSION
        and _missing(connection, database) == []
        and set(TABLES.tables) <= set(sa.inspect(connection).get_table_names())
    )


def upgrade(connection: Connection, database: str) -> None:
    """Make what is missing; ``database`` is its name in messages.

    Raises:
        StoreError: tables of a newer expunge, or of another program.
    """
    version, missing = _version(connection, database), _missing(connection, database)
    TABLES.create_all(connection)
    for name in missing or ():
        column = CreateColumn(RECORDS.c[name]).compile(dialect=connection.dialect)
        connection.exec_driver_sql(f"ALTER TABLE records ADD COLUMN {column}")
    if version == 1:
        _loosen(connection)
    connection.execute(sa.delete(META).where(META.c.name == _VERSION))
    connection.execute(sa.insert(META).values(name=_VERSION, value=str(SCHEMA_VERSION)))


def _version(connection: Connection, database: str) -> int | None:
    """Schema version in ``meta``, None if there is none yet."""
    if not sa.inspect(connection).has_table(META.name):
        return None
    text = connection.scalar(sa.select(META.c.value).where(META.c.name == _VERSION))
    if text is None:
        return None
    if not str(text).isdecimal():
        raise StoreError(
            f"the database {database} names schema {text!r} where a number was expected; "
            "restore a copy or choose another place"
        )
    if int(text) > SCHEMA_VERSION:
        raise StoreError(
            f"the database {database} has schema {text}, this expunge reads up to {SCHEMA_VERSION}; "
            "upgrade expunge"
        )
    return int(text)


def _missing(connection: Connection, database: str) -> list[str] | None:
    """Columns that ``records`` lacks; None if there is no such table."""
    looking = sa.inspect(connection)
    if not looking.has_table(RECORDS.name):
        return None
    present = {column["name"] for column in looking.get_columns(RECORDS.name)}
    lacking = [name for name in REQUIRED if name not in present]
    if lacking:
        raise StoreError(
            f"the database {database} has a table 'records' without {', '.join(lacking)}: "
            "it is not one of expunge's; choose another place"
        )
    return [name for name in KINDS if name not in present]


def _loosen(connection: Connection) -> None:
    """Let a place on the map be absent: schema 1 demanded one of every record."""
    if connection.dialect.name == "sqlite":  # it cannot change a column
        connection.exec_driver_sql("ALTER TABLE records RENAME TO records_1")
        RECORDS.create(connection)
        names = ", ".join(f'"{name}"' for name in KINDS)
        connection.exec_driver_sql(f"INSERT INTO records ({names}) SELECT {names} FROM records_1")
        connection.exec_driver_sql("DROP TABLE records_1")
        return
    for name in ("regularity", "discovery"):
        connection.exec_driver_sql(f"ALTER TABLE records ALTER COLUMN {name} DROP NOT NULL")
