"""The service as a process: it starts, answers, stops, and says in one line why it cannot."""

import signal
import socket
import subprocess
import sys
from pathlib import Path

import grpc
import httpx2
import pytest
from course.v1 import course_pb2, course_pb2_grpc
from grpc_health.v1 import health_pb2
from sqlalchemy.engine import URL, make_url

from course_service.commands.health import is_serving
from tests.conftest import ROOT, PostgresServer, migrate
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
        assert "Traceback" not in process.log
    with running(empty_database_url) as process:
        with grpc.insecure_channel(process.grpc_address) as channel:
            assert (
                course_pb2_grpc.CourseServiceStub(channel).GetCourse(course_pb2.GetCourseRequest(name=created.name))
                == created
            )
        assert process.stop(signal.SIGINT) == 0


@pytest.fixture
def migrated_url(tmp_path: Path) -> URL:
    url = make_url(f"sqlite:///{tmp_path / 'course.db'}")
    migrate(url)
    return url


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


def test_an_unreachable_database_is_named_by_its_setting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    line = failed_start(COURSE_DATABASE_URL=f"postgresql://canary:canary@127.0.0.1:{port}/canary")
    assert "COURSE_DATABASE_URL cannot be used: connection refused" in line


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


def test_a_file_that_is_no_database_is_told_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "course.db"
    file.write_bytes(b"canary" * 1000)
    assert "SQLITE_NOTADB" in failed_start(COURSE_DATABASE_URL=f"sqlite:///{file}")
    assert "SQLITE_NOTADB" in failed_migration(f"sqlite:///{file}")
    assert "cannot be made" in failed_migration(f"sqlite:///{file}/sub/course.db")


def test_what_postgresql_does_not_take_is_told_in_one_line(postgres_server: PostgresServer) -> None:
    with postgres_server.new_database() as url:
        odd = url.set(query={**url.query, "canary": "x"}).render_as_string(hide_password=False)
        assert "cannot be used" in failed_start(COURSE_DATABASE_URL=odd)
        assert "cannot be migrated" in failed_migration(odd)
        postgres_server.execute("CREATE ROLE weak LOGIN")
        try:
            weak = url.set(username="weak").render_as_string(hide_password=False)
            assert "42501" in failed_migration(weak)
            migrate(url)
            assert "42501" in failed_start(COURSE_DATABASE_URL=weak)
        finally:
            postgres_server.execute("DROP ROLE weak")


@pytest.mark.parametrize("setting", ["COURSE_GRPC_ADDRESS", "COURSE_HTTP_ADDRESS"])
def test_a_taken_port_is_named_with_its_setting(migrated_url: URL, setting: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        line = failed_start(COURSE_DATABASE_URL=str(migrated_url), **{setting: address})
    assert address in line
    assert setting in line


def test_a_second_service_does_not_share_the_port_of_the_first(migrated_url: URL) -> None:
    with running(migrated_url) as process:
        line = failed_start(COURSE_DATABASE_URL=str(migrated_url), COURSE_GRPC_ADDRESS=process.grpc_address)
    assert process.grpc_address in line


def test_an_unknown_and_a_malformed_setting_are_named() -> None:
    line = failed_start(COURSE_THREADS="canary", COURSE_TYPO="canary")
    assert "COURSE_THREADS" in line
    assert "COURSE_TYPO" in line
