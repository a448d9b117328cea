"""The metrics: each call is counted where and how it ended, and the numbers are those of the service."""

import math
import re
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator

import grpc
import pytest
from course.v1 import course_pb2
from prometheus_client import generate_latest
from sqlalchemy.engine import URL
from sqlalchemy.exc import OperationalError

from course_service.settings import Settings
from course_service.store import faults
from course_service.store.courses import CourseRepository
from course_service.telemetry import metrics, scrapes
from course_service.telemetry.metrics import Metrics
from course_service.telemetry.scrapes import MetricsServer
from tests.conftest import ROOT
from tests.support.calls import call, create, failed
from tests.support.processes import environment_of, running
from tests.support.waiting import until
from tests.support.watched import Watched, watched


@pytest.fixture
def service(migrated_url: URL) -> Iterator[Watched]:
    with watched(migrated_url) as found:
        yield found


def calls(face: str, method: str, code: str) -> str:
    return f'course_call_duration_seconds_count{{code="{code}",face="{face}",method="{method}"}}'


def test_a_call_is_counted_by_its_face_its_method_and_how_it_ended(service: Watched) -> None:
    for _ in range(3):
        failed(service, "GetCourse", name="courses/nope")
        service.http.get("/courses/nope")
    create(service)
    service.http.post("/courses", json={})
    service.http.get("/nowhere")
    service.http.get("/docs")
    until(lambda: service.value(calls("http", "http/documentation", "OK")) == 1)
    assert service.value(calls("grpc", "GetCourse", "NOT_FOUND")) == 3
    assert service.value(calls("http", "GetCourse", "NOT_FOUND")) == 3
    assert service.value(calls("grpc", "CreateCourse", "OK")) == 1
    assert service.value(calls("http", "CreateCourse", "INVALID_ARGUMENT")) == 1
    assert service.value(calls("http", "unknown", "NOT_FOUND")) == 1


def test_whatever_is_called_the_labels_are_bounded(service: Watched) -> None:
    for index in range(50):
        for path in (f"/other.Service{index}/Get", f"/course.v1.CourseService/Get{index}"):
            unknown: grpc.UnaryUnaryMultiCallable[bytes, bytes] = service.channel.unary_unary(path)
            with pytest.raises(grpc.RpcError):
                unknown(b"")
        service.http.get(f"/path{index}")
        service.http.request(f"METHOD{index}", "/courses")
    until(lambda: service.value(calls("http", "unknown", "NOT_FOUND")) == 50)
    methods = set(re.findall(r'method="([^"]*)"', service.metrics()))
    assert methods == {"unknown"}


def test_calls_in_flight_are_those_that_have_not_ended(service: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, inside = threading.Event(), threading.Semaphore(0)

    def slow(*_: object, **__: object) -> list[object]:
        inside.release()
        assert go_on.wait(10)
        return []

    monkeypatch.setattr(CourseRepository, "page", slow)
    waiting = [service.courses.ListCourses.future(course_pb2.ListCoursesRequest()) for _ in range(2)]
    by_http = threading.Thread(target=lambda: service.http.get("/courses"))
    by_http.start()
    for _ in range(3):
        assert inside.acquire(timeout=5)
    assert service.value('course_calls_in_flight{face="grpc"}') == 2
    assert service.value('course_calls_in_flight{face="http"}') == 1
    assert service.value("course_database_connections_in_use") == 3
    go_on.set()
    by_http.join()
    for each in waiting:
        each.exception()
    until(lambda: "course_calls_in_flight{" in service.metrics() and not in_flight(service))
    assert service.value("course_database_connections_in_use") == 0
    assert service.value("course_database_connections_max") == 9  # readers, and SQLite's one writer


def in_flight(service: Watched) -> float:
    return sum(service.value(f'course_calls_in_flight{{face="{face}"}}') for face in ("grpc", "http"))


def test_calls_that_are_refused_because_there_are_too_many_are_counted(
    service: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.fill_threads(monkeypatch)
    monkeypatch.setattr(service.places, "is_full", lambda: True)
    assert failed(service, "GetCourse", name="courses/a").reason == "OVERLOADED"
    assert service.http.get("/courses/a").status_code == 429
    until(lambda: service.value('course_calls_shed_total{face="http"}') == 1)
    assert service.value('course_calls_shed_total{face="grpc"}') == 1


def test_units_of_work_are_counted_as_reads_and_writes(service: Watched) -> None:
    create(service, "mine")
    call(service, "PublishCourse", name="courses/mine", validate_only=True)
    failed(service, "GetCourse", name="courses/nope")
    service.http.get("/courses")
    assert service.value('course_database_seconds_count{kind="write"}') == 2
    assert service.value('course_database_seconds_count{kind="read"}') == 2
    call(service, "DeleteCourse", name="courses/mine")


def test_a_transaction_that_is_tried_again_is_counted(service: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = iter([OperationalError("", {}, Exception("cut off")), OperationalError("", {}, Exception("cut off"))])
    monkeypatch.setattr(faults, "is_unavailable", lambda _: True)
    monkeypatch.setattr(faults, "is_worth_retrying", lambda _: True)

    def get(*_: object) -> None:
        for error in tries:
            raise error

    monkeypatch.setattr(CourseRepository, "get", get)
    failed(service, "GetCourse", name="courses/nope")
    assert service.value("course_database_retries_total") == 2
    assert service.value('course_database_seconds_count{kind="read"}') == 1


def test_a_write_that_waits_for_its_turn_is_counted(service: Watched) -> None:
    with service.database._sqlite_turn:
        waiting = threading.Thread(target=create, args=[service])
        waiting.start()
        until(lambda: service.value("course_database_waits_total") == 1)
    waiting.join()
    create(service)
    assert service.value("course_database_waits_total") == 1


def test_it_is_seen_when_the_service_is_no_longer_ready(service: Watched) -> None:
    assert service.value("course_ready") == 1
    service.health.stop()
    assert "course_ready 0.0" in service.metrics()


def test_what_nobody_has_registered_is_absent(service: Watched) -> None:
    assert "timestamp_seconds" not in service.metrics().replace("process_start_time_seconds", "")
    shown = metrics.Metrics()
    expiry = 1.8e9
    shown.show_access(lambda: expiry, lambda: math.nan)
    text = generate_latest(shown.registry).decode()
    assert "course_certificate_expiry_timestamp_seconds 1.8e+09" in text
    assert "course_token_keys_loaded_timestamp_seconds" not in text
    expiry = 1.9e9  # read anew each time
    assert "course_certificate_expiry_timestamp_seconds 1.9e+09" in generate_latest(shown.registry).decode()
    with pytest.raises(ValueError, match="is no metric"):
        shown.show("course_mystery", lambda: 0)


def test_dropped_lines_are_counted(service: Watched) -> None:
    assert "course_log_lines_dropped_total 0.0" in service.metrics()
    service.log._drop(7)
    assert service.value("course_log_lines_dropped_total") == 7


def test_what_runs_is_seen(service: Watched) -> None:
    build = re.search(r'course_build_info\{python="([\d.]+)",version="([\d.]+)"\} 1.0', service.metrics())
    assert build
    assert build[1] == ".".join(map(str, sys.version_info[:3]))
    assert "process_resident_memory_bytes" in service.metrics()


def test_two_services_in_one_process_count_for_themselves() -> None:
    one, other = Metrics(), Metrics()
    one.retried()
    assert one.registry.get_sample_value("course_database_retries_total") == 1
    assert other.registry.get_sample_value("course_database_retries_total") == 0


def test_an_observer_that_fails_fails_no_call(service: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("canary")

    for step in ("begin", "end", "end_unit"):
        monkeypatch.setattr(Metrics, step, broken)
    create(service)
    assert service.http.get("/courses").status_code == 200


# The port


def test_only_the_metrics_are_at_their_port(service: Watched) -> None:
    server = service.telemetry._server
    assert server
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"http://127.0.0.1:{server.port}/courses", timeout=5)
    assert server.socket.getsockname()[0] == "127.0.0.1"


def test_readers_that_send_nothing_keep_no_other_from_reading_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    assert scrapes._Handler.timeout == 5
    monkeypatch.setattr(scrapes._Handler, "timeout", 0.5)
    server = MetricsServer("127.0.0.1:0", Metrics().registry)
    server.start()
    others = threading.active_count()
    silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(40)]
    assert silent[-1].recv(1) == b""  # disconnected at once: there is no room
    assert threading.active_count() == others + 16

    def is_read() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=5) as response:
                return bool(response.status == 200)
        except OSError:
            return False

    until(is_read)
    server.stop()
    for each in silent:
        each.close()


def test_a_reader_for_whom_there_is_no_thread_keeps_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    server = MetricsServer("127.0.0.1:0", Metrics().registry)
    server.start()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        for _ in range(17):
            with socket.create_connection(("127.0.0.1", server.port)) as reader:
                assert reader.recv(1) == b""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=5) as response:
        assert response.status == 200
    server.stop()


def test_a_service_has_metrics_where_its_setting_says(migrated_url: URL) -> None:
    with running(migrated_url, COURSE_METRICS_ADDRESS="127.0.0.1:0") as process:
        found = re.search(r"metrics on port (\d+) \(127\.0\.0\.1:0\)", process.log)
        assert found, process.log
        with urllib.request.urlopen(f"http://127.0.0.1:{found[1]}/metrics", timeout=5) as response:
            assert "course_ready 1.0" in response.read().decode()
        assert process.stop() == 0


def test_what_is_off_is_not_loaded() -> None:
    assert not Settings().metrics_address
    code = (
        "import io, sys; from course_service.commands import serve; from course_service.settings import Settings;"
        "from course_service.telemetry.logs import LogWriter;"
        "serve.open_telemetry(Settings(), LogWriter(io.StringIO())); print(*sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment_of(), capture_output=True, text=True, check=True
    )
    loaded = set(result.stdout.split())
    assert "prometheus_client" not in loaded
    assert not {name for name in loaded if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter"))}
