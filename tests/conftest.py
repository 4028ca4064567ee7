from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import pytest

from expunge.testing.postgresql import NoServer, Server, temporary_server


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    """A PostgreSQL server, which tests may restart; its database is shared by the tests of a session."""
    if importlib.util.find_spec("psycopg") is None:
        pytest.skip("psycopg is not installed")
    try:
        with temporary_server() as server:
            yield server
    except NoServer as error:
        pytest.skip(str(error))


@pytest.fixture
def empty_postgresql(postgresql: Server) -> Server:
    """The same without tables."""
    from sqlalchemy import create_engine

    engine = create_engine(postgresql.url)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA public CASCADE")
        connection.exec_driver_sql("CREATE SCHEMA public")
    engine.dispose()
    return postgresql
