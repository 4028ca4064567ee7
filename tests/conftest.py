from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from postgresql_server import NoServer, Server, temporary_server

# The libraries read it when they are imported; a test must not wait for an answer from the network.
os.environ["HF_HUB_OFFLINE"] = "1"


def pytest_itemcollected(item: pytest.Item) -> None:
    """The contract is shipped without this project's marks; one of its tests asserts what a training leads to."""
    if getattr(item, "originalname", "") == "test_forgets":
        item.add_marker("trains")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that processes which share the work end together."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """A network that a test builds without a seed of its own does not depend on the tests before it."""
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(0)


@pytest.fixture
def margin(record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """Assert where a figure of a trained network lies, and record how far from the limit, for ``processors.py``."""

    def check(figure: str, value: Any, *, above: float | None = None, below: float | None = None) -> None:
        for limit, distance in ((above, value - (above or 0)), (below, (below or 0) - value)):
            if limit is not None:
                record_property(figure, f"{float(distance):.4g}")
                assert distance > 0, f"{figure} is {value}, expected {above=}, {below=}"

    return check


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
