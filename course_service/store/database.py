"""The database: engines with the settings that each database needs, transactions, and what their errors mean."""

import contextlib
import logging
import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import psycopg2
from pydantic_core import from_json
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL
from sqlalchemy.engine.interfaces import DBAPIConnection, ExceptionContext
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import ConnectionPoolEntry

from course_service import deadline
from course_service.errors import DatabaseUnavailable, StartupError
from course_service.store.models import SCHEMA_REVISION
from course_service.store.repository import CourseRepository

_T = TypeVar("_T")

_log = logging.getLogger(__name__)

SESSION_SETTINGS = {
    "timezone": "UTC",
    "statement_timeout": "5000",
    "lock_timeout": "2000",
    "idle_in_transaction_session_timeout": "10000",
    "client_connection_check_interval": "1000",
}
"""What the service asks of a PostgreSQL session; times in milliseconds."""

_MAX_TRIES = 3
_PAUSE_SECONDS = 0.05

# A demoted primary (25006), and a server that is shutting down or starting up: the connection is of no more use.
_DISCONNECT_STATES = {"25006", "57P01", "57P02", "57P03"}
# Serialization failure and deadlock: the same transaction, tried again, has every chance.
_TRY_AGAIN_STATES = {"40001", "40P01"}
# Connection, rollback, resources, operator and system errors, and lock_timeout.
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


class DatabaseUnusable(StartupError):
    """The database answers, but not as the service needs it."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"the database of COURSE_DATABASE_URL cannot be used: {problem}")


def postgresql_engine(url: URL, *, session_settings: bool = True, **options: Any) -> Engine:  # noqa: ANN401  # create_engine's own
    """Make an engine that gives up connecting after 2 s, notices a dead peer, and asks for `SESSION_SETTINGS`."""
    connect_args: dict[str, object] = {
        "connect_timeout": 2,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 10_000,
        "application_name": "course-service",
        **url.query,
    }
    if session_settings:
        ours = " ".join(f"-c {name}={value}" for name, value in SESSION_SETTINGS.items())
        connect_args["options"] = f"{ours} {url.query.get('options', '')}".strip()
    engine = create_engine(url, connect_args=connect_args, hide_parameters=True, **options)

    @event.listens_for(engine, "handle_error")
    def leave_a_server_that_cannot_serve(context: ExceptionContext) -> None:
        if getattr(context.original_exception, "pgcode", None) in _DISCONNECT_STATES:
            context.is_disconnect = True

    return engine


def sqlite_engine(url: URL, *, create: bool = False, **options: Any) -> Engine:  # noqa: ANN401  # create_engine's own
    """Make an engine on a file that must exist, unless it is to be created."""
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

    return engine


class Database:
    """The courses' database, for `connections` threads at once.

    A use case is one call of `read` or `write`, with a function that gets the repository to work with. It may be called
    again when its first try was cut off, but never after the call's deadline.
    """

    def __init__(self, url: URL, *, connections: int, session_settings: bool = True) -> None:
        self._url = url
        # Nothing begins a transaction but `write`: a read is one round trip, with no BEGIN and no ROLLBACK.
        common: dict[str, Any] = {
            "isolation_level": "AUTOCOMMIT",
            "skip_autocommit_rollback": True,
            "max_overflow": 0,
            "json_deserializer": from_json,  # several times faster than json.loads
        }
        if url.drivername == "sqlite":
            # The default takes its lock at the first write, which loses updates; this takes it at once.
            self._begin = "BEGIN IMMEDIATE"
            self._reader = sqlite_engine(url, pool_size=connections, **common)
            # SQLite has one writer at a time: waiting for the one connection is fair, waiting for its lock is not.
            self._writer = sqlite_engine(url, pool_size=1, pool_timeout=5, **common)
        else:
            self._begin = "BEGIN"
            self._reader = self._writer = postgresql_engine(
                url,
                session_settings=session_settings,
                pool_size=connections,
                pool_timeout=0.5,
                pool_use_lifo=True,
                **common,
            )

    def read(self, work: Callable[[CourseRepository], _T]) -> _T:
        """Do work that only reads; each of its statements sees what was committed before the statement began.

        Raises `DatabaseUnavailable`.
        """

        def attempt() -> _T:
            with self._reader.connect() as connection:
                return work(CourseRepository(connection))

        return _try(attempt)

    def write(self, work: Callable[[CourseRepository], _T], *, repeatable: bool = False) -> _T:
        """Do work in one transaction, which is committed when the work returns and rolled back when it raises.

        `repeatable` work may be done again even if it is unknown whether it was committed. Raises
        `DatabaseUnavailable`; the work may have been committed then.
        """

        def attempt() -> _T:
            with self._writer.connect() as connection:
                with _rolled_back_on_error(connection, self._begin):
                    result = work(CourseRepository(connection))
                try:
                    connection.exec_driver_sql("COMMIT")
                except DBAPIError as error:
                    if error.connection_invalidated and not repeatable:
                        _log.warning("a COMMIT was not answered: %s", describe(error))
                        raise DatabaseUnavailable from error
                    _roll_back(connection)
                    raise
                return result

        return _try(attempt)

    def try_out(self, work: Callable[[CourseRepository], _T]) -> _T:
        """Do work as `write` does, and roll it back. Raises `DatabaseUnavailable`."""

        def attempt() -> _T:
            with self._writer.connect() as connection:
                with _rolled_back_on_error(connection, self._begin):
                    result = work(CourseRepository(connection))
                _roll_back(connection)
                return result

        return _try(attempt)

    def check(self) -> None:
        """See whether the database can be used.

        Raises `DatabaseUnavailable` if it does not answer, `SchemaMissing` if its schema is too old, and
        `DatabaseUnusable` for everything else.
        """
        if self._url.drivername == "sqlite" and not Path(self._url.database or "").exists():
            raise SchemaMissing(None)

        def attempt() -> str | None:
            with self._reader.connect() as connection:
                encoding = _encoding(connection)
                if encoding != "UTF8":
                    raise DatabaseUnusable(f"its encoding must be UTF8 and is {encoding}")
                found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
                return found

        try:
            found = _try(attempt, tell=False)
        except DBAPIError as error:
            if not _is_missing_table(error):
                raise DatabaseUnusable(describe(error)) from error
            found = None
        # Revisions begin with their number, so a later one compares greater.
        if found is None or found < SCHEMA_REVISION:
            raise SchemaMissing(found)

    def close(self) -> None:
        """Close every connection."""
        self._reader.dispose()
        self._writer.dispose()


@contextlib.contextmanager
def _rolled_back_on_error(connection: Connection, begin: str) -> Iterator[None]:
    connection.exec_driver_sql(begin)
    try:
        yield
    except BaseException:
        _roll_back(connection)
        raise


def _roll_back(connection: Connection) -> None:
    if connection.invalidated:
        return
    try:
        connection.exec_driver_sql("ROLLBACK")
    except DBAPIError:
        connection.invalidate()  # the server rolls back when the connection ends


def _try(attempt: Callable[[], _T], *, tell: bool = True) -> _T:
    """Make up to three attempts, as long as the last was cut off by what may have passed and the call has time."""
    for number in range(1, _MAX_TRIES + 1):
        try:
            return attempt()
        except PoolTimeoutError as error:
            raise DatabaseUnavailable from error
        except DBAPIError as error:
            if not _is_unavailable(error):
                raise
            if tell:
                # The driver's text may quote statements, values and the server's address; its code may not.
                _log.warning("database unavailable (try %d): %s", number, describe(error))
            pause = _PAUSE_SECONDS * random.uniform(0.5, 1.5) * (number - 1)  # noqa: S311  # not for secrets
            if number == _MAX_TRIES or not _may_pass(error) or deadline.remaining() <= pause:
                raise DatabaseUnavailable from error
        time.sleep(pause)
    raise AssertionError


def describe(error: DBAPIError) -> str:
    """Tell what kind of error it is, in words that hold neither statements nor values."""
    state = getattr(error.orig, "pgcode", None) or getattr(error.orig, "sqlite_errorname", None) or "no code"
    return f"{type(error.orig).__name__} ({state})"


def _may_pass(error: DBAPIError) -> bool:
    return error.connection_invalidated or getattr(error.orig, "pgcode", None) in _TRY_AGAIN_STATES


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


def _encoding(connection: Connection) -> str:
    driver = connection.connection.dbapi_connection
    if isinstance(driver, psycopg2.extensions.connection):
        return driver.info.parameter_status("server_encoding") or "unknown"
    return "UTF8"  # SQLite's default, and what the migrations make
