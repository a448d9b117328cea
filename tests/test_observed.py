"""Every call is observed once: whatever ends it, and by whichever face it came."""

import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import grpc
import httpx2
import pytest
from course.v1 import course_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from sqlalchemy.engine import URL

from course_service import errors
from course_service.call import Call
from course_service.guard.steps import Credentials
from course_service.rest.errors import HTTP_CODES
from course_service.rest.protocol import MAX_HEADER_BYTES
from course_service.store.courses import CourseRepository
from course_service.store.database import Database
from course_service.telemetry.telemetry import Telemetry
from tests.support.calls import call, create
from tests.support.waiting import until
from tests.support.watched import Watched, watched


@dataclass
class Observed:
    """The calls that have begun, and those that have ended."""

    begun: list[Call] = field(default_factory=list)
    ended: list[Call] = field(default_factory=list)


@pytest.fixture(scope="module")
def _observed_service(new_file: Callable[[], URL]) -> Iterator[tuple[Watched, Observed]]:
    observed = Observed()
    begin, end = Telemetry.begin, Telemetry.end

    def begins(self: Telemetry, this: Call, credentials: Credentials) -> None:
        observed.begun.append(this)
        begin(self, this, credentials)

    def ends(self: Telemetry, this: Call, seconds: float) -> None:
        end(self, this, seconds)
        observed.ended.append(this)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Telemetry, "begin", begins)
        patch.setattr(Telemetry, "end", ends)
        with watched(new_file()) as service:
            create(service, "taken")
            call(service, "PublishCourse", name="courses/taken")
            call(service, "ArchiveCourse", name="courses/taken")
            yield service, observed


@pytest.fixture
def service(_observed_service: tuple[Watched, Observed]) -> Watched:
    return _observed_service[0]


@pytest.fixture
def observed(_observed_service: tuple[Watched, Observed]) -> Observed:
    found = _observed_service[1]
    until(lambda: len(found.begun) == len(found.ended))
    found.begun.clear()
    found.ended.clear()
    return found


def once(service: Watched, observed: Observed, face: str, method: str, code: str) -> None:
    """Check that exactly one call was observed, by everything that observes."""
    until(lambda: len(observed.ended) >= 1)
    # What would observe it again does so in the same thread, before that turns to the next call.
    service.http.get("/livez")
    until(lambda: any(this.method == "http/health" for this in observed.ended))
    found = [this for this in observed.ended if this.method != "http/health"]
    assert [(this.face, this.method, this.code) for this in found] == [(face, method, code)]
    assert [this for this in observed.begun if this.method != "http/health"] == found
    assert service.value(f'course_calls_in_flight{{face="{face}"}}') == 0


def raising(error: BaseException) -> Callable[..., Any]:
    def work(*_: object, **__: object) -> Any:
        raise error

    return work


# By gRPC: what is sent, and what happens to a read of the database meanwhile.
GRPC: dict[str, tuple[str, dict[str, Any], BaseException | None]] = {
    "OK": ("GetCourse", {"name": "courses/taken"}, None),
    "INVALID_ARGUMENT": ("CreateCourse", {}, None),
    "NOT_FOUND": ("GetCourse", {"name": "courses/nope"}, None),
    "ALREADY_EXISTS": ("CreateCourse", {"course": {"title": "x"}, "course_id": "taken"}, None),
    "ABORTED": ("DeleteCourse", {"name": "courses/taken", "etag": '"x"'}, None),
    "FAILED_PRECONDITION": ("UpdateCourse", {"course": {"name": "courses/taken", "title": "x"}}, None),
    "RESOURCE_EXHAUSTED": ("GetCourse", {"name": "courses/a"}, errors.ResponseTooLarge()),
    "DEADLINE_EXCEEDED": ("GetCourse", {"name": "courses/a"}, errors.DeadlineExceeded()),
    "UNAVAILABLE": ("GetCourse", {"name": "courses/a"}, errors.DatabaseUnavailable("canary")),
    "INTERNAL": ("GetCourse", {"name": "courses/a"}, RuntimeError("canary")),
}


@pytest.mark.parametrize("code", GRPC)
def test_a_call_by_grpc_is_observed_once(
    service: Watched, observed: Observed, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    method, request, error = GRPC[code]
    if error:
        monkeypatch.setattr(CourseRepository, "get", raising(error))
    future = getattr(service.courses, method).future(getattr(course_pb2, f"{method}Request")(**request), timeout=30)
    assert future.code().name == code
    once(service, observed, "grpc", method, code)


def test_a_call_that_is_refused_because_there_are_too_many_is_observed_once(
    service: Watched, observed: Observed, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.fill_threads(monkeypatch)
    with pytest.raises(grpc.RpcError):
        call(service, "GetCourse", name="courses/a")
    monkeypatch.undo()
    once(service, observed, "grpc", "GetCourse", "RESOURCE_EXHAUSTED")


def test_a_system_exit_in_a_call_is_observed_once(
    service: Watched, observed: Observed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CourseRepository, "get", raising(SystemExit()))
    with pytest.raises(grpc.RpcError):
        call(service, "GetCourse", name="courses/a")
    once(service, observed, "grpc", "GetCourse", "INTERNAL")


def test_a_message_that_cannot_be_decoded_is_observed_once(service: Watched, observed: Observed) -> None:
    get: grpc.UnaryUnaryMultiCallable[bytes, bytes] = service.channel.unary_unary("/course.v1.CourseService/GetCourse")
    with pytest.raises(grpc.RpcError):
        get(b"\xff\xff")
    once(service, observed, "grpc", "GetCourse", "INVALID_ARGUMENT")


def test_a_method_that_does_not_exist_is_observed_once(service: Watched, observed: Observed) -> None:
    unknown: grpc.UnaryUnaryMultiCallable[bytes, bytes] = service.channel.unary_unary("/course.v1.CourseService/Get")
    with pytest.raises(grpc.RpcError):
        unknown(b"")
    once(service, observed, "grpc", "unknown", "UNIMPLEMENTED")


def test_a_call_whose_caller_leaves_is_observed_once(
    service: Watched, observed: Observed, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def slow(*_: object) -> None:
        inside.set()
        assert go_on.wait(10)

    monkeypatch.setattr(CourseRepository, "get", slow)
    waiting = service.courses.GetCourse.future(course_pb2.GetCourseRequest(name="courses/a"))
    assert inside.wait(5)
    waiting.cancel()
    # What comes later on the same connection is read later: after this the service knows that nobody waits.
    service.courses.ListCourses(course_pb2.ListCoursesRequest())
    until(lambda: len(observed.ended) == 1)
    observed.begun[:] = [this for this in observed.begun if this.method == "GetCourse"]
    observed.ended.clear()
    go_on.set()
    until(lambda: len(observed.ended) == 1)
    assert observed.ended[0].code in {"CANCELLED", "NOT_FOUND"}
    once(service, observed, "grpc", "GetCourse", observed.ended[0].code)


def test_a_stream_and_a_watch_of_health_are_observed_once(service: Watched, observed: Observed) -> None:
    method = "grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
    info = service.channel.stream_stream(
        f"/{method}",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    assert list(info(iter([reflection_pb2.ServerReflectionRequest(list_services="")] * 3)))
    once(service, observed, "grpc", method, "OK")
    observed.begun.clear()
    observed.ended.clear()
    watch = service.channel.unary_stream(
        "/grpc.health.v1.Health/Watch",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )(health_pb2.HealthCheckRequest())
    next(watch)
    watch.cancel()
    once(service, observed, "grpc", "grpc.health.v1.Health/Watch", "OK")


# By HTTP: what is sent; what happens to a read of the database meanwhile; how the call ends.
HTTP: dict[int, tuple[str, str, dict[str, Any], BaseException | None, str, str]] = {
    200: ("GET", "/courses/taken", {}, None, "GetCourse", "OK"),
    201: ("POST", "/courses", {"json": {"title": "x"}}, None, "CreateCourse", "OK"),
    204: ("DELETE", "/courses/nope?allow_missing=true", {}, None, "DeleteCourse", "OK"),
    400: ("PATCH", "/courses/taken", {"json": {"title": "x"}}, None, "UpdateCourse", "FAILED_PRECONDITION"),
    404: ("GET", "/courses/nope", {}, None, "GetCourse", "NOT_FOUND"),
    405: ("PUT", "/courses", {}, None, "unknown", "UNIMPLEMENTED"),
    409: ("POST", "/courses?course_id=taken", {"json": {"title": "x"}}, None, "CreateCourse", "ALREADY_EXISTS"),
    412: ("DELETE", "/courses/taken", {"headers": {"If-Match": '"x"'}}, None, "DeleteCourse", "ABORTED"),
    413: ("POST", "/courses", {"content": b" " * (2 << 20)}, None, "CreateCourse", "RESOURCE_EXHAUSTED"),
    415: ("POST", "/courses", {"content": b"x"}, None, "CreateCourse", "INVALID_ARGUMENT"),
    422: ("POST", "/courses", {"json": {}}, None, "CreateCourse", "INVALID_ARGUMENT"),
    429: ("GET", "/courses/a", {}, errors.Overloaded(), "GetCourse", "RESOURCE_EXHAUSTED"),
    431: ("GET", "/courses", {"headers": {"X": "x" * MAX_HEADER_BYTES}}, None, "unknown", "RESOURCE_EXHAUSTED"),
    500: ("GET", "/courses/a", {}, RuntimeError("canary"), "GetCourse", "INTERNAL"),
    503: ("GET", "/courses/a", {}, errors.DatabaseUnavailable("canary"), "GetCourse", "UNAVAILABLE"),
    504: ("GET", "/courses/a", {}, errors.DeadlineExceeded(), "GetCourse", "DEADLINE_EXCEEDED"),
}


@pytest.mark.parametrize("status", HTTP)
def test_a_call_by_http_is_observed_once(
    service: Watched, observed: Observed, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    verb, path, more, error, method, code = HTTP[status]
    if error:
        monkeypatch.setattr(CourseRepository, "get_many", raising(error))
        monkeypatch.setattr(CourseRepository, "get", raising(error))
    found = service.http.request(verb, path, **more).status_code
    assert found == (422 if status == 415 else status)  # a body that is no JSON is refused as one that is malformed
    once(service, observed, "http", method, code)


def test_no_status_of_either_face_is_left_out() -> None:
    left_out = {
        HTTPStatus.NOT_IMPLEMENTED,  # a method that HTTP has no route for is 405
        HTTPStatus.UNAUTHORIZED,  # nobody has to say who they are yet
        HTTPStatus.FORBIDDEN,
        499,  # below
    }
    assert {int(status) for status in HTTP_CODES.values()} - left_out <= set(HTTP)


def test_a_path_that_does_not_exist_is_observed_once(service: Watched, observed: Observed) -> None:
    assert service.http.get("/nowhere").status_code == 404
    once(service, observed, "http", "unknown", "NOT_FOUND")


def test_documentation_that_does_not_exist_is_observed_once(service: Watched, observed: Observed) -> None:
    assert service.http.get("/static-offline-docs/nope").status_code == 404
    once(service, observed, "http", "unknown", "NOT_FOUND")


def test_a_head_is_observed_once(service: Watched, observed: Observed) -> None:
    assert service.http.head("/courses/taken").status_code == 200
    once(service, observed, "http", "GetCourse", "OK")


def test_a_caller_that_leaves_within_its_body_is_observed_once(service: Watched, observed: Observed) -> None:
    url = service.http.base_url
    with socket.create_connection((url.host, url.port or 0), timeout=10) as connection:
        head = "POST /courses HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 20\r\n\r\n{"
        connection.sendall(head.encode())
        until(lambda: len(observed.begun) == 1)
    once(service, observed, "http", "CreateCourse", "CANCELLED")


def test_a_response_that_cannot_be_made_is_observed_once(
    service: Watched, observed: Observed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Database, "get", lambda *_: 1)  # no course
    with pytest.raises(grpc.RpcError):
        call(service, "GetCourse", name="courses/a")
    once(service, observed, "grpc", "GetCourse", "INTERNAL")
    observed.begun.clear()
    observed.ended.clear()
    assert service.http.get("/courses/a").status_code == 500
    once(service, observed, "http", "GetCourse", "INTERNAL")


def test_what_is_no_http_is_no_call(service: Watched, observed: Observed) -> None:
    url = service.http.base_url
    with socket.create_connection((url.host, url.port or 0), timeout=10) as connection:
        connection.sendall(b"nonsense\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 400 ")
    assert httpx2.get(f"{url}/livez").status_code == 200
    until(lambda: len(observed.ended) == 1)
    assert [this.method for this in observed.begun] == ["http/health"]


def test_a_write_says_which_courses_it_is_about_by_both_faces(service: Watched, observed: Observed) -> None:
    create(service, "one")
    once_more = {"course": {"title": "x"}, "request_id": "6f1f2a60-3e0b-4c57-9d5a-2f0f5d3b8a11"}
    made = call(service, "CreateCourse", **once_more).name
    assert call(service, "CreateCourse", **once_more).name == made  # and this is the course that there is
    batch = call(
        service, "BatchCreateCourses", requests=[{"course": {"title": "x"}, "course_id": i} for i in ("a", "b")]
    )
    assert len(batch.courses) == 2
    service.http.patch("/courses/one", json={"title": "y"})
    service.http.delete("/courses/nope")
    service.http.post("/courses?course_id=taken", json={"title": "x"})
    service.http.post("/courses", json={"title": ""})
    service.http.get("/courses/one")
    until(lambda: len(observed.ended) == 9)
    assert [this.course for this in observed.ended] == [
        "courses/one",
        made,
        made,
        "courses/a,courses/b",
        "courses/one",
        "courses/nope",
        "courses/taken",
        "",
        "",
    ]
