"""The tables of a store."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Boolean, Column, Double, MetaData, String, Table, Text
from sqlalchemy.types import TypeEngine

from expunge.store.record import KINDS, REQUIRED

_TYPES: dict[str, type[TypeEngine[Any]]] = {
    "str": Text,
    "int": BigInteger,  # seeds have 63 bits
    "float": Double,
    "bool": Boolean,
    "json": JSON,
}

TABLES = MetaData()
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
    Column("expires", Double, nullable=False),
)
"""Who is doing what: ``owner`` as text, ``expires`` in seconds since 1970."""
