"""How Alembic reaches the database: the one of COURSE_DATABASE_URL, one migration at a time.

Replicas may start together. On PostgreSQL a session advisory lock lets one of them migrate while the others wait; on
SQLite a lock on the file's folder does. A migration that waits longer than 1 s for traffic is rolled back and tried
again, because everything that comes after it would wait behind it.
"""

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

from alembic import context
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, NullPool, event, func, select, text
from sqlalchemy.exc import DBAPIError, OperationalError

from course_service.settings import load_settings
from course_service.startup import StartupError
from course_service.store import faults, search_index
from course_service.store.models import METADATA, exists_on
from course_service.store.postgresql_engine import postgresql_engine
from course_service.store.sqlite_engine import sqlite_engine
from course_service.store.usability import check_encoding

_LOCK_KEY = 4_019_672_561  # any number that nothing else on this database locks
_PATIENCE_SECONDS: float = context.config.attributes.get("patience_seconds", 60.0)
_PAUSE_SECONDS = 0.1

_log = logging.getLogger("migrations")


def make_engine() -> Engine:
    """Make an engine on the database of the settings; SQLite's file is created if it does not exist."""
    url = load_settings().database
    if url.drivername != "sqlite":
        return postgresql_engine(url, poolclass=NullPool)
    try:
        Path(url.database or "").parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(f"the folder of COURSE_DATABASE_URL cannot be made: {error.strerror}") from None
    return _exclusive(sqlite_engine(url, create=True, poolclass=NullPool))


def _exclusive(engine: Engine) -> Engine:
    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


@contextlib.contextmanager
def turn(connection: Connection, deadline: float) -> Iterator[None]:
    """Wait until no other migration runs, and keep others waiting until this one is done."""
    if connection.dialect.name == "sqlite":
        folder = os.open(Path(load_settings().database.database or "").parent, os.O_RDONLY)
        try:
            while not _locked(folder):
                _pause(deadline)
            yield
        finally:
            os.close(folder)
        return
    while not connection.scalar(select(func.pg_try_advisory_lock(_LOCK_KEY))):  # the end of the connection frees it
        _pause(deadline)
    # Migrations may work long on a large table, but must not wait long for a lock.
    connection.execute(text("SET statement_timeout = 0"))
    connection.execute(text("SET lock_timeout = '1s'"))
    connection.execute(text("SET idle_in_transaction_session_timeout = 0"))
    connection.commit()
    yield


def _locked(folder: int) -> bool:
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _pause(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise CommandError(f"another migration has run for {_PATIENCE_SECONDS:.0f} s; see what it waits for")
    time.sleep(_PAUSE_SECONDS)


def migrate(connection: Connection) -> None:
    """Run the migrations that the command asks for, all or none."""
    context.configure(
        connection=connection,
        target_metadata=METADATA,
        transaction_per_migration=True,  # a migration that needs to can then do without
        transactional_ddl=True,  # also on SQLite, where each transaction here begins with BEGIN IMMEDIATE
        include_object=lambda _, name, *__: exists_on(name, connection.dialect.name),
        autogenerate_plugins=["alembic.autogenerate.*", "alembic.ext.checkconstraint_byname"],
    )
    with context.begin_transaction():
        context.run_migrations()


def migrated(engine: Engine, deadline: float) -> bool:
    """Migrate when it is this migration's turn; False if traffic held a lock, and there is time to try again."""
    try:
        with engine.connect() as connection, turn(connection, deadline):
            check_encoding(connection)
            migrate(connection)
            connection.commit()  # what it has read may have begun a transaction
            search_index.arrange(connection, context.config.attributes.get("search_index", "keep"))
    except OperationalError as error:
        if not faults.is_locked(error) or time.monotonic() > deadline:
            raise
        return False
    return True


def main() -> None:
    """Migrate; whatever prevents it ends in one line."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    # Of what Alembic logs, only which migrations run is news.
    logging.getLogger("alembic.runtime.migration").addFilter(lambda record: str(record.msg).startswith("Running"))
    logging.getLogger("alembic.runtime.plugins").setLevel(logging.WARNING)
    logging.getLogger("alembic.util.messaging").setLevel(logging.CRITICAL)  # Alembic prints its errors besides
    deadline = time.monotonic() + _PATIENCE_SECONDS
    try:
        engine = make_engine()
        while not migrated(engine, deadline):
            _log.info("the database is in use; trying again")
            time.sleep(_PAUSE_SECONDS)
    except StartupError as error:
        raise CommandError(str(error)) from None
    except DBAPIError as error:
        problem = faults.cause(error)
        raise CommandError(f"the database of COURSE_DATABASE_URL cannot be migrated: {problem}") from None


main()
