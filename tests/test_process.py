"""The service as a process: it starts, answers, stops, and says in one line why it cannot."""

import asyncio
import contextlib
import fcntl
import functools
import os
import re
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx2
import pytest
import uvicorn
from alembic.util import CommandError
from course.v1 import course_pb2, course_pb2_grpc
from grpc_health.v1 import health_pb2
from sqlalchemy.engine import URL, make_url
from starlette.types import Receive, Scope, Send

from course_service.commands.common import open_database
from course_service.commands.health import is_serving
from course_service.ports import open_port
from course_service.rest.server import HttpServer
from course_service.settings import Settings
from course_service.startup import StartupError
from course_service.store import sqlite_engine
from course_service.store.database import Database
from course_service.store.usability import DatabaseUnusable
from tests.conftest import ROOT, PostgresServer, migrate
from tests.support.at_once import at_once
from tests.support.processes import environment_of, running


def test_start_call_stop_and_the_course_is_still_there(empty_database_url: URL) -> None:
    migrate(empty_database_url)
    with running(empty_database_url, COURSE_HTTP_ADDRESS="127.0.0.1:0") as process:
        with grpc.insecure_channel(process.grpc_address) as channel:
            request = course_pb2.CreateCourseRequest(course=course_pb2.Course(title="Biology"))
            created = course_pb2_grpc.CourseServiceStub(channel).CreateCourse(request)
        assert httpx2.get(f"{process.http_address}/{created.name}").json()["title"] == "Biology"
        assert process.stop() == 0
        assert process.log.endswith("stopped\n")
        assert re.search(
            r"Z INFO course_service\.calls: grpc CreateCourse OK \d+\.\d ms caller=anonymous course=courses/\S+\n",
            process.log,
        )
        assert "course_service.calls: http GetCourse OK" in process.log
        assert "Traceback" not in process.log
    with running(empty_database_url) as process:
        with grpc.insecure_channel(process.grpc_address) as channel:
            assert (
                course_pb2_grpc.CourseServiceStub(channel).GetCourse(course_pb2.GetCourseRequest(name=created.name))
                == created
            )
        assert process.stop(signal.SIGINT) == 0


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="only Linux says which thread gets a signal")
def test_a_signal_that_another_thread_gets_stops_it_too(migrated_url: URL) -> None:
    """What the main thread misses the moment before it waits looks the same to it."""
    with running(migrated_url) as process:
        main = process.popen.pid
        other = next(path.name for path in Path(f"/proc/{main}/task").iterdir() if path.name != str(main))
        os.kill(int(other), signal.SIGTERM)
        assert process.popen.wait(timeout=20) == 0


def test_after_sigterm_it_says_not_serving_and_goes_on_serving_for_a_while(migrated_url: URL) -> None:
    with (
        running(migrated_url, COURSE_DRAIN_SECONDS="30") as process,
        grpc.insecure_channel(process.grpc_address) as channel,
    ):
        watch = channel.unary_stream(
            "/grpc.health.v1.Health/Watch",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )(health_pb2.HealthCheckRequest(service="course.v1.CourseService"))
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        process.popen.send_signal(signal.SIGTERM)
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        created = course_pb2_grpc.CourseServiceStub(channel).CreateCourse(
            course_pb2.CreateCourseRequest(course=course_pb2.Course(title="Late"))
        )
        assert created.title == "Late"
        assert not is_serving(process.grpc_address)
        watch.cancel()
        assert process.stop(signal.SIGINT) == 0  # a second signal, from a terminal, ends the wait


def test_two_purges_beside_a_running_service(migrated_url: URL) -> None:
    with running(migrated_url) as process:
        purges = [
            subprocess.Popen(
                [sys.executable, "-m", "course_service", "purge"],
                cwd=ROOT,
                env=environment_of(COURSE_DATABASE_URL=str(migrated_url)),
                stderr=subprocess.PIPE,
                text=True,
            )
            for _ in range(2)
        ]
        for purge in purges:
            assert "purged 0 courses and 0 idempotency records" in purge.communicate(timeout=20)[1]
            assert purge.returncode == 0
        assert process.stop() == 0


def test_the_health_command_tells_by_its_exit_code(migrated_url: URL) -> None:
    def health(address: str) -> int:
        return subprocess.run(
            [sys.executable, "-m", "course_service", "health"],
            cwd=ROOT,
            env=environment_of(COURSE_GRPC_ADDRESS=address),
            check=False,
        ).returncode

    with running(migrated_url) as process:
        assert health(process.grpc_address) == 0
    assert health(process.grpc_address) == 1


def failed_start(**settings: str) -> str:
    """Start a service that cannot start; returns the one line that it says."""
    result = subprocess.run(
        [sys.executable, "-m", "course_service"],
        cwd=ROOT,
        env=environment_of(**settings),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert result.returncode == 1
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("course-service: ")
    assert "Traceback" not in result.stderr
    assert "canary" not in result.stderr
    return line


def test_a_missing_schema_says_what_to_run(tmp_path: Path) -> None:
    file = tmp_path / "course.db"
    line = failed_start(COURSE_DATABASE_URL=f"sqlite:///{file}")
    assert "no schema yet" in line
    assert "make migrate" in line
    assert not file.exists()


def test_a_missing_schema_on_postgresql_says_what_to_run(postgres_server: PostgresServer) -> None:
    with postgres_server.new_database() as url:
        assert "make migrate" in failed_start(COURSE_DATABASE_URL=url.render_as_string(hide_password=False))


def failed_migration(url: str) -> str:
    """Migrate what cannot be migrated; returns the one line that is said."""
    result = subprocess.run(
        [sys.executable, "-m", "course_service", "migrate"],
        cwd=ROOT,
        env=environment_of(COURSE_DATABASE_URL=url),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert result.returncode != 0
    (line,) = (result.stdout + result.stderr).splitlines()
    assert "canary" not in line
    return line


def failed_start_and_migration(url: str) -> list[str]:
    """Do both at once; returns the lines."""
    return at_once(lambda: failed_start(COURSE_DATABASE_URL=url), lambda: failed_migration(url))


@contextlib.contextmanager
def refusing_server(state: str, message: str) -> Iterator[str]:
    """A PostgreSQL that refuses every connection with an error; gives its URL."""
    fields = f"SFATAL\0VFATAL\0C{state}\0M{message}\0\0".encode()
    refusal = b"E" + struct.pack("!i", len(fields) + 4) + fields

    def refuse() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    while len(asked := connection.recv(1000)) == 8:  # for encryption
                        connection.sendall(b"N")
                    if asked:
                        connection.sendall(refusal)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=refuse, daemon=True).start()
        yield f"postgresql://canary:canary@127.0.0.1:{listener.getsockname()[1]}/canary"
        listener.shutdown(socket.SHUT_RDWR)


REFUSALS = [
    ("28P01", 'password authentication failed for user "canary"', "authentication failed"),
    ("28000", 'no pg_hba.conf entry for host "canary"', "authentication failed"),
    ("3D000", 'database "canary" does not exist', "no such database"),
    ("53300", "sorry, too many clients already", "too many connections"),
    ("57P03", "the database system is starting up", "it is starting up"),
    ("08P01", "unsupported startup parameter: options", "set COURSE_DATABASE_SESSION_SETTINGS=false"),
]


@pytest.mark.parametrize(("state", "message", "cause"), REFUSALS)
def test_it_is_said_why_the_database_refuses(state: str, message: str, cause: str) -> None:
    with (
        refusing_server(state, message) as url,
        pytest.raises(DatabaseUnusable, match="COURSE_DATABASE_URL cannot be") as caught,
    ):
        open_database(Settings(database_url=url), connections=1)
    assert cause in str(caught.value)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(("state", "message", "cause"), REFUSALS[-1:])
def test_start_and_migration_say_it_in_one_line(state: str, message: str, cause: str) -> None:
    with refusing_server(state, message) as url:
        for line in failed_start_and_migration(url):
            assert "COURSE_DATABASE_URL cannot be" in line
            assert cause in line


def test_start_and_migration_say_that_the_database_is_not_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for host, cause in {f"127.0.0.1:{port}": "connection refused", "canary.invalid": "unknown host"}.items():
        url = f"postgresql://canary:canary@{host}/canary"
        for line in failed_start_and_migration(url):
            assert cause in line


def test_a_file_that_cannot_be_written_is_said_to_be_read_only(
    migrated_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(migrated_url, connections=1)
    database.check()
    monkeypatch.setattr("os.access", lambda path, mode: mode != os.W_OK)  # root may write what nobody may
    with pytest.raises(DatabaseUnusable, match="the file is read-only"):
        database.check()
    database.close()


def test_a_migration_waits_for_another_one_and_gives_up_in_time(tmp_path: Path) -> None:
    url = make_url(f"sqlite:///{tmp_path / 'course.db'}")
    folder = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    with pytest.raises(CommandError, match="another migration has run for 1 s"):
        migrate(url, patience_seconds=1.0)
    os.close(folder)
    migrate(url)


def test_a_migration_waits_longer_for_a_locked_file_than_sqlite_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_engine, "LOCK_TIMEOUT_MS", 500)
    file = tmp_path / "course.db"
    holder = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    holder.execute("PRAGMA journal_mode=WAL")
    holder.execute("BEGIN IMMEDIATE")
    release = threading.Timer(1.5, holder.execute, ["ROLLBACK"])
    release.start()
    migrate(make_url(f"sqlite:///{file}"))
    release.join()
    holder.close()


def test_migrate_refuses_what_the_service_would_refuse(migrated_url: URL) -> None:
    assert migrated_url.database
    with contextlib.closing(sqlite3.connect(migrated_url.database)) as connection:
        connection.execute("ALTER TABLE courses RENAME TO lessons")
    for line in failed_start_and_migration(str(migrated_url)):
        assert "a table or column" in line


def test_two_colons_listen_on_ipv4_too() -> None:
    with open_port("[::]:0", "COURSE_HTTP_ADDRESS") as listener:
        socket.create_connection(("127.0.0.1", listener.getsockname()[1])).close()


def test_an_http_server_that_cannot_start_says_so_and_leaves_nobody_waiting() -> None:
    async def app(scope: Scope, receive: Receive, _: Send) -> None:
        assert scope["type"] == "lifespan"
        await receive()
        raise RuntimeError("canary")

    ended = threading.Event()
    server = HttpServer("127.0.0.1:0", app, on_end=ended.set)
    port = server.port
    with pytest.raises(StartupError, match="HTTP server cannot start"):
        server.start()
    assert ended.wait(5)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_an_http_server_that_ends_by_itself_is_noticed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(_: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def fail(self: uvicorn.Server) -> None:
        await asyncio.to_thread(serving.wait)
        raise RuntimeError("canary")

    serving, ended = threading.Event(), threading.Event()
    monkeypatch.setattr(uvicorn.Server, "main_loop", fail)
    server = HttpServer("127.0.0.1:0", app, on_end=ended.set)
    server.start()
    assert not ended.is_set()
    serving.set()
    assert ended.wait(5)
    assert server.has_ended
    assert "canary" not in caplog.text


def test_a_file_that_is_no_database_is_told_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "course.db"
    file.write_bytes(b"canary" * 1000)
    for line in failed_start_and_migration(f"sqlite:///{file}"):
        assert "SQLITE_NOTADB" in line
    assert "cannot be made" in failed_migration(f"sqlite:///{file}/sub/course.db")


def test_what_postgresql_does_not_take_is_told_in_one_line(postgres_server: PostgresServer) -> None:
    with postgres_server.new_database() as url:
        odd = url.set(query={**url.query, "canary": "x"}).render_as_string(hide_password=False)
        start, migration = failed_start_and_migration(odd)
        assert "cannot be used" in start
        assert "cannot be migrated" in migration
        postgres_server.execute("CREATE ROLE weak LOGIN")
        try:
            weak = url.set(username="weak").render_as_string(hide_password=False)
            assert "42501" in failed_migration(weak)
            migrate(url)
            assert "42501" in failed_start(COURSE_DATABASE_URL=weak)
        finally:
            postgres_server.execute("DROP ROLE weak")


def test_a_taken_port_is_named_with_its_setting(migrated_url: URL) -> None:
    """Also if it is that of another service: two never share one."""
    settings = ("COURSE_GRPC_ADDRESS", "COURSE_HTTP_ADDRESS", "COURSE_HEALTH_ADDRESS", "COURSE_METRICS_ADDRESS")
    with running(migrated_url) as process:
        taken = process.grpc_address
        starts = [
            functools.partial(failed_start, **{"COURSE_DATABASE_URL": str(migrated_url), setting: taken})
            for setting in settings
        ]
        for setting, line in zip(settings, at_once(*starts), strict=True):
            assert taken in line
            assert setting in line


def test_an_unknown_and_a_malformed_setting_are_named() -> None:
    line = failed_start(COURSE_THREADS="canary", COURSE_TYPO="canary")
    assert "COURSE_THREADS" in line
    assert "COURSE_TYPO" in line
