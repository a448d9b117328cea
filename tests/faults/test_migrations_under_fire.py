"""Migrations that start together, and a migration beside traffic."""

from __future__ import annotations

import contextlib
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from course.v1 import course_pb2
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.engine import URL

from course_service.store.database import Database
from course_service.store.models import SCHEMA_REVISION
from tests.conftest import ROOT
from tests.faults.support.callers import Caller
from tests.faults.support.counts import count
from tests.faults.support.figures import record
from tests.faults.support.load import courses
from tests.faults.support.postgres import Postgres
from tests.faults.support.service import FAULT, running
from tests.support.processes import environment_of

_AT_ONCE = 5
_HELD_SECONDS = 10.0
_BLOCKED_SECONDS = 2.5
"""The longest that a migration may keep a call waiting: its lock_timeout of 1 s, and some."""

# A migration that is yet to be written: it changes the table of all traffic.
_NEXT = f"""
from alembic import op

revision = "9999_next"
down_revision = "{SCHEMA_REVISION}"


def upgrade() -> None:
    {{first}}
    op.execute("ALTER TABLE courses ADD COLUMN next text")
"""


@contextlib.contextmanager
def empty_database(postgres: Postgres) -> Iterator[URL]:
    """A database without a schema."""
    name = f"empty_{secrets.token_hex(6)}"
    postgres.execute(f"CREATE DATABASE {name}")
    try:
        yield postgres.url.set(database=name)
    finally:
        postgres.execute(f"DROP DATABASE {name} WITH (FORCE)")


def start_migration(url: URL, fault: str | None) -> subprocess.Popen[str]:
    environment = environment_of(COURSE_DATABASE_URL=url.render_as_string(hide_password=False))
    return subprocess.Popen(
        [sys.executable, "-m", "tests.faults.support.faulty", "migrate"],
        cwd=ROOT,
        env={**environment, **({FAULT: fault} if fault else {})},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def failed_migrations(postgres: Postgres, rounds: int, fault: str | None = None) -> int:
    """Start five migrations at once on an empty database, some times; returns how many failed."""
    failed = 0
    for _ in range(rounds):
        with empty_database(postgres) as url:
            processes = [start_migration(url, fault) for _ in range(_AT_ONCE)]
            errors = [process.communicate(timeout=90)[1] for process in processes]
            failed += sum(process.returncode != 0 for process in processes)
            assert fault or not failed, errors
            with contextlib.closing(Database(url, connections=1)) as database:
                database.check()
    return failed


def test_replicas_that_start_together_all_migrate(postgres: Postgres) -> None:
    rounds = count(3, 20)
    failed = failed_migrations(postgres, rounds)
    record("G1", "replicas may start together", f"{failed} of {_AT_ONCE * rounds} migrations failed, schema right")
    assert failed == 0


def test_control_without_the_lock_migrations_fail(postgres: Postgres) -> None:
    rounds = count(1, 3)
    failed = failed_migrations(postgres, rounds, fault="no_migration_lock")
    record("G1", "replicas may start together", control=f"no lock: {failed} of {_AT_ONCE * rounds} fail")
    assert failed > 0


@dataclass(frozen=True)
class Figures:
    """What callers saw while a migration waited for a transaction that held the table."""

    migrated_after: float
    """Seconds from the end of the transaction to the end of the migration."""
    slowest: float
    """Seconds of the slowest call, of reads and writes."""
    calls: int
    failures: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"slowest of {self.calls:,} calls {self.slowest:.2f} s, {len(self.failures)} failed;"
            f" migrated {self.migrated_after:.1f} s after the transaction"
        )


def seen_beside_a_migration(postgres: Postgres, directory: Path, first: str = "pass") -> Figures:
    """Migrate while a transaction of 10 s holds the table, under reads and writes."""
    (directory / "9999_next.py").write_text(_NEXT.format(first=first))
    with (
        postgres.new_database() as url,
        running(url) as service,
        courses(service.grpc_address) as stub,
        held(url),
        contextlib.ExitStack() as stack,
    ):
        course = course_pb2.Course(title="Biology")
        name = stub.CreateCourse(course_pb2.CreateCourseRequest(course=course)).name
        callers = [
            Caller(lambda: stub.GetCourse(course_pb2.GetCourseRequest(name=name))),
            Caller(lambda: stub.ListCourses(course_pb2.ListCoursesRequest(page_size=5))),
            Caller(lambda: stub.CreateCourse(course_pb2.CreateCourseRequest(course=course))),
        ]
        for caller in callers:
            stack.callback(caller.stop)
        start = time.monotonic()
        upgrade(url, directory)
        took = time.monotonic() - start
        time.sleep(0.5)
        seen = [caller.seen() for caller in callers]
        return Figures(
            migrated_after=max(0.0, took - _HELD_SECONDS),
            slowest=max(each.slowest for each in seen) / 1000,
            calls=sum(len(each.latencies) for each in seen),
            failures=tuple(failure for each in seen for failure in each.failures),
        )


@contextlib.contextmanager
def held(url: URL) -> Iterator[None]:
    """Have a transaction hold the table for 10 s, as one that writes to it does."""
    with create_engine(url, poolclass=NullPool).connect() as connection:
        connection.execute(text("LOCK TABLE courses IN ROW EXCLUSIVE MODE"))
        release = threading.Timer(_HELD_SECONDS, connection.rollback)
        release.start()
        try:
            yield
        finally:
            release.join()


def upgrade(url: URL, directory: Path) -> None:
    """Run the repository's migrations and those of a directory."""
    configuration = Config(toml_file=ROOT / "pyproject.toml")
    configuration.set_main_option("path_separator", "os")
    configuration.set_main_option("version_locations", f"{ROOT / 'migrations' / 'versions'}:{directory}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COURSE_DATABASE_URL", url.render_as_string(hide_password=False))
        command.upgrade(configuration, "head")


def holds(figures: Figures) -> None:
    assert figures.migrated_after < 5, figures
    assert figures.slowest <= _BLOCKED_SECONDS, figures
    assert not figures.failures, figures.failures[:3]


def test_a_migration_gives_way_to_traffic(postgres: Postgres, tmp_path: Path) -> None:
    figures = seen_beside_a_migration(postgres, tmp_path)
    record("G2", "a migration never blocks traffic", str(figures))
    holds(figures)


def test_control_a_migration_that_waits_on_blocks_traffic(postgres: Postgres, tmp_path: Path) -> None:
    figures = seen_beside_a_migration(postgres, tmp_path, first='op.execute("SET lock_timeout = 0")')
    record("G2", "a migration never blocks traffic", control=f"no lock_timeout: {figures}")
    with pytest.raises(AssertionError):
        holds(figures)
