"""Who does what: so that several coordinators can share one store and none repeats another's work."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Self

from sqlalchemy import Connection, delete, extract, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from expunge.errors import StoreError
from expunge.store.database import Database
from expunge.store.owner import Owner
from expunge.store.schema import CLAIMS


class Claims:
    """The claims of one coordinator in the database of a store.

    Used as a context: within it the claims are renewed by a thread, and they end with it. Those of a
    coordinator that died end when ``lease`` runs out; on the same host as soon as its process is gone.
    A server's clock counts where there is one, so the clocks of the machines need not agree.

    Every method raises StoreError where the database cannot be used.

    Args:
        database: where they are kept.
        lease: seconds until a claim that is not renewed ends; longer than the database's patience, so that
            a restart of its server ends none.
    """

    def __init__(self, database: Database, *, lease: float = 150.0) -> None:
        self._database, self._lease = database, lease
        self.owner = Owner.this().text()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="claims", daemon=True)

    def take(self, key: str) -> bool:
        """Claim ``key``, unless another coordinator that lives holds it; renew it if it is held already."""

        def take(connection: Connection) -> bool:
            now = _now(connection)
            # A write comes first: SQLite takes the lock with it, before anything was read.
            connection.execute(delete(CLAIMS).where(CLAIMS.c.key == key, CLAIMS.c.expires < now))
            holder = connection.scalar(select(CLAIMS.c.owner).where(CLAIMS.c.key == key))
            if holder is not None and holder != self.owner:
                other = Owner.parse(holder)
                if other is None or not other.is_gone():
                    return False
            mine = {"key": key, "owner": self.owner, "expires": now + self._lease}
            if holder is None:
                connection.execute(insert(CLAIMS).values(mine))
                return True
            same = CLAIMS.c.key == key, CLAIMS.c.owner == holder
            return connection.execute(update(CLAIMS).where(*same).values(mine)).rowcount == 1

        try:
            return self._database.transact("written", take)
        except StoreError as error:
            if isinstance(error.__cause__, IntegrityError):  # another was faster
                return False
            raise

    def release(self, key: str) -> None:
        """Give up the claim on ``key``, if it is held."""
        gone = delete(CLAIMS).where(CLAIMS.c.key == key, CLAIMS.c.owner == self.owner)
        self._database.transact("written", lambda connection: connection.execute(gone))

    def holders(self, keys: Iterable[str]) -> list[str]:
        """Name the other coordinators that hold one of ``keys``."""
        query = select(CLAIMS.c.key, CLAIMS.c.owner).where(CLAIMS.c.owner != self.owner)
        rows = self._database.transact("read", lambda connection: connection.execute(query).all())
        wanted = set(keys)
        return sorted({str(Owner.parse(owner) or owner) for key, owner in rows if key in wanted})

    def renew(self) -> None:
        """Extend every claim that is held."""

        def renew(connection: Connection) -> None:
            expires = _now(connection) + self._lease
            connection.execute(update(CLAIMS).where(CLAIMS.c.owner == self.owner).values(expires=expires))

        self._database.transact("written", renew)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=1)

        def end(connection: Connection) -> None:
            # With those of the dead that nobody needed.
            over = or_(CLAIMS.c.owner == self.owner, CLAIMS.c.expires < _now(connection))
            connection.execute(delete(CLAIMS).where(over))

        # If not, they expire. What went wrong with the store is being raised already, by what needed it.
        with suppress(StoreError):
            self._database.transact("written", end, patience=0)

    def _beat(self) -> None:
        while not self._stop.wait(self._lease / 8):
            # The next beat tries again; the coordinator itself meets the fault when it writes a record.
            with suppress(StoreError):
                self.renew()


def _now(connection: Connection) -> float:
    """Seconds since 1970 by the clock that all coordinators share."""
    if connection.dialect.name == "postgresql":
        return float(connection.scalar(select(extract("epoch", func.clock_timestamp()))) or 0)
    return time.time()
