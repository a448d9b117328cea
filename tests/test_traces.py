"""The traces: a span for each call and for each unit of work, in the trace of the caller, and nothing else."""

import json
import logging
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from course.v1 import course_pb2
from opentelemetry import trace
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sqlalchemy.engine import URL

from course_service.errors import Overloaded
from course_service.settings import Settings
from course_service.startup import StartupError
from course_service.store.courses import CourseRepository
from course_service.telemetry import traces
from tests.support.calls import create, failed
from tests.support.collector import Collector, attributes, collecting
from tests.support.failures import grpc_failure, http_failure
from tests.support.waiting import until
from tests.support.watched import Watched, watched
from tests.test_process import failed_start

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT_ID = "00f067aa0ba902b7"
RECORDED, NOT_RECORDED = (f"00-{TRACE_ID}-{PARENT_ID}-{flags}" for flags in ("01", "00"))


@pytest.fixture
def url(migrated_url: URL) -> URL:
    return migrated_url


@pytest.fixture(scope="module")
def _collector() -> Iterator[Collector]:
    with collecting() as found:
        yield found


@pytest.fixture(scope="module")
def _service(new_file: Callable[[], URL], _collector: Collector) -> Iterator[Watched]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(traces, "_PAUSE_SECONDS", 0.05)
        with watched(new_file(), otlp_endpoint=_collector.url) as found:
            yield found


@pytest.fixture
def collector(_collector: Collector, monkeypatch: pytest.MonkeyPatch) -> Collector:
    """A collector that has received nothing yet, and services that send to it soon."""
    monkeypatch.setattr(traces, "_PAUSE_SECONDS", 0.05)
    _collector.bodies.clear()
    return _collector


@pytest.fixture
def service(_service: Watched, collector: Collector) -> Iterator[Watched]:
    """A service that has logged nothing yet, and sends to an empty collector."""
    _service.stream.truncate(0)
    _service.stream.seek(0)
    yield _service
    assert _service.telemetry._traces
    _service.telemetry._traces._provider.force_flush()  # what comes later would be taken for the next test's


def received(collector: Collector, count: int) -> list[Span]:
    """Wait for so many spans, and for none more; returns them by their beginning."""
    until(lambda: len(collector.spans) >= count)
    time.sleep(0.2)  # nothing says that no more will come
    assert len(collector.spans) == count, [span.name for span in collector.spans]
    return sorted(collector.spans, key=lambda span: span.start_time_unix_nano)


def get_by_grpc(service: Watched, name: str, *metadata: tuple[str, str]) -> None:
    with pytest.raises(grpc.RpcError):
        service.courses.GetCourse(course_pb2.GetCourseRequest(name=name), metadata=metadata, timeout=20)


@pytest.mark.parametrize("face", ["grpc", "http"])
def test_a_call_has_one_span_and_its_unit_of_work_another_in_the_trace_of_the_caller(
    service: Watched, collector: Collector, face: str
) -> None:
    if face == "grpc":
        get_by_grpc(service, "courses/nope", ("traceparent", RECORDED), ("tracestate", "canary=1"))
    else:
        service.http.get("/courses/nope", headers={"traceparent": RECORDED, "tracestate": "canary=1"})
    call, unit = received(collector, 2)
    assert {span.trace_id.hex() for span in (call, unit)} == {TRACE_ID}
    assert call.parent_span_id.hex() == PARENT_ID
    assert (call.name, call.kind) == ("GetCourse", Span.SPAN_KIND_SERVER)
    assert attributes(call) == {
        "rpc.system": face,
        "rpc.method": "GetCourse",
        "course.caller": "anonymous",
        "course.code": "NOT_FOUND",
        "course.reason": "COURSE_NOT_FOUND",
    }
    assert unit.parent_span_id == call.span_id
    assert (unit.name, unit.kind, attributes(unit)) == ("database read", Span.SPAN_KIND_CLIENT, {})
    assert not [span.events for span in (call, unit) if span.events]
    assert {span.status.code for span in (call, unit)} == {Status.STATUS_CODE_UNSET}
    assert not call.trace_state
    line = next(line for line in logged(service) if line.get("method") == "GetCourse")
    assert line["trace_id"] == TRACE_ID


@pytest.mark.parametrize("error", [None, Overloaded()], ids=["found nothing", "overloaded"])
def test_an_error_names_the_trace_in_which_it_happened(
    service: Watched, monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    def get(*_: object) -> None:
        if error:
            raise error

    monkeypatch.setattr(CourseRepository, "get", get)
    request = course_pb2.GetCourseRequest(name="courses/nope")
    future = service.courses.GetCourse.future(request, metadata=(("traceparent", RECORDED),), timeout=20)
    response = service.http.get("/courses/nope", headers={"traceparent": RECORDED})
    for failure in (grpc_failure(future.result), http_failure(response, response.status_code)):
        assert failure.metadata["traceId"] == TRACE_ID


def logged(service: Watched) -> list[dict[str, Any]]:
    until(lambda: "GetCourse" in service.stream.getvalue())
    return [json.loads(line) for line in service.stream.getvalue().splitlines()]


def test_a_write_has_a_span_of_its_own_kind(service: Watched, collector: Collector) -> None:
    create(service)
    assert [span.name for span in received(collector, 2)] == ["CreateCourse", "database write"]


def test_what_reaches_no_database_has_no_second_span(service: Watched, collector: Collector) -> None:
    service.http.get("/nowhere")
    failed(service, "CreateCourse")
    assert {span.name for span in received(collector, 2)} == {"unknown", "CreateCourse"}


@pytest.mark.parametrize(
    "parent", ["", "canary", RECORDED[:-1], RECORDED.replace(TRACE_ID, "0" * 32), f"ff{RECORDED[2:]}"]
)
def test_a_malformed_parent_is_ignored(service: Watched, collector: Collector, parent: str) -> None:
    get_by_grpc(service, "courses/nope", ("traceparent", parent))
    service.http.get("/courses/nope", headers={"traceparent": parent})
    calls = [span for span in received(collector, 4) if span.name == "GetCourse"]
    assert [span.parent_span_id for span in calls] == [b"", b""]
    assert len({span.trace_id for span in calls} - {bytes.fromhex(TRACE_ID)}) == 2


def test_two_parents_are_none(service: Watched, collector: Collector) -> None:
    # By HTTP: gRPC itself keeps one of them.
    service.http.get("/courses/nope", headers=[("traceparent", RECORDED), ("traceparent", RECORDED)])
    assert received(collector, 2)[0].parent_span_id == b""


def test_a_trace_that_its_caller_does_not_record_is_not_recorded(service: Watched, collector: Collector) -> None:
    get_by_grpc(service, "courses/nope", ("traceparent", NOT_RECORDED))
    service.http.get("/courses/nope", headers={"traceparent": NOT_RECORDED})
    received(collector, 0)
    assert next(line["trace_id"] for line in logged(service) if line.get("method") == "GetCourse") == TRACE_ID


def test_of_the_traces_that_begin_here_only_a_ratio_is_recorded(url: URL, collector: Collector) -> None:
    with watched(url, otlp_endpoint=collector.url, trace_sample_ratio=0.0) as service:
        get_by_grpc(service, "courses/nope")
        get_by_grpc(service, "courses/nope", ("traceparent", RECORDED))
        assert {span.trace_id.hex() for span in received(collector, 2)} == {TRACE_ID}


def test_only_faults_of_the_service_are_errors(
    service: Watched, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("canary")

    monkeypatch.setattr(CourseRepository, "get", broken)
    assert failed(service, "GetCourse", name="courses/a").status == "INTERNAL"
    call, unit = received(collector, 2)
    for span in (call, unit):
        assert (span.status.code, span.status.message) == (Status.STATUS_CODE_ERROR, "")
        assert not span.events
    assert attributes(call)["course.code"] == "INTERNAL"


def test_what_still_waits_is_sent_at_the_end(url: URL, collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "_PAUSE_SECONDS", 60.0)
    with watched(url, otlp_endpoint=f"{collector.url}/") as service:
        get_by_grpc(service, "courses/nope")
        assert not collector.spans
    assert len(collector.spans) == 2


@pytest.fixture(params=["closed", "silent", "failing"])
def dead_collector(request: pytest.FixtureRequest) -> Iterator[str]:
    """A collector that refuses connections, or never responds, or responds with an error."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://canary:canary@127.0.0.1:{listener.getsockname()[1]}"
        if request.param == "closed":
            listener.close()
        elif request.param == "failing":
            threading.Thread(target=refuse, args=[listener], daemon=True).start()
        yield address
        if request.param == "failing":
            listener.shutdown(socket.SHUT_RDWR)


def refuse(listener: socket.socket) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            connection.recv(100_000)
            connection.sendall(b"HTTP/1.1 503 canary\r\nContent-Length: 6\r\nConnection: close\r\n\r\ncanary")


def test_a_dead_collector_slows_nothing_and_is_said_once(
    url: URL, dead_collector: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(traces, "_SEND_SECONDS", 0.3)
    monkeypatch.setattr(traces, "_MAX_WAITING", 64)
    monkeypatch.setattr(traces, "_MAX_BATCH", 16)
    caplog.set_level(logging.DEBUG)
    said = "spans could not be sent to COURSE_OTLP_ENDPOINT"
    with watched(url, otlp_endpoint=dead_collector) as service:
        slowest = 0.0
        for _ in range(200):
            start = time.monotonic()
            get_by_grpc(service, "courses/nope")
            slowest = max(slowest, time.monotonic() - start)
        assert slowest < 1
        until(lambda: said in caplog.text, 10)
        for _ in range(50):
            get_by_grpc(service, "courses/nope")
        start = time.monotonic()
        service.telemetry.close()
        assert time.monotonic() - start < 2
        assert caplog.text.count(said) == 1
        assert "canary" not in caplog.text + service.stream.getvalue()
        assert "onnection" not in caplog.text


# FastAPI's own telemetry


def test_nobody_elses_tracer_gets_a_span_or_a_query(service: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)  # as another library of the process would set it
    service.http.get("/courses?filter=canary")
    service.http.get("/courses/nope")
    service.http.get("/docs?canary")
    assert [span.name for span in exporter.get_finished_spans()] == []


def test_without_the_extra_one_line_says_so(monkeypatch: pytest.MonkeyPatch, url: URL) -> None:
    monkeypatch.delitem(sys.modules, "course_service.telemetry.traces")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    said = r"^COURSE_OTLP_ENDPOINT is set, but \S+ is missing; install course-service\[otel\]$"
    with pytest.raises(StartupError, match=said), watched(url, otlp_endpoint="http://127.0.0.1:1"):
        pass


def test_traces_are_off_unless_they_are_asked_for(url: URL) -> None:
    assert (Settings().otlp_endpoint, Settings().trace_sample_ratio) == ("", 1.0)
    assert "COURSE_OTLP_ENDPOINT" in failed_start(COURSE_OTLP_ENDPOINT="canary", COURSE_DATABASE_URL=str(url))
