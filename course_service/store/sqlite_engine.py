"""Engines for SQLite, with the settings that it needs. Loaded where they are used, for they take memory."""

import sqlite3
from typing import Any, Self
from urllib.parse import quote

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from course_service import call

LOCK_TIMEOUT_MS = 5_000
"""How long a statement waits for the lock of an SQLite file at most."""
_STEPS_BETWEEN_LOOKS = 10_000


class _SqliteConnection(sqlite3.Connection):
    """A connection whose statements may take long: they wait for the file's lock and for the disk, and search in C."""

    def cursor(self, factory: type[sqlite3.Cursor] | None = None) -> sqlite3.Cursor:  # type: ignore[override]  # the type stubs know of no default
        return super().cursor(factory or _SqliteCursor)


class _SqliteCursor(sqlite3.Cursor):
    def execute(self, sql: str, parameters: Any = ()) -> Self:  # noqa: ANN401  # the driver's own
        with call.idle():
            return super().execute(sql, parameters)

    def fetchone(self) -> Any:  # noqa: ANN401  # the driver's own, as those below
        with call.idle():  # the first row alone has been looked for
            return super().fetchone()

    def fetchmany(self, size: int | None = 1) -> list[Any]:
        with call.idle():
            return super().fetchmany(size)

    def fetchall(self) -> list[Any]:
        with call.idle():
            return super().fetchall()


def sqlite_engine(url: URL, *, create: bool = False, **options: Any) -> Engine:  # noqa: ANN401  # create_engine's own
    """Make an engine on a file that must exist, unless it is to be created."""
    assert url.database
    file = URL.create(
        "sqlite", database="file:" + quote(url.database), query={"mode": "rwc" if create else "rw", "uri": "true"}
    )
    engine = create_engine(file, hide_parameters=True, connect_args={"factory": _SqliteConnection}, **options)

    @event.listens_for(engine, "connect")
    def prepare(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
        connection.isolation_level = None  # the driver begins nothing by itself
        cursor = connection.cursor()
        wait = max(0, min(LOCK_TIMEOUT_MS, int(call.remaining() * 1000)))
        for pragma in (
            f"busy_timeout={wait}",  # of this call; the next one may have more time
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            f"busy_timeout={LOCK_TIMEOUT_MS}",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()
        # Ends a statement that runs when its call's deadline passes; called about once per millisecond of work.
        connection.set_progress_handler(lambda: call.remaining() < 0, _STEPS_BETWEEN_LOOKS)

    return engine
