"""What happens around every call: one way for unary gRPC calls, streams and HTTP requests."""

import contextlib
import functools
import gc
import logging
import queue
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import httpx2
import pytest
from course.v1 import course_pb2, course_pb2_grpc
from google.api import annotations_pb2
from grpc._server import _RPCState  # what grpcio keeps of a call
from grpc_reflection.v1alpha import reflection_pb2

from course_service import call as current_call
from course_service.call import Call
from course_service.course import Course
from course_service.errors import CourseArchived, CourseError
from course_service.guard.guard import Guard
from course_service.guard.steps import Credentials
from course_service.health import Health
from course_service.rest.app import make_app
from course_service.rest.places import Places
from course_service.rest.server import HttpServer
from course_service.rpc.health import HealthServicer
from course_service.rpc.interceptor import GuardInterceptor
from course_service.rpc.server import make_server
from course_service.rpc.threads import CallThreads
from course_service.store.courses import CourseRepository
from course_service.store.database import Database
from tests.conftest import TOKENS, Service
from tests.support.calls import call, create, failed
from tests.support.failures import Failure, grpc_failure, http_failure
from tests.support.http import http_client
from tests.support.waiting import until
from tests.test_repository import COURSE

REQUEST_ID = "6f1f2a60-3e0b-4c57-9d5a-2f0f5d3b8a11"


@dataclass
class Steps:
    """Steps that say who calls by a name that the caller sends, and refuse whom a test names."""

    unwelcome: dict[str, CourseError] = field(default_factory=dict)
    full_for: set[str] = field(default_factory=set)
    passed: list[tuple[str, Call]] = field(default_factory=list)
    observed: list[Call] = field(default_factory=list)

    def identify(self, _: Call, credentials: Credentials) -> str:
        names = credentials.values("x-name")
        self.passed.append(("identify", current_call.current()))
        return names[0] if names else "anonymous"

    def authorise(self, this: Call) -> None:
        self.passed.append(("authorise", this))
        if this.caller in self.unwelcome:
            raise self.unwelcome[this.caller]

    def admit(self, this: Call) -> None:
        self.passed.append(("admit", this))
        if this.caller in self.full_for:
            raise CourseArchived("courses/full")

    def observe(self, this: Call, seconds: float) -> None:
        assert seconds >= 0
        self.observed.append(this)


@dataclass
class Guarded:
    """A service with those steps."""

    steps: Steps
    courses: course_pb2_grpc.CourseServiceStub
    channel: grpc.Channel
    http: httpx2.Client

    def get_by_grpc(self, name: str, caller: str = "ann") -> Any:
        request = course_pb2.GetCourseRequest(name=name)
        return self.courses.GetCourse(request, metadata=(("x-name", caller),), timeout=20)

    def reflect(self, caller: str = "ann") -> list[reflection_pb2.ServerReflectionResponse]:
        info = self.channel.stream_stream(
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        requests = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        return list(info(requests, metadata=(("x-name", caller),), timeout=20))


@pytest.fixture
def guarded(database: Database) -> Iterator[Guarded]:
    steps = Steps()
    guard = Guard(identify=steps.identify, authorise=steps.authorise, admit=steps.admit, observe=steps.observe)
    threads = CallThreads(4)
    health = Health(database)
    server, port = make_server("127.0.0.1:0", database, TOKENS, HealthServicer(health), guard, threads)
    server.start()
    http_server = HttpServer("127.0.0.1:0", make_app(database, TOKENS, health, guard, Places(4)))
    http_server.start()
    with (
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
        http_client(f"http://127.0.0.1:{http_server.port}", headers={"X-Name": "ann"}) as http,
    ):
        yield Guarded(steps, course_pb2_grpc.CourseServiceStub(channel), channel, http)
    http_server.stop()
    server.stop(None).wait()
    threads.close(5)


def ways(guarded: Guarded) -> dict[str, Callable[[str], Any]]:
    """The three ways in, each taking who calls."""
    return {
        "GetCourse": lambda caller: guarded.get_by_grpc("courses/nope", caller),
        "grpc.reflection.v1.ServerReflection/ServerReflectionInfo": guarded.reflect,
        "http": lambda caller: guarded.http.get("/courses/nope", headers={"X-Name": caller}),
    }


def test_every_way_in_passes_the_same_steps_in_the_same_order(guarded: Guarded) -> None:
    for method, enter in ways(guarded).items():
        guarded.steps.passed.clear()
        with contextlib.suppress(grpc.RpcError):
            enter("ann")
        assert [step for step, _ in guarded.steps.passed] == ["identify", "authorise", "admit"]
        (this,) = {id(this): this for _, this in guarded.steps.passed}.values()
        assert this.caller == "ann"
        assert this.method == ("GetCourse" if method == "http" else method)
        most = current_call.STREAM_SECONDS if method.startswith("grpc.") else current_call.MAX_SECONDS
        assert 0 < this.deadline - time.monotonic() <= most


@pytest.mark.parametrize("step", ["authorise", "admit"])
def test_a_step_refuses_every_way_in_alike(guarded: Guarded, step: str) -> None:
    if step == "authorise":
        guarded.steps.unwelcome["eve"] = CourseArchived("courses/full")
    else:
        guarded.steps.full_for.add("eve")
    failures: list[Failure] = []
    for method, enter in ways(guarded).items():
        failures.append(http_failure(enter("eve"), 400) if method == "http" else grpc_failure(enter, "eve"))
    assert {(failure.status, failure.reason) for failure in failures} == {("FAILED_PRECONDITION", "COURSE_ARCHIVED")}
    assert len({failure.message for failure in failures}) == 1
    assert guarded.reflect("ann")
    deadline = time.monotonic() + 5
    while len(guarded.steps.observed) < 4 and time.monotonic() < deadline:  # a call is observed after its response
        threading.Event().wait(0.01)
    assert sorted(this.reason for this in guarded.steps.observed) == ["", *["COURSE_ARCHIVED"] * 3]


def test_a_refused_call_has_not_been_worked_on(guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    def touched(*_: object) -> None:
        raise AssertionError("the database was asked")

    monkeypatch.setattr(Database, "get", touched)
    guarded.steps.unwelcome["eve"] = CourseArchived("courses/full")
    assert grpc_failure(guarded.get_by_grpc, "courses/a", "eve").reason == "COURSE_ARCHIVED"
    assert http_failure(guarded.http.get("/courses/a", headers={"X-Name": "eve"}), 400).reason == "COURSE_ARCHIVED"
    # Refused before its body, which is no JSON, is read.
    refused = guarded.http.post("/courses", content=b"{", headers={"X-Name": "eve"})
    assert http_failure(refused, 400).reason == "COURSE_ARCHIVED"


def test_a_request_id_belongs_to_its_caller_by_both_faces(guarded: Guarded) -> None:
    def by_grpc(caller: str) -> str:
        request = course_pb2.CreateCourseRequest(course=course_pb2.Course(title="x"), request_id=REQUEST_ID)
        name: str = guarded.courses.CreateCourse(request, metadata=(("x-name", caller),)).name
        return name

    def by_http(caller: str) -> str:
        headers = {"X-Name": caller, "Idempotency-Key": REQUEST_ID}
        name: str = guarded.http.post("/courses", json={"title": "x"}, headers=headers).json()["name"]
        return name

    anns, bobs = by_grpc("ann"), by_http("bob")
    assert anns != bobs
    assert (by_http("ann"), by_grpc("bob")) == (anns, bobs)


def test_what_an_inner_interceptor_returns_is_not_kept(database: Database) -> None:
    class Password(grpc.ServerInterceptor):
        def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
            if ("password", "right") in handler_call_details.invocation_metadata:
                return continuation(handler_call_details)

            def refuse(_: object, context: grpc.ServicerContext) -> None:
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "wrong")

            return grpc.unary_unary_rpc_method_handler(refuse)

    threads = CallThreads(2)
    server = grpc.server(threads, interceptors=[GuardInterceptor(Guard()), Password()])

    def reply(_: bytes, __: grpc.ServicerContext) -> bytes:
        return b"secret"

    handler = grpc.method_handlers_generic_handler("test.Service", {"Get": grpc.unary_unary_rpc_method_handler(reply)})
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        get: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/test.Service/Get")
        assert get(b"", metadata=(("password", "right"),)) == b"secret"
        with pytest.raises(grpc.RpcError):
            get(b"", metadata=(("password", "wrong"),))
        assert get(b"", metadata=(("password", "right"),)) == b"secret"
    server.stop(None).wait()
    threads.close(5)


@pytest.fixture
def _no_garbage_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_no_garbage_collector")
def test_calls_that_have_failed_are_forgotten_without_the_garbage_collector(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception in a reference cycle would keep its call, with all that grpc's core has of it."""
    guarded.steps.unwelcome["eve"] = CourseArchived("courses/full")
    create_request = course_pb2.CreateCourseRequest(course=course_pb2.Course(title="x"), course_id="taken")
    guarded.courses.CreateCourse(create_request)
    batch = course_pb2.BatchCreateCoursesRequest(requests=[create_request])
    failures_by_reason: dict[str, Callable[[], Any]] = {
        "COURSE_NOT_FOUND": lambda: guarded.get_by_grpc("courses/nope"),
        "COURSE_ARCHIVED": lambda: guarded.get_by_grpc("courses/nope", "eve"),
        "COURSE_ALREADY_EXISTS": lambda: guarded.courses.CreateCourse(create_request, timeout=20),
        "REQUEST_INVALID": lambda: guarded.courses.CreateCourse(course_pb2.CreateCourseRequest(), timeout=20),
    }
    for reason, fail in failures_by_reason.items():
        for _ in range(30):
            assert grpc_failure(fail).reason == reason
    for _ in range(30):
        assert grpc_failure(guarded.courses.BatchCreateCourses, batch, timeout=20).reason == "COURSE_ALREADY_EXISTS"

    def broken(self: CourseRepository, *_: object) -> None:
        self._connection.exec_driver_sql("SELECT nonsense")

    monkeypatch.setattr(CourseRepository, "get", broken)
    for _ in range(30):
        assert grpc_failure(guarded.get_by_grpc, "courses/a").reason == "INTERNAL"
    until(lambda: sum(isinstance(found, _RPCState) for found in gc.get_objects()) < 20)


def test_an_exception_in_a_stream_is_mapped_like_any_other(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("password=canary")

    monkeypatch.setattr("grpc_reflection.v1alpha.reflection.ReflectionServicer._list_services", broken)
    info = service.channel.stream_stream(
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    failure = grpc_failure(lambda: list(info(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))))
    assert (failure.status, failure.reason) == ("INTERNAL", "INTERNAL")
    assert failure.metadata["errorId"] in caplog.text
    assert "canary" not in failure.message + caplog.text


def test_a_stream_whose_caller_leaves_ends_without_an_error(guarded: Guarded, caplog: pytest.LogCaptureFixture) -> None:
    info = guarded.channel.stream_stream(
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    asked = queue.SimpleQueue[reflection_pb2.ServerReflectionRequest]()
    asked.put(reflection_pb2.ServerReflectionRequest(list_services=""))
    stream = info(iter(asked.get, None))
    assert next(stream)
    stream.cancel()
    deadline = time.monotonic() + 5
    while not guarded.steps.observed and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    # grpcio may report the end of the requests before it reports that the caller has left.
    assert [this.code for this in guarded.steps.observed] in (["CANCELLED"], ["OK"])
    assert "internal error" not in caplog.text
    asked.put(reflection_pb2.ServerReflectionRequest())  # lets the client's own thread end


def test_a_method_that_does_not_exist_is_unimplemented(service: Service) -> None:
    for path in ("/course.v1.CourseService/GetCourses", "/other.Service/Get"):
        method: grpc.UnaryUnaryMultiCallable[bytes, bytes] = service.channel.unary_unary(path)
        failure = grpc_failure(method, b"")
        assert (failure.status, failure.reason) == ("UNIMPLEMENTED", "METHOD_UNKNOWN")
        assert failure.metadata == {"method": path}


# The message


def test_callers_that_send_no_message_keep_nobody_waiting_and_are_cut_off(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(current_call, "BODY_SECONDS", 2.0)
    silent: grpc.StreamUnaryMultiCallable[bytes, bytes] = guarded.channel.stream_unary(
        "/course.v1.CourseService/GetCourse"
    )
    done = threading.Event()

    def nothing() -> Iterator[bytes]:
        done.wait()
        yield from ()

    start = time.monotonic()
    calls = [silent.future(nothing()) for _ in range(16)]  # four times the threads
    assert grpc_failure(guarded.get_by_grpc, "courses/nope").reason == "COURSE_NOT_FOUND"
    assert time.monotonic() - start < 1.5
    assert not any(call.done() for call in calls)
    assert {call.code() for call in calls} == {grpc.StatusCode.CANCELLED}
    assert 1.9 < time.monotonic() - start < 4
    done.set()


@pytest.mark.usefixtures("_no_garbage_collector")
def test_calls_that_were_cut_off_leave_their_connection_without_the_garbage_collector(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(current_call, "BODY_SECONDS", 0.0)
    silent: grpc.StreamUnaryMultiCallable[bytes, bytes] = guarded.channel.stream_unary(
        "/course.v1.CourseService/GetCourse"
    )
    done = threading.Event()

    def nothing() -> Iterator[bytes]:
        done.wait()
        yield from ()

    for _ in range(3):
        calls = [silent.future(nothing()) for _ in range(40)]
        assert {call.code() for call in calls} == {grpc.StatusCode.CANCELLED}
    monkeypatch.undo()
    assert grpc_failure(guarded.get_by_grpc, "courses/nope").reason == "COURSE_NOT_FOUND"
    cut_off = [found for found in gc.get_objects() if isinstance(found, grpc.RpcError) and found.__traceback__]
    assert not [error for error in cut_off if not isinstance(error, grpc.Call)], "the service keeps their frames"
    done.set()


def test_a_call_without_a_message_is_malformed(guarded: Guarded) -> None:
    empty: grpc.StreamUnaryMultiCallable[bytes, bytes] = guarded.channel.stream_unary(
        "/course.v1.CourseService/GetCourse"
    )
    failure = grpc_failure(empty, iter(()))
    assert (failure.status, failure.reason) == ("INVALID_ARGUMENT", "REQUEST_MALFORMED")


# The deadline


@pytest.mark.parametrize("seconds", [0.3, 5.0])
def test_a_grpc_call_knows_how_long_its_caller_waits(
    service: Service, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    left: list[float] = []

    def look(*_: object) -> None:
        left.append(current_call.remaining())

    monkeypatch.setattr(Database, "get", look)
    with pytest.raises(grpc.RpcError):
        service.courses.GetCourse(course_pb2.GetCourseRequest(name="courses/a"), timeout=seconds)
    assert seconds - 0.25 < left[0] < seconds + 0.1


def test_a_call_without_a_deadline_gets_one_by_both_faces(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[float] = []

    def look(*_: object) -> None:
        left.append(current_call.remaining())

    monkeypatch.setattr(Database, "get", look)
    with pytest.raises(grpc.RpcError):
        service.courses.GetCourse(course_pb2.GetCourseRequest(name="courses/a"))
    service.http.get("/courses/a")
    assert len(left) == 2
    # Outside of a call it would be more.
    assert all(current_call.READ_SECONDS - 1 < seconds < current_call.READ_SECONDS for seconds in left)


def test_a_write_may_take_longer_than_a_read_and_neither_as_long_as_its_caller_likes(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: dict[str, float] = {}

    def look(self: Database, work: object, **_: object) -> None:
        left[current_call.current().method] = current_call.remaining()
        raise CourseArchived("courses/a")

    for kind in ("get", "read", "write", "write_at_once"):
        monkeypatch.setattr(Database, kind, look)
    requests: dict[str, dict[str, Any]] = {
        "CreateCourse": {"course": {"title": "x"}},
        "UpdateCourse": {"course": {"name": "courses/a"}},
        "ListCourses": {},
        "BatchGetCourses": {"names": ["courses/a"]},
        "BatchCreateCourses": {"requests": [{"course": {"title": "x"}}]},
    }
    for method in course_pb2.DESCRIPTOR.services_by_name["CourseService"].methods:
        request = requests.get(method.name, {"name": "courses/a"})
        assert failed(service, method.name, **request).reason == "COURSE_ARCHIVED"  # the caller waits for 30 s
        is_read = bool(method.GetOptions().Extensions[annotations_pb2.http].get)
        most = current_call.READ_SECONDS if is_read else current_call.MAX_SECONDS
        assert most - 1 < left[method.name] <= most, method.name


def test_a_call_whose_deadline_has_passed_is_not_worked_on(guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(current_call, "MAX_SECONDS", -1.0)
    request = course_pb2.CreateCourseRequest(course=course_pb2.Course(title="x"), course_id="late")
    assert grpc_failure(guarded.courses.CreateCourse, request).reason == "DEADLINE_EXCEEDED"
    monkeypatch.undo()
    assert http_failure(guarded.http.get("/courses/late"), 404).reason == "COURSE_NOT_FOUND"


def test_a_body_that_does_not_arrive_in_time_is_not_waited_for(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("course_service.rest.app.Call", functools.partial(Call, deadline=time.monotonic() + 0.3))
    host, port = guarded.http.base_url.host, guarded.http.base_url.port
    with socket.create_connection((host, port), timeout=10) as connection:
        head = "POST /courses HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 20\r\n\r\n{"
        connection.sendall(head.encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 504 ")


def test_a_call_whose_caller_has_stopped_waiting_is_not_logged_as_ok(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = threading.Event()

    async def slow(*_: object) -> Course:
        assert gone.wait(10)
        return COURSE

    monkeypatch.setattr("course_service.services.get_course", slow)
    request = course_pb2.GetCourseRequest(name="courses/a")
    with pytest.raises(grpc.RpcError):
        guarded.courses.GetCourse(request, timeout=0.3)
    # What comes later on the same connection is read later: after this the service knows that nobody waits.
    guarded.courses.ListCourses(course_pb2.ListCoursesRequest())
    gone.set()
    deadline = time.monotonic() + 5
    while len(guarded.steps.observed) < 2 and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    codes = {this.method: this.code for this in guarded.steps.observed}
    assert codes.pop("GetCourse") in {"DEADLINE_EXCEEDED", "CANCELLED"}  # by the service's clock it may be either
    assert codes == {"ListCourses": "OK"}


# The line


LINE = re.compile(
    r"(?P<face>grpc|http) (?P<method>\S+) (?P<code>[A-Z_]+) (?P<ms>\d+\.\d) ms caller=(?P<caller>\S+)"
    r"(?: reason=(?P<reason>\S+))?(?: request_id=(?P<request_id>\S+))?(?: course=(?P<course>\S+))?"
    r"(?: error_id=(?P<error_id>\S+))?(?: cause=.+)?"
)


@pytest.fixture
def lines(service: Service, caplog: pytest.LogCaptureFixture) -> Callable[[], list[dict[str, str | None]]]:
    """The lines of calls so far; a call's line may come a little later than its response."""
    caplog.set_level(logging.DEBUG, "course_service.calls")

    def read() -> list[dict[str, str | None]]:
        found = []
        for record in caplog.records:
            if record.name == "course_service.calls":
                match = LINE.fullmatch(record.getMessage())
                assert match, record.getMessage()
                found.append({**match.groupdict(), "level": record.levelname})
        return found

    return read


def wait_for(lines: Callable[[], list[dict[str, str | None]]], count: int) -> list[dict[str, str | None]]:
    deadline = time.monotonic() + 5
    while len(lines()) < count and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    return lines()


def test_every_call_has_one_line_by_both_faces(
    service: Service, lines: Callable[[], list[dict[str, str | None]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    create(service, "mine", title="canary title")
    call(service, "PublishCourse", name="courses/mine", request_id=REQUEST_ID)
    failed(service, "GetCourse", name="courses/canary-nope")
    service.http.post("/courses", json={"title": "canary"}, headers={"Idempotency-Key": str(uuid.UUID(int=1))})
    service.http.get("/courses/canary-nope?canary=1")
    service.http.get("/canary")
    service.http.head("/courses/canary:publish")
    wait_for(lines, 7)  # HTTP's lines come after the response
    failed(service, "CreateCourse", course={"title": ""}, request_id=REQUEST_ID)
    service.http.post("/courses", json={}, headers={"Idempotency-Key": REQUEST_ID})
    wait_for(lines, 9)
    with monkeypatch.context() as patch:
        patch.setattr("course_service.services.get_course", lambda *_: 1 / 0)
        failed(service, "GetCourse", name="courses/mine")
    found = wait_for(lines, 10)
    assert [(line["face"], line["method"], line["code"], line["reason"], line["request_id"]) for line in found] == [
        ("grpc", "CreateCourse", "OK", None, None),
        ("grpc", "PublishCourse", "OK", None, REQUEST_ID),
        ("grpc", "GetCourse", "NOT_FOUND", "COURSE_NOT_FOUND", None),
        ("http", "CreateCourse", "OK", None, str(uuid.UUID(int=1))),
        ("http", "GetCourse", "INVALID_ARGUMENT", "REQUEST_INVALID", None),
        ("http", "unknown", "NOT_FOUND", "ROUTE_NOT_FOUND", None),
        ("http", "unknown", "UNIMPLEMENTED", "METHOD_NOT_ALLOWED", None),
        ("grpc", "CreateCourse", "INVALID_ARGUMENT", "REQUEST_INVALID", REQUEST_ID),
        ("http", "CreateCourse", "INVALID_ARGUMENT", "REQUEST_INVALID", REQUEST_ID),
        ("grpc", "GetCourse", "INTERNAL", "INTERNAL", None),
    ]
    assert {line["level"] for line in found} == {"INFO"}
    assert {line["caller"] for line in found} == {"anonymous"}
    assert [bool(line["error_id"]) for line in found] == [False] * 9 + [True]
    assert "canary" not in str(found)


def test_health_reflection_and_documentation_are_logged_at_debug(
    service: Service, lines: Callable[[], list[dict[str, str | None]]]
) -> None:
    check: grpc.UnaryUnaryMultiCallable[bytes, bytes] = service.channel.unary_unary("/grpc.health.v1.Health/Check")
    check(b"")
    service.http.get("/openapi.json")
    service.http.get("/docs")
    found = wait_for(lines, 3)
    assert [(line["method"], line["level"]) for line in found] == [
        ("grpc.health.v1.Health/Check", "DEBUG"),
        ("http/documentation", "DEBUG"),
        ("http/documentation", "DEBUG"),
    ]
