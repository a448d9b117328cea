"""Nothing of what callers send, and no text of an exception, is in the log, the metrics or the traces.

Every field, query, header and path that can hold a text holds a canary. What may be there: the names of courses that
are written, and request ids.
"""

import contextlib
import http.client
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from course.v1 import course_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from grpc_status import rpc_status
from sqlalchemy.engine import URL
from sqlalchemy.exc import IntegrityError, OperationalError

from course_service import services
from course_service.store.courses import CourseRepository
from course_service.telemetry import traces
from tests.support.calls import call, create
from tests.support.collector import Collector, collecting
from tests.support.waiting import until
from tests.support.watched import Watched, watched

CANARY = "canary"
METHODS = [method.name for method in course_pb2.DESCRIPTOR.services_by_name["CourseService"].methods]
USE_CASES = {
    "CreateCourse": "create_course",
    "GetCourse": "get_course",
    "ListCourses": "list_courses",
    "UpdateCourse": "update_course",
    "DeleteCourse": "delete_course",
    "UndeleteCourse": "undelete_course",
    "PublishCourse": "publish_course",
    "ArchiveCourse": "archive_course",
    "BatchGetCourses": "batch_get_courses",
    "BatchCreateCourses": "batch_create_courses",
}
METADATA = (
    ("traceparent", "00-canary"),
    ("tracestate", "canary=canary"),
    ("authorization", "Bearer canary"),
    ("x-canary", "canary"),
)
HEADERS = {**dict(METADATA), "User-Agent": "canary", "Cookie": "canary=canary", "Referer": "http://canary/"}


@dataclass(frozen=True)
class Seen:
    """A service, and everything that is seen of it."""

    service: Watched
    collector: Collector
    records: list[logging.LogRecord]
    """What has reached the root logger, where the service has its handler."""

    def check(self, calls: int) -> None:
        """Check that so many calls have been seen, and no canary."""
        written = self.service.stream.getvalue
        until(lambda: written().count('"duration_ms"') >= calls)
        until(lambda: sum(span.parent_span_id == b"" for span in self.collector.spans) >= calls)
        # The callers are of this process too.
        records = [record for record in self.records if not record.name.startswith(("http", "h2"))]
        places = {
            "the calls' lines": written(),
            "the log": " ".join(f"{record.name} {record.getMessage()} {record.exc_info}" for record in records),
            "the metrics": self.service.metrics(),
            "the traces": b"".join(self.collector.bodies).decode("latin-1"),
        }
        assert not [place for place, text in places.items() if CANARY in text.lower()], places


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture(scope="module")
def _service(new_file: Callable[[], URL]) -> Iterator[tuple[Watched, Collector]]:
    with pytest.MonkeyPatch.context() as patch, collecting() as collector:
        patch.setattr(traces, "_PAUSE_SECONDS", 0.05)
        with watched(new_file(), otlp_endpoint=collector.url) as service:
            yield service, collector


@pytest.fixture
def seen(_service: tuple[Watched, Collector], caplog: pytest.LogCaptureFixture) -> Iterator[Seen]:
    service, collector = _service
    service.stream.truncate(0)
    service.stream.seek(0)
    collector.bodies.clear()
    caplog.set_level(logging.DEBUG)
    kept = Kept()
    logging.getLogger().addHandler(kept)
    yield Seen(service, collector, kept.records)
    logging.getLogger().removeHandler(kept)


def filled(descriptor: Descriptor) -> dict[str, Any]:
    """A message with a canary in every field that can hold one."""
    return {field.name: value for field in descriptor.fields if (value := filled_field(field)) is not None}


def filled_field(field: FieldDescriptor) -> Any:
    kind = field.message_type
    if kind and kind.GetOptions().map_entry:
        return {CANARY: CANARY}
    if kind and kind.full_name == "google.protobuf.FieldMask":
        return {"paths": [CANARY]}
    if kind and kind.full_name.startswith("google.protobuf."):
        return None
    value = filled(kind) if kind else CANARY if field.type == FieldDescriptor.TYPE_STRING else None
    return [value] if field.is_repeated and value is not None else value


def by_grpc(seen: Seen, method: str, request: dict[str, Any]) -> Message | None:
    message = getattr(course_pb2, f"{method}Request")(**request)
    with contextlib.suppress(grpc.RpcError):
        response: Message = getattr(seen.service.courses, method)(message, metadata=METADATA, timeout=20)
        return response
    return None


def test_a_canary_in_every_field_by_grpc(seen: Seen) -> None:
    for method in METHODS:
        request = filled(getattr(course_pb2, f"{method}Request").DESCRIPTOR)
        assert CANARY in str(request)
        by_grpc(seen, method, request)
        for name, value in request.items():  # each alone gets further than all together
            by_grpc(seen, method, {name: value})
    seen.check(len(METHODS))


COURSE = {
    "title": CANARY,
    "code": CANARY,
    "description": CANARY,
    "owner": "users/canary",
    "subjects": [CANARY],
    "labels": {CANARY: CANARY},
    "external_ids": {CANARY: CANARY},
}


def test_a_canary_in_every_valid_field_by_grpc(seen: Seen) -> None:
    created = create(seen.service, "mine", **COURSE)
    call(seen.service, "UpdateCourse", course={"name": "courses/mine", **COURSE, "title": "Canary 2"})
    assert by_grpc(seen, "CreateCourse", {"course": COURSE}) is None  # the external id is in use
    assert by_grpc(seen, "BatchCreateCourses", {"requests": [{"course": COURSE}]}) is None
    assert by_grpc(seen, "PublishCourse", {"name": "courses/mine", "etag": '"canary"'}) is None
    found = call(seen.service, "ListCourses", filter='title = "Canary 2"', order_by="title", page_size=1)
    assert [course.name for course in found.courses] == [created.name]
    by_grpc(seen, "ListCourses", {"page_token": CANARY})
    by_grpc(seen, "GetCourse", {"name": "courses/canary"})
    by_grpc(seen, "BatchGetCourses", {"names": ["courses/mine", "courses/canary"]})
    for path in ("/course.v1.CourseService/Canary", "/canary.Canary/Canary"):
        unknown: grpc.UnaryUnaryMultiCallable[bytes, bytes] = seen.service.channel.unary_unary(path)
        with pytest.raises(grpc.RpcError):
            unknown(b"canary")
    get: grpc.UnaryUnaryMultiCallable[bytes, bytes] = seen.service.channel.unary_unary(
        "/course.v1.CourseService/GetCourse"
    )
    with pytest.raises(grpc.RpcError):
        get(b"canary\xff")
    call(seen.service, "DeleteCourse", name="courses/mine")
    seen.check(13)


def test_a_canary_in_every_place_of_a_request_by_http(seen: Seen) -> None:
    requests: list[tuple[str, str, dict[str, Any]]] = [
        ("GET", "/canary", {}),
        ("CANARY", "/courses", {}),
        ("GET", "/courses/canary?canary=canary", {}),
        ("GET", "/courses/canary", {}),
        ("GET", "/courses?filter=title=%22canary%22", {}),
        ("GET", "/courses?filter=canary%20canary", {}),
        ("GET", "/courses?order_by=canary", {}),
        ("GET", "/courses?page_token=canary", {}),
        ("GET", "/courses?page_size=canary", {}),
        ("GET", "/courses:batchGet?names=canary", {}),
        ("GET", "/docs?canary", {}),
        ("GET", "/static-offline-docs/canary", {}),
        ("POST", "/courses", {"json": {**COURSE, "external_ids": {}}}),
        ("POST", "/courses", {"json": {"title": "", **dict.fromkeys(("canary", "code"), 1)}}),
        ("POST", "/courses", {"json": {"title": "x"}, "headers": {"Idempotency-Key": CANARY}}),
        ("POST", "/courses?course_id=CANARY", {"json": {"title": "x"}}),
        ("POST", "/courses", {"content": b"canary"}),
        ("POST", "/courses", {"content": b"canary", "headers": {"Content-Type": "canary/canary"}}),
        ("PATCH", "/courses/nope", {"json": {"title": CANARY}, "headers": {"If-Match": '"canary"'}}),
        ("POST", "/courses/nope:publish", {"json": {"etag": CANARY, "request_id": CANARY}}),
        ("POST", "/courses/nope:canary", {"json": {}}),
    ]
    for verb, path, more in requests:
        seen.service.http.request(verb, path, **{**more, "headers": {**HEADERS, **more.get("headers", {})}})
    seen.check(len(requests))


def test_a_request_that_is_no_http_by_http(seen: Seen) -> None:
    url = seen.service.http.base_url
    for line in ("canary", "GET /%ff?canary=%ff"):
        connection = http.client.HTTPConnection(url.host, url.port, timeout=10)
        connection.connect()
        assert connection.sock
        connection.sock.sendall(f"{line} HTTP/1.1\r\nHost: canary\r\n\r\n".encode())
        assert connection.sock.recv(100).startswith(b"HTTP/1.1 4")
        connection.close()
    seen.check(1)


def raising(error: BaseException) -> Callable[..., Any]:
    def work(*_: object, **__: object) -> Any:
        raise error from ValueError("canary of the cause")

    return work


def faults() -> list[BaseException]:
    parameters = {"title": CANARY}
    return [
        RuntimeError("canary"),
        KeyError("canary"),
        SystemExit("canary"),
        UnicodeDecodeError("utf-8", b"canary", 0, 1, "canary"),
        OperationalError("SELECT 'canary'", parameters, Exception("canary")),
        IntegrityError("INSERT 'canary'", parameters, Exception("canary")),
    ]


@pytest.mark.parametrize("method", METHODS)
def test_a_fault_of_a_use_case_by_grpc(seen: Seen, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    requests: dict[str, dict[str, Any]] = {
        "CreateCourse": {"course": {"title": "x"}},
        "ListCourses": {},
        "UpdateCourse": {"course": {"name": "courses/a", "title": "x"}},
        "BatchGetCourses": {"names": ["courses/a"]},
        "BatchCreateCourses": {"requests": [{"course": {"title": "x"}}]},
    }
    request = requests.get(method, {"name": "courses/a"})
    for error in faults():
        monkeypatch.setattr(services, USE_CASES[method], raising(error))
        with pytest.raises(grpc.RpcError) as caught:
            call(seen.service, method, **request)
        assert isinstance(caught.value, grpc.Call)
        assert caught.value.code() is grpc.StatusCode.INTERNAL
        status = rpc_status.from_call(caught.value)
        assert CANARY not in f"{status} {caught.value.trailing_metadata()}".lower()
    seen.check(len(faults()))


def test_a_fault_of_a_use_case_by_http(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    requests: dict[str, tuple[str, str, dict[str, Any]]] = {
        "CreateCourse": ("POST", "/courses", {"json": {"title": "x"}}),
        "GetCourse": ("GET", "/courses/a", {}),
        "ListCourses": ("GET", "/courses?filter=title=%22canary%22", {}),
        "UpdateCourse": ("PATCH", "/courses/a", {"json": {"title": "canary"}}),
        "DeleteCourse": ("DELETE", "/courses/a", {}),
        "UndeleteCourse": ("POST", "/courses/a:undelete", {}),
        "PublishCourse": ("POST", "/courses/a:publish", {}),
        "ArchiveCourse": ("POST", "/courses/a:archive", {}),
        "BatchGetCourses": ("GET", "/courses:batchGet?names=courses/a", {}),
        "BatchCreateCourses": ("POST", "/courses:batchCreate", {"json": {"requests": [{"course": {"title": "x"}}]}}),
    }
    assert set(requests) == set(METHODS)
    errors = [error for error in faults() if isinstance(error, Exception)]  # a SystemExit ends HTTP's event loop
    for method, (verb, path, more) in requests.items():
        for error in errors:
            monkeypatch.setattr(services, USE_CASES[method], raising(error))
            response = seen.service.http.request(verb, path, headers=HEADERS, **more)
            assert response.status_code == 500
            assert CANARY not in f"{response.text} {response.headers}".lower()
    seen.check(len(METHODS) * len(errors))


def test_a_fault_of_the_database(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a unit of work, which has a span of its own and says why it is tried again."""
    for error in faults():
        monkeypatch.setattr(CourseRepository, "get", raising(error))
        by_grpc(seen, "GetCourse", {"name": "courses/a"})
        by_grpc(seen, "PublishCourse", {"name": "courses/a"})
        if isinstance(error, Exception):
            seen.service.http.get("/courses/a", headers=HEADERS)
    seen.check(17)
    assert len({span.name for span in seen.collector.spans} & {"database read", "database write"}) == 2
