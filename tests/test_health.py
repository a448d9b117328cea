"""Whether the process says rightly whether it can do its work."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import httpx2
import pytest
from grpc_health.v1 import health_pb2
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool

from course_service import health as health_module
from course_service.commands.health import is_serving
from course_service.errors import DatabaseUnavailable
from course_service.guard.guard import Guard
from course_service.health import PATIENCE, Health
from course_service.rest.app import make_app
from course_service.rest.places import Places
from course_service.rest.server import HttpServer
from course_service.rpc.health import LIVENESS, SERVICES, HealthServicer
from course_service.rpc.server import make_health_server
from course_service.store.database import Database
from course_service.store.models import SCHEMA_REVISION
from course_service.store.usability import DatabaseReadOnly, DatabaseUnusable
from tests.conftest import GUARD, TOKENS, PostgresServer, migrate
from tests.support.failures import grpc_failure
from tests.support.http import http_client
from tests.support.waiting import until

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
def own(empty_database_url: URL) -> Iterator[Database]:
    """A database that a test may spoil."""
    migrate(empty_database_url)
    database = Database(empty_database_url, connections=1)
    yield database
    database.close()


def change(url: URL, statement: str) -> None:
    with create_engine(url, poolclass=NullPool).begin() as connection:
        connection.execute(text(statement))


def look(health: Health, times: int = PATIENCE) -> bool:
    for _ in range(times):
        health.look()
        health.report()
    return health.is_ready


def test_it_is_ready_once_the_first_look_was_good(own: Database) -> None:
    health = Health(own)
    assert not health.is_ready
    assert look(health, 1)


def test_one_look_that_fails_is_no_outage_and_two_in_a_row_are(own: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise DatabaseUnavailable("no response in time")

    health = Health(own)
    look(health, 1)
    with monkeypatch.context() as patch:
        patch.setattr(own, "check", fail)
        assert look(health, 1)
    assert look(health, 1)
    with monkeypatch.context() as patch:
        patch.setattr(own, "check", fail)
        assert look(health, 1)
        assert not look(health, 1)
    assert look(health, 1)


def test_it_outlives_any_error(
    own: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise RuntimeError("canary")

    health = Health(own)
    with monkeypatch.context() as patch:
        patch.setattr(own, "check", fail)
        assert not look(health)
    assert look(health, 1)
    assert "canary" not in caplog.text


def test_a_look_that_does_not_end_counts_as_failed(own: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_module, "MAX_AGE_SECONDS", 0.2)
    monkeypatch.setattr(health_module, "INTERVAL_SECONDS", 0.01)
    monkeypatch.setattr(health_module, "_TICK_SECONDS", 0.01)
    stuck, release = threading.Event(), threading.Event()
    health = Health(own)
    health.start()
    assert health.is_ready

    def hang() -> None:
        stuck.set()
        release.wait(20)

    with monkeypatch.context() as patch:
        patch.setattr(own, "check", hang)
        assert stuck.wait(5)
        with health.changed:
            assert health.changed.wait_for(lambda: not health.is_ready, 5)
    release.set()
    with health.changed:
        assert health.changed.wait_for(lambda: health.is_ready, 5)
    health.stop()


@pytest.mark.parametrize("renamed", ["TABLE courses RENAME TO lessons", "TABLE courses RENAME COLUMN code TO kode"])
def test_a_table_or_column_that_is_gone_is_noticed(
    own: Database, empty_database_url: URL, caplog: pytest.LogCaptureFixture, renamed: str
) -> None:
    health = Health(own)
    look(health)
    change(empty_database_url, f"ALTER {renamed}")
    assert not look(health, PATIENCE + 1)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == [f"not serving: {DatabaseUnusable(f'a table or column of schema {SCHEMA_REVISION} is missing')}"]


def test_a_schema_that_is_gone_and_comes_back_is_noticed(own: Database, empty_database_url: URL) -> None:
    health = Health(own)
    assert look(health)
    change(empty_database_url, "ALTER TABLE alembic_version RENAME COLUMN version_num TO other")
    assert not look(health)
    change(empty_database_url, "ALTER TABLE alembic_version RENAME COLUMN other TO version_num")
    assert look(health, 1)


def test_a_server_that_accepts_no_writes_is_not_ready_and_says_so(
    postgres_server: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    with postgres_server.new_database() as url:
        migrate(url)
        database = Database(url, connections=1)
        health = Health(database)
        assert look(health)
        read_only = "ALTER DATABASE {} SET default_transaction_read_only = {}"
        postgres_server.execute(read_only.format(url.database, "on"))
        database.close()  # what is set for a database goes for new sessions
        assert not look(health)
        assert str(DatabaseReadOnly()) in caplog.text
        postgres_server.execute(read_only.format(url.database, "off"))
        assert look(health, 1)  # though the session that was read-only has not ended by itself
        database.close()


# As callers and probes see it


@contextlib.contextmanager
def served(database: Database) -> Iterator[tuple[Health, HealthServicer, str, httpx2.Client]]:
    health = Health(database)
    servicer = HealthServicer(health)
    server, port = make_health_server("127.0.0.1:0", servicer, Guard())
    server.start()
    http_server = HttpServer("127.0.0.1:0", make_app(database, TOKENS, health, GUARD, Places(1)))
    http_server.start()
    with http_client(f"http://127.0.0.1:{http_server.port}") as http:
        yield health, servicer, f"127.0.0.1:{port}", http
    http_server.stop()
    server.stop(None).wait()


def test_every_probe_follows_the_database_but_those_of_liveness(own: Database, empty_database_url: URL) -> None:
    with served(own) as (health, _, address, http), grpc.insecure_channel(address) as channel:
        check: Any = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            health_pb2.HealthCheckRequest.SerializeToString,
            health_pb2.HealthCheckResponse.FromString,
        )

        def seen() -> dict[str, object]:
            services = (*SERVICES, LIVENESS)
            by_grpc = {name: check(health_pb2.HealthCheckRequest(service=name)).status for name in services}
            by_http = {path: http.get(path).status_code for path in ("/livez", "/readyz")}
            return {**by_grpc, **by_http, "command": is_serving(address)}

        look(health)
        assert seen() == {
            "": SERVING, "course.v1.CourseService": SERVING, LIVENESS: SERVING,
            "/livez": 200, "/readyz": 200, "command": True,
        }  # fmt: skip
        change(empty_database_url, "ALTER TABLE courses RENAME TO lessons")
        look(health)
        assert seen() == {
            "": NOT_SERVING, "course.v1.CourseService": NOT_SERVING, LIVENESS: SERVING,
            "/livez": 200, "/readyz": 503, "command": False,
        }  # fmt: skip
        listed: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/grpc.health.v1.Health/List")
        assert listed(b"").count(LIVENESS.encode()) == 1
        failure = grpc_failure(check, health_pb2.HealthCheckRequest(service="other"))
        assert (failure.status, failure.reason) == ("NOT_FOUND", "SERVICE_UNKNOWN")


def watching(channel: grpc.Channel) -> Any:
    """Begin a call of Watch."""
    watch: Any = channel.unary_stream(
        "/grpc.health.v1.Health/Watch",
        health_pb2.HealthCheckRequest.SerializeToString,
        health_pb2.HealthCheckResponse.FromString,
    )
    return watch(health_pb2.HealthCheckRequest(), timeout=20)


def test_a_watcher_is_sent_each_change_once_and_its_call_ends_with_the_watches(own: Database) -> None:
    with served(own) as (health, servicer, address, _), grpc.insecure_channel(address) as channel:
        watch = watching(channel)
        assert next(watch).status == NOT_SERVING  # nobody has looked yet
        look(health)
        assert next(watch).status == SERVING
        look(health, 3)  # no news
        health.stop()
        assert next(watch).status == NOT_SERVING
        servicer.end_watches()
        assert grpc_code(lambda: next(watch)) is grpc.StatusCode.CANCELLED


def test_watchers_are_told_of_changes_after_one_for_whom_no_thread_could_be_started(
    own: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(own) as (health, servicer, address, _), grpc.insecure_channel(address) as channel:
        watch = watching(channel)
        assert next(watch).status == NOT_SERVING
        until(lambda: not any(each.is_busy for each in servicer._watchers))  # or the change goes out without a submit
        submit = servicer._senders.submit

        def submit_without_a_thread(*arguments: Any) -> None:
            submit(*arguments)
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patch:
            patch.setattr(servicer._senders, "submit", submit_without_a_thread)
            look(health)
            assert next(watch).status == SERVING
        health.stop()
        assert next(watch).status == NOT_SERVING
        watch.cancel()


def test_a_watcher_that_came_while_the_last_look_was_too_old_learns_of_the_next_one(own: Database) -> None:
    with served(own) as (health, _, address, _), grpc.insecure_channel(address) as channel:
        look(health)
        health._looked_at -= 2 * health_module.MAX_AGE_SECONDS  # as after a pause of the process
        watch = watching(channel)
        assert next(watch).status == NOT_SERVING
        health.look()  # and nobody has reported a change
        assert next(watch).status == SERVING
        watch.cancel()


def grpc_code(call: Callable[[], object]) -> object:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    assert isinstance(caught.value, grpc.Call)
    return caught.value.code()


def test_the_command_finds_no_service_where_there_is_none() -> None:
    assert not is_serving("127.0.0.1:1")
