"""The database: transactions, what is done when they fail, and how many connections there are."""

from __future__ import annotations

import contextlib
import logging
import math
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from pydantic_core import from_json, to_json
from sqlalchemy import Connection, Engine, QueuePool
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from course_service import call
from course_service.course import Course
from course_service.errors import DatabaseUnavailable, DeadlineExceeded
from course_service.store import faults
from course_service.store.combined_reads import CombinedReads
from course_service.store.courses import CourseRepository
from course_service.store.idempotency_records import IdempotencyRecords
from course_service.store.postgresql_engine import PostgresqlConnection, postgresql_engine
from course_service.store.usability import (
    DatabaseReadOnly,
    DatabaseUnusable,
    check_encoding,
    check_file,
    check_schema,
    is_search_indexed,
)
from course_service.store.watching import Watch

_T = TypeVar("_T")

_log = logging.getLogger(__name__)

_MAX_TRIES = 3
_PAUSE_SECONDS = 0.05

_NOTHING = contextlib.nullcontext()


class Repositories:
    """What a use case works with: the repositories of its connection."""

    def __init__(self, connection: Connection) -> None:
        self.courses = CourseRepository(connection)
        self.records = IdempotencyRecords(connection)


class Database:
    """The courses' database, by so many `connections` at once, and one more that checks it.

    A use case is one call of `read` or `write`, with a function that gets the repositories to work with. It may be
    called again when its first try was cut off, but never after the deadline of the current call.
    """

    def __init__(
        self, url: URL, *, connections: int, session_settings: bool = True, watch: Watch | None = None
    ) -> None:
        self._url = url
        self._watch = watch
        # Only `write` and `try_out` begin a transaction: a read is one round trip, with no BEGIN and no ROLLBACK.
        common: dict[str, Any] = {
            "isolation_level": "AUTOCOMMIT",
            "skip_autocommit_rollback": True,
            "max_overflow": 0,
            "json_deserializer": from_json,  # several times faster than the standard library's, both
            "json_serializer": lambda value: to_json(value).decode(),
        }
        if url.drivername == "sqlite":
            from course_service.store.sqlite_engine import sqlite_engine

            self._reader = sqlite_engine(url, pool_size=connections, **common)
            self._writer = sqlite_engine(url, pool_size=1, **common)
            self._checker = sqlite_engine(url, pool_size=1, **common)
            self._transaction: Callable[[], contextlib.AbstractContextManager[Connection]] = self._sqlite_transaction
        else:
            common |= {"session_settings": session_settings, "pool_timeout": 0.5, "pool_use_lifo": True}
            self._reader = self._writer = postgresql_engine(url, pool_size=connections, **common)
            self._checker = postgresql_engine(url, pool_size=1, **common)
            self._transaction = self._postgresql_transaction
        self._sqlite_turn = threading.Semaphore()
        self._has_search_index = False  # as of the last check, for the operator may build and drop it at any time
        self._combined = CombinedReads(self._read)

    async def get(self, course_id: str) -> Course | None:
        """Return the course of an id, deleted or not, or None, as of a moment after the call began.

        It waits as `later.py` has it. Raises `DatabaseUnavailable`, `DeadlineExceeded`.
        """
        with self._unit("read"):
            return await self._combined.get(course_id)

    def shares_reads(self) -> bool:
        """Whether `get` shares its query with other calls at present, and waits for another thread."""
        return self._combined.shares()

    def read(self, work: Callable[[CourseRepository], _T]) -> _T:
        """Do work that only reads; each of its statements sees what was committed before the statement began.

        Raises `DatabaseUnavailable`, `DeadlineExceeded`.
        """
        with self._unit("read"):
            return self._read(work)

    def _read(self, work: Callable[[CourseRepository], _T]) -> _T:
        def attempt() -> _T:
            with self._connect(self._reader) as connection:
                return work(CourseRepository(connection, has_search_index=self._has_search_index))

        return self._try(attempt)

    def write(self, work: Callable[[Repositories], _T], *, repeatable: bool = False) -> _T:
        """Do work in one transaction, which is committed when the work returns and rolled back when it raises.

        `repeatable` work may be done again even if it is unknown whether it was committed. Raises
        `DatabaseUnavailable`, after which the work may have been committed, and `DeadlineExceeded`.
        """

        def attempt(commits: _Commits) -> _T:
            with self._transaction() as connection:
                with _rolled_back_on_error(connection):
                    result = work(Repositories(connection))
                try:
                    with commits:
                        connection.exec_driver_sql("COMMIT")
                except DBAPIError as error:
                    if commits.is_unknown and not repeatable:
                        raise DatabaseUnavailable(f"no response to a COMMIT: {faults.cause(error)}") from error
                    _roll_back(connection)
                    raise
                return result

        return self._written(attempt)

    def write_at_once(self, work: Callable[[Repositories], _T]) -> _T:
        """Do work that writes by its first statement alone, so that this can be a transaction of its own.

        The work may be done again even if it is unknown whether it was committed. Raises as `write` does.
        """
        if self._writer.dialect.name == "sqlite":  # there it would save nothing
            return self.write(work, repeatable=True)

        def attempt(commits: _Commits) -> _T:
            with self._connect(self._writer) as connection, commits:
                return work(Repositories(connection))

        return self._written(attempt)

    def _written(self, attempt: Callable[[_Commits], _T]) -> _T:
        commits = _Commits()
        with self._unit("write"):
            try:
                return self._try(lambda: attempt(commits))
            except DeadlineExceeded:
                if commits.is_unknown:  # which says that nothing was stored
                    raise DatabaseUnavailable("no response to a COMMIT, and no time to find out") from None
                raise

    def try_out(self, work: Callable[[Repositories], _T]) -> _T:
        """Do work as `write` does, and roll it back. Raises `DatabaseUnavailable`, `DeadlineExceeded`."""

        def attempt() -> _T:
            with self._transaction() as connection:
                with _rolled_back_on_error(connection):
                    result = work(Repositories(connection))
                _roll_back(connection)
                return result

        with self._unit("write"):
            return self._try(attempt)

    @property
    def connections_in_use(self) -> int:
        """How many connections units of work have now."""
        return sum(_pool_of(engine).checkedout() for engine in {self._reader, self._writer})

    @property
    def max_connections(self) -> int:
        """How many they may have."""
        return sum(_pool_of(engine).size() for engine in {self._reader, self._writer})

    def check(self) -> None:
        """Check that the database can be used.

        Raises `DatabaseUnavailable` if it does not respond, `DatabaseReadOnly` if it accepts no writes, `SchemaMissing`
        if its schema is too old, and `DatabaseUnusable` for everything else.
        """
        if self._url.drivername == "sqlite":
            check_file(self._url)
        try:
            self._try(self._check)
        except DatabaseReadOnly:
            self._leave()
            raise
        except DBAPIError as error:
            raise DatabaseUnusable(faults.cause(error)) from error
        except DeadlineExceeded:
            raise DatabaseUnavailable("the statement took too long") from None

    def close(self) -> None:
        """Close every connection."""
        self._combined.close()
        self._leave()

    def _leave(self) -> None:
        """Close every connection, those in use when their work is done: another host may be better."""
        for engine in (self._reader, self._writer, self._checker):
            engine.dispose()

    def _check(self) -> None:
        with self._checker.connect() as connection:
            check_encoding(connection)
            self._has_search_index = is_search_indexed(connection)
            check_schema(connection)

    def _unit(self, kind: str) -> contextlib.AbstractContextManager[None]:
        return self._watch.unit(kind) if self._watch else _NOTHING

    def _connect(self, engine: Engine) -> Connection:
        if self._watch and _pool_of(engine).checkedout() >= _pool_of(engine).size():
            self._watch.waited()
        return engine.connect()

    def _try(self, attempt: Callable[[], _T]) -> _T:
        """Make up to three attempts, as long as the last was cut off by what may have passed and the call has time."""
        for number in range(1, _MAX_TRIES + 1):
            try:
                return attempt()
            except PoolTimeoutError as error:
                raise DatabaseUnavailable("all connections of this process are in use") from error
            except DBAPIError as error:
                if faults.is_timeout(error):
                    raise DeadlineExceeded from error
                if not faults.is_unavailable(error):
                    raise
                if faults.is_locked(error) and call.remaining() <= 0:
                    raise DeadlineExceeded from error
                pause = _PAUSE_SECONDS * random.uniform(0.5, 1.5) * (number - 1)  # noqa: S311  # not for secrets
                cause = faults.cause(error)
                if number == _MAX_TRIES or not faults.is_worth_retrying(error) or call.remaining() <= pause:
                    raise DatabaseUnavailable(cause) from error
                _log.info("a transaction is tried again: %s", cause)
                if self._watch:
                    self._watch.retried()
            with call.idle():
                time.sleep(pause)
        raise AssertionError

    @contextlib.contextmanager
    def _postgresql_transaction(self) -> Iterator[Connection]:
        with self._connect(self._writer) as connection:
            driver = connection.connection.dbapi_connection
            assert isinstance(driver, PostgresqlConnection)
            driver.begins = True
            yield connection

    @contextlib.contextmanager
    def _sqlite_transaction(self) -> Iterator[Connection]:
        from course_service.store.sqlite_engine import LOCK_TIMEOUT_MS

        # SQLite has one writer at a time. Those of this process queue here, because SQLite's own wait for the file's
        # lock, which another process may hold, is a poll.
        if not self._sqlite_turn.acquire(blocking=False):
            if self._watch:
                self._watch.waited()
            with call.idle():
                has_turn = self._sqlite_turn.acquire(timeout=max(0.0, min(LOCK_TIMEOUT_MS / 1000, call.remaining())))
            if not has_turn:
                raise DeadlineExceeded if call.remaining() <= 0 else DatabaseUnavailable("too many writes wait")
        try:
            with self._writer.connect() as connection:
                wait = max(0, min(LOCK_TIMEOUT_MS, math.ceil(call.remaining() * 1000)))
                connection.exec_driver_sql(f"PRAGMA busy_timeout={wait}")
                # The default takes its lock at the first write, which loses updates; this takes it at once.
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                yield connection
        finally:
            self._sqlite_turn.release()


class _Commits:
    """Around each statement that commits: notes it if one was not answered."""

    def __init__(self) -> None:
        self.is_unknown = False
        """Whether it is unknown if something was committed."""

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        """Note how it ended."""
        if isinstance(error, DBAPIError) and error.connection_invalidated:
            self.is_unknown = True


@contextlib.contextmanager
def _rolled_back_on_error(connection: Connection) -> Iterator[None]:
    try:
        yield
    except BaseException:
        _roll_back(connection)
        raise


def _pool_of(engine: Engine) -> QueuePool:
    assert isinstance(engine.pool, QueuePool)  # SQLAlchemy's own choice for servers and files
    return engine.pool


def _roll_back(connection: Connection) -> None:
    if connection.invalidated:
        return
    try:
        connection.exec_driver_sql("ROLLBACK")
    except DBAPIError:
        connection.invalidate()  # the server rolls back when the connection ends
