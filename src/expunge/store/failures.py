"""What a database driver's error means, and what to do about it."""

from __future__ import annotations

import errno
import sqlite3

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

_GO_ON = "then give the same command again: finished records are kept"
# SQLSTATE of PostgreSQL and of the standard.
_FULL = "53100"
_TRANSIENT = ("08", "40", "53300", "57P01", "57P02", "57P03")


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
