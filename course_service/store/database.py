"""The database: engines with the settings that each database needs, transactions, and what their errors mean."""

import contextlib
import logging
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import psycopg2
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL
from sqlalchemy.engine.interfaces import DBAPIConnection, ExceptionContext
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import ConnectionPoolEntry

from course_service.errors import DatabaseUnavailable, StartupError
from course_service.store.models import SCHEMA_REVISION
from course_service.store.repository import CourseRepository

_T = TypeVar("_T")

_log = logging.getLogger(__name__)

POSTGRESQL_OPTIONS = {
    "timezone": "UTC",
    "statement_timeout": "5000",
    "lock_timeout": "2000",
    "idle_in_transaction_session_timeout": "10000",
    "client_connection_check_interval": "1000",
}
"""Session settings (times in milliseconds) that the service asks of PostgreSQL."""

# A demoted primary (25006), and a server that is shutting down or starting up: the connection is of no more use.
_DISCONNECT_STATES = {"25006", "57P01", "57P02", "57P03"}
# Connection, serialization, resources, operator, system; and lock_timeout.
_UNAVAILABLE_CLASSES = {"08", "40", "53", "57", "58"}
_LOCK_NOT_AVAILABLE = "55P03"
_UNDEFINED_TABLE = "42P01"
_SQLITE_UNAVAILABLE = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
}


class SchemaMissing(StartupError):
    """The database has no schema, or an older one than this code needs."""

    def __init__(self, found: str | None) -> None:
        have = f"the schema of the database is {found}" if found else "the database has no schema yet"
        super().__init__(f"{have}, but {SCHEMA_REVISION} is needed; run make migrate (python -m alembic upgrade head)")


def postgresql_engine(url: URL, **options: object) -> Engine:
    """Make an engine that gives up connecting after 2 s and notices a dead peer."""
    connect_args: dict[str, object] = {
        "connect_timeout": 2,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 10_000,
        "application_name": "course-service",
    }
    # PgBouncer refuses `options`; a URL with an `options` of its own, if only an empty one, does without ours.
    if "options" not in url.query:
        connect_args["options"] = " ".join(f"-c {name}={value}" for name, value in POSTGRESQL_OPTIONS.items())
    engine = create_engine(url, connect_args=connect_args, hide_parameters=True, **options)

    @event.listens_for(engine, "handle_error")
    def leave_a_server_that_cannot_serve(context: ExceptionContext) -> None:
        if getattr(context.original_exception, "pgcode", None) in _DISCONNECT_STATES:
            context.is_disconnect = True

    return engine


def sqlite_engine(url: URL, *, create: bool = False, write: bool = False, **options: object) -> Engine:
    """Make an engine on a file that must exist, unless it is to be created; `write` makes its transactions exclusive.

    SQLite's default transaction takes its lock at the first write, which loses updates; `BEGIN IMMEDIATE` takes it at
    once. An engine that does not write needs no transaction at all.
    """
    assert url.database
    file = URL.create(
        "sqlite", database="file:" + quote(url.database), query={"mode": "rwc" if create else "rw", "uri": "true"}
    )
    engine = create_engine(file, hide_parameters=True, **options)

    @event.listens_for(engine, "connect")
    def prepare(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
        connection.isolation_level = None  # the driver begins nothing by itself
        cursor = connection.cursor()
        for pragma in ("busy_timeout=5000", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    if write:

        @event.listens_for(engine, "begin")
        def begin(connection: Connection) -> None:
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


class Database:
    """The courses' database, for `connections` threads at once.

    A use case is one call of `read` or `write`, with a function that gets the repository to work with.
    """

    def __init__(self, url: URL, *, connections: int) -> None:
        self._url = url
        if url.drivername == "sqlite":
            self._reader = sqlite_engine(url, pool_size=connections, max_overflow=0)
            # SQLite has one writer at a time: waiting for the one connection is fair, waiting for its lock is not.
            self._writer = sqlite_engine(url, write=True, pool_size=1, max_overflow=0, pool_timeout=5)
        else:
            self._reader = postgresql_engine(
                url,
                pool_size=connections,
                max_overflow=0,
                pool_timeout=0.5,
                pool_use_lifo=True,
                # A read is then one round trip, with no BEGIN and no ROLLBACK. Reads are the many, so this is how
                # connections are made; a write, which has round trips anyway, switches for its time.
                isolation_level="AUTOCOMMIT",
                skip_autocommit_rollback=True,
            )
            self._writer = self._reader.execution_options(isolation_level="READ COMMITTED")

    def read(self, work: Callable[[CourseRepository], _T]) -> _T:
        """Do work that only reads; each of its statements sees what was committed before the statement began.

        Raises `DatabaseUnavailable`. A connection that turns out to be dead is replaced once.
        """
        with _meaningful_errors():
            try:
                with self._reader.connect() as connection:
                    return work(CourseRepository(connection))
            except DBAPIError as error:
                if not error.connection_invalidated:
                    raise
            with self._reader.connect() as connection:
                return work(CourseRepository(connection))

    def write(self, work: Callable[[CourseRepository], _T]) -> _T:
        """Do work in one transaction, which is committed when the work returns and rolled back when it raises.

        Raises `DatabaseUnavailable`.
        """
        with _meaningful_errors(), self._writer.begin() as connection:
            return work(CourseRepository(connection))

    def check(self) -> None:
        """Raise `DatabaseUnavailable` if the database does not answer, `SchemaMissing` if its schema is too old."""
        if self._url.drivername == "sqlite" and not Path(self._url.database or "").exists():
            raise SchemaMissing(None)
        with _meaningful_errors():
            try:
                with self._reader.connect() as connection:
                    found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
            except DBAPIError as error:
                if not _is_missing_table(error):
                    raise
                found = None
        # Revisions begin with their number, so a later one compares greater.
        if found is None or found < SCHEMA_REVISION:
            raise SchemaMissing(found)

    def close(self) -> None:
        """Close every connection."""
        self._reader.dispose()
        self._writer.dispose()


@contextlib.contextmanager
def _meaningful_errors() -> Iterator[None]:
    try:
        yield
    except PoolTimeoutError as error:
        raise DatabaseUnavailable from error
    except DBAPIError as error:
        if _is_unavailable(error):
            # The driver's text may quote statements, values and the server's address; its code may not.
            _log.warning("database unavailable: %s", describe(error))
            raise DatabaseUnavailable from error
        raise


def describe(error: DBAPIError) -> str:
    """Tell what kind of error it is, in words that hold neither statements nor values."""
    state = getattr(error.orig, "pgcode", None) or getattr(error.orig, "sqlite_errorname", None) or "no code"
    return f"{type(error.orig).__name__} ({state})"


def _is_unavailable(error: DBAPIError) -> bool:
    if error.connection_invalidated:
        return True
    match error.orig:
        case psycopg2.OperationalError(pgcode=None):  # no connection was made
            return True
        case psycopg2.Error(pgcode=str(state)):
            return state[:2] in _UNAVAILABLE_CLASSES or state in _DISCONNECT_STATES | {_LOCK_NOT_AVAILABLE}
        case sqlite3.Error() as cause:
            return getattr(cause, "sqlite_errorcode", 0) & 0xFF in _SQLITE_UNAVAILABLE
    return False


def _is_missing_table(error: DBAPIError) -> bool:
    match error.orig:
        case psycopg2.Error(pgcode=state):
            return bool(state == _UNDEFINED_TABLE)
        case sqlite3.OperationalError() as cause:
            return cause.sqlite_errorcode == sqlite3.SQLITE_ERROR
    return False
