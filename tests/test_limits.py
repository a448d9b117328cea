"""How much a caller may ask for, and how long it may keep others waiting."""

import contextlib
import queue
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import httpx2
import pytest
from course.v1 import course_pb2, course_pb2_grpc

from course_service import call as current_call
from course_service.guard.guard import Guard
from course_service.health import Health
from course_service.rest import protocol
from course_service.rest.app import make_app
from course_service.rest.places import Places
from course_service.rest.server import HttpServer
from course_service.rpc import threads, watchdog
from course_service.rpc.health import HealthServicer
from course_service.rpc.server import MAX_STREAMS, make_server
from course_service.rpc.threads import CallThreads
from course_service.services import Page
from course_service.store import combined_reads
from course_service.store.courses import CourseRepository
from course_service.store.database import Database
from tests.conftest import TOKENS, Service
from tests.support.failures import Failure, grpc_failure, http_failure
from tests.support.http import http_client
from tests.support.waiting import Held, until

THREADS = 2
ELSEWHERE = 2
WAITING = 3


@dataclass(frozen=True)
class Small:
    """A service with two threads for each face, in which three calls may wait."""

    courses: course_pb2_grpc.CourseServiceStub
    channel: grpc.Channel
    http: httpx2.Client
    threads: CallThreads
    places: Places

    def get(self, timeout: float = 20.0) -> Any:
        return self.courses.GetCourse(course_pb2.GetCourseRequest(name="courses/a"), timeout=timeout)

    def list(self) -> Any:
        return self.courses.ListCourses.future(course_pb2.ListCoursesRequest(), timeout=20)

    @property
    def http_address(self) -> tuple[str, int]:
        host, port = self.http.base_url.host, self.http.base_url.port
        assert port
        return host, port


@pytest.fixture
def small(database: Database) -> Iterator[Small]:
    guard, health = Guard(), Health(database)
    call_threads = CallThreads(THREADS, max_elsewhere=ELSEWHERE, is_shared=database.shares_reads, max_waiting=WAITING)
    server, port = make_server("127.0.0.1:0", database, TOKENS, HealthServicer(health), guard, call_threads)
    server.start()
    places = Places(THREADS, max_waiting=WAITING)
    http_server = HttpServer("127.0.0.1:0", make_app(database, TOKENS, health, guard, places), max_connections=20)
    http_server.start()
    with (
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
        http_client(f"http://127.0.0.1:{http_server.port}") as http,
    ):
        yield Small(course_pb2_grpc.CourseServiceStub(channel), channel, http, call_threads, places)
    http_server.stop()
    server.stop(None).wait()
    call_threads.close(5)


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[threading.Event, "queue.SimpleQueue[int]"]]:
    """Have every look-up of a course wait for an event; the queue has an entry for each that has begun."""
    release, begun = threading.Event(), queue.SimpleQueue[int]()

    def wait() -> None:
        begun.put(1)
        assert release.wait(20)

    async def get(*_: object) -> None:
        await Held(wait)

    monkeypatch.setattr(Database, "get", get)
    yield release, begun
    release.set()


# How many calls wait


def test_a_call_too_many_is_refused_at_once_though_every_thread_is_held_up(
    small: Small, stuck: tuple[threading.Event, "queue.SimpleQueue[int]"]
) -> None:
    release, begun = stuck
    get = small.courses.GetCourse
    waiting = [get.future(course_pb2.GetCourseRequest(name="courses/a"), timeout=20) for _ in range(THREADS)]
    for _ in range(THREADS):
        begun.get(timeout=5)
    waiting += [get.future(course_pb2.GetCourseRequest(name="courses/a"), timeout=20) for _ in range(WAITING)]
    until(small.threads.is_full)
    start = time.monotonic()
    failure = grpc_failure(small.get)
    assert time.monotonic() - start < 1
    check_refusal(failure)
    release.set()
    assert {call.code() for call in waiting} == {grpc.StatusCode.NOT_FOUND}
    assert grpc_failure(small.get).reason == "COURSE_NOT_FOUND"


def test_more_calls_than_a_connection_may_have_wait_for_each_other(service: Service) -> None:
    """grpc's core would refuse those that come while others have ended and are not forgotten yet."""
    room, ended = threading.Semaphore(3 * MAX_STREAMS), []
    for number in range(600):
        assert room.acquire(timeout=20)
        call = service.courses.GetCourse.future(course_pb2.GetCourseRequest(name=f"courses/a-{number}"), timeout=20)
        call.add_done_callback(lambda _: room.release())
        ended.append(call)
    assert {call.code() for call in ended} == {grpc.StatusCode.NOT_FOUND}


def test_calls_that_wait_for_a_query_they_share_leave_their_places(
    small: Small, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, begun = threading.Event(), queue.SimpleQueue[int]()

    def wait(*_: object) -> None:
        begun.put(1)
        with current_call.idle():  # as the driver does
            assert release.wait(20)

    def find_none(*_: object, **__: object) -> dict[str, object]:
        wait()
        return {}

    monkeypatch.setattr(CourseRepository, "get", wait)
    monkeypatch.setattr(CourseRepository, "get_many", find_none)
    get = small.courses.GetCourse
    request = course_pb2.GetCourseRequest(name="courses/a")
    for _ in range(2):  # those that have left their places once make room for others
        release.clear()
        # The first one asks alone, and keeps its place.
        monkeypatch.setattr(database._combined, "_shared_until", 0.0)
        waiting = [get.future(request, timeout=20)]
        begun.get(timeout=5)
        waiting += [get.future(request, timeout=20) for _ in range(ELSEWHERE)]
        begun.get(timeout=5)
        assert list(small.courses.ListCourses(course_pb2.ListCoursesRequest(), timeout=5).courses) == []
        release.set()
        assert {call.code() for call in waiting} == {grpc.StatusCode.NOT_FOUND}
        while not begun.empty():
            begun.get()


def test_while_reads_are_shared_they_take_no_place_unless_too_many_do(
    small: Small, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, begun = threading.Event(), queue.SimpleQueue[int]()

    def page(*_: object, **__: object) -> list[object]:
        begun.put(1)
        with current_call.idle():
            assert release.wait(20)
        return []

    def find_none(*_: object, **__: object) -> dict[str, object]:
        assert release.wait(20)
        return {}

    monkeypatch.setattr(CourseRepository, "page", page)
    monkeypatch.setattr(CourseRepository, "get_many", find_none)
    monkeypatch.setattr(combined_reads, "_SHARED_SECONDS", 60)  # or it would end between two of the calls
    monkeypatch.setattr(database._combined, "_shared_until", time.monotonic() + 60)
    courses, get = small.courses, course_pb2.GetCourseRequest(name="courses/a")
    lists = [small.list() for _ in range(THREADS)]
    for _ in range(THREADS):
        begun.get(timeout=5)
    waiting = [courses.GetCourse.future(get, timeout=20) for _ in range(ELSEWHERE)]
    until(lambda: small.threads._elsewhere == ELSEWHERE)
    assert not small.threads._waiting
    waiting.append(courses.GetCourse.future(get, timeout=20))
    until(lambda: len(small.threads._waiting) == 1)
    release.set()
    assert {call.code() for call in lists} == {grpc.StatusCode.OK}
    assert {call.code() for call in waiting} == {grpc.StatusCode.NOT_FOUND}
    until(lambda: not small.threads._elsewhere and not small.threads._running)
    assert small.threads._free == THREADS


def test_a_request_too_many_is_refused_at_once_by_http_too(
    small: Small, stuck: tuple[threading.Event, "queue.SimpleQueue[int]"]
) -> None:
    release, begun = stuck
    responses: queue.SimpleQueue[int] = queue.SimpleQueue()

    def get() -> None:
        with http_client(str(small.http.base_url)) as http:
            responses.put(http.get("/courses/a").status_code)

    threads = [threading.Thread(target=get) for _ in range(THREADS + WAITING)]
    for thread in threads:
        thread.start()
    for _ in range(THREADS):
        begun.get(timeout=5)
    until(small.places.is_full)
    response = small.http.get("/courses/a")
    check_refusal(http_failure(response, 429))
    assert response.headers["Retry-After"] == "1"
    # Neither face's calls are refused for the other's, and probes are not refused at all.
    assert small.http.get("/livez").status_code == 200
    assert not small.threads.is_full()
    release.set()
    for thread in threads:
        thread.join()
    assert {responses.get() for _ in threads} == {404}


def check_refusal(failure: Failure) -> None:
    assert (failure.status, failure.reason) == ("RESOURCE_EXHAUSTED", "OVERLOADED")
    assert failure.details == {"ErrorInfo", "RetryInfo"}


def test_a_call_that_has_waited_longer_than_it_has_time_left_is_given_up(
    small: Small, stuck: tuple[threading.Event, "queue.SimpleQueue[int]"]
) -> None:
    release, begun = stuck
    get = small.courses.GetCourse
    holders = [get.future(course_pb2.GetCourseRequest(name="courses/a"), timeout=20) for _ in range(THREADS)]
    for _ in range(THREADS):
        begun.get(timeout=5)
    late = get.future(course_pb2.GetCourseRequest(name="courses/a"), timeout=1.5)
    until(lambda: len(small.threads._waiting) == 1)
    threading.Event().wait(0.9)  # what is tested is the passing of time
    release.set()
    check_refusal(grpc_failure(late.result))
    assert {call.code() for call in holders} == {grpc.StatusCode.NOT_FOUND}
    assert begun.empty()


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[threading.Semaphore, "queue.SimpleQueue[int]"]]:
    """Have every look-up of a course wait for a release of its own; the queue has an entry for each that has begun."""
    release, begun = threading.Semaphore(0), queue.SimpleQueue[int]()

    def wait() -> None:
        begun.put(1)
        assert release.acquire(timeout=20)

    async def get(*_: object) -> None:
        await Held(wait)

    monkeypatch.setattr(Database, "get", get)
    yield release, begun
    release.release(100)


def test_a_call_that_would_come_too_late_is_refused_at_once(
    small: Small, one_by_one: tuple[threading.Semaphore, "queue.SimpleQueue[int]"]
) -> None:
    release, begun = one_by_one

    def calls(timeout: float) -> Any:
        return small.courses.GetCourse.future(course_pb2.GetCourseRequest(name="courses/a"), timeout=timeout)

    waiting = [calls(20) for _ in range(THREADS)]
    for _ in range(THREADS):
        begun.get(timeout=5)
    waiting += [calls(20) for _ in range(2)]
    until(lambda: len(small.threads._waiting) == 2)
    threading.Event().wait(0.6)  # what is tested is the passing of time
    waiting.append(calls(2))  # as long as nobody's turn comes, it may be in time
    until(lambda: len(small.threads._waiting) == 3)
    release.release()
    begun.get(timeout=5)
    start = time.monotonic()
    check_refusal(grpc_failure(lambda: small.get(timeout=2)))
    assert time.monotonic() - start < 0.5
    waiting.append(calls(20))  # it has more time
    until(lambda: len(small.threads._waiting) == 3)
    release.release(len(waiting))
    assert {call.code() for call in waiting} == {grpc.StatusCode.NOT_FOUND}


# When a call begins


def test_a_call_begins_when_those_before_it_are_idle(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_PATIENCE_SECONDS", 60)
    begun, goes_idle, release = queue.SimpleQueue[int](), threading.Event(), threading.Event()

    def read(*_: object) -> Page:
        begun.put(1)
        assert goes_idle.wait(20)
        with current_call.idle():
            assert release.wait(20)
        return Page([], "")

    monkeypatch.setattr(Database, "read", read)
    # Who waits for the CPU alone takes nobody's room to wait: one more may, for each place that is free.
    lists = [small.list() for _ in range(1 + WAITING + THREADS - 1)]
    begun.get(timeout=5)
    until(lambda: len(small.threads._waiting) == WAITING + THREADS - 1)
    assert small.threads._free == THREADS - 1
    assert small.threads.is_full()
    goes_idle.set()
    begun.get(timeout=5)
    release.set()
    assert {call.code() for call in lists} == {grpc.StatusCode.OK}
    until(lambda: not small.threads._running)


def test_a_call_that_hangs_without_being_idle_holds_up_others_for_a_moment(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, release = queue.SimpleQueue[int](), threading.Event()

    def read(*_: object) -> Page:
        begun.put(1)
        assert release.wait(20)
        return Page([], "")

    monkeypatch.setattr(Database, "read", read)
    lists = [small.list() for _ in range(2)]
    for _ in lists:
        begun.get(timeout=5)
    release.set()
    assert {call.code() for call in lists} == {grpc.StatusCode.OK}


# How long a message may take


def silent_calls(small: Small, method: str, count: int) -> tuple[list[Any], threading.Event]:
    """Begin calls that send nothing, until the event is set."""
    done = threading.Event()

    def nothing() -> Iterator[bytes]:
        done.wait()
        yield from ()

    silent: grpc.StreamUnaryMultiCallable[bytes, bytes] = small.channel.stream_unary(
        f"/course.v1.CourseService/{method}"
    )
    return [silent.future(nothing(), timeout=20) for _ in range(count)], done


@pytest.mark.parametrize("method", ["GetCourse", "CreateCourse"])
def test_silent_calls_hold_nobody_up_and_take_no_room(small: Small, method: str) -> None:
    calls, done = silent_calls(small, method, THREADS + ELSEWHERE + WAITING + 5)
    until(lambda: len(small.threads._receiving) == len(calls))
    start = time.monotonic()
    assert grpc_failure(small.get).reason == "COURSE_NOT_FOUND"
    assert time.monotonic() - start < 2
    assert not any(call.done() for call in calls)
    for call in calls:
        call.cancel()
    done.set()
    until(lambda: not small.threads._receiving)


def test_no_more_messages_are_waited_for_than_may_and_the_longest_silent_call_makes_room(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "_MAX_RECEIVING", 3)
    assert grpc_failure(small.get).reason == "COURSE_NOT_FOUND"  # calls that wait for a connection lose their order
    calls, done = silent_calls(small, "CreateCourse", 12)
    until(lambda: sum(call.done() for call in calls) == 12 - 3)
    assert {call.code() for call in calls[: 12 - 3]} == {grpc.StatusCode.CANCELLED}
    assert not any(call.done() for call in calls[-3:])
    assert grpc_failure(small.get).reason == "COURSE_NOT_FOUND"
    for call in calls:
        call.cancel()
    done.set()


def test_large_messages_of_calls_that_wait_are_bounded_and_small_ones_go_on(
    small: Small, stuck: tuple[threading.Event, "queue.SimpleQueue[int]"], monkeypatch: pytest.MonkeyPatch
) -> None:
    release, begun = stuck
    monkeypatch.setattr(threads, "MAX_WAITING_BYTES", 150_000)
    get = small.courses.GetCourse
    working = [get.future(course_pb2.GetCourseRequest(name="courses/a"), timeout=20) for _ in range(THREADS)]
    for _ in range(THREADS):
        begun.get(timeout=5)
    large = course_pb2.CreateCourseRequest(course=course_pb2.Course(title="x" * 80_000))
    waiting = small.courses.CreateCourse.future(large, timeout=20)
    until(lambda: len(small.threads._waiting) == 1)
    check_refusal(grpc_failure(small.courses.CreateCourse, large, timeout=20))
    little = get.future(course_pb2.GetCourseRequest(name="courses/a"), timeout=20)
    until(lambda: len(small.threads._waiting) == 2)
    release.set()
    assert {call.code() for call in [*working, little]} == {grpc.StatusCode.NOT_FOUND}
    assert grpc_failure(waiting.result).reason == "REQUEST_INVALID"
    assert grpc_failure(small.courses.CreateCourse, large, timeout=20).reason == "REQUEST_INVALID"


def test_a_message_that_comes_while_the_service_stops_is_worked_on(small: Small) -> None:
    send = threading.Event()

    def late() -> Iterator[bytes]:
        assert send.wait(10)
        yield course_pb2.GetCourseRequest(name="courses/a").SerializeToString()

    get: grpc.StreamUnaryMultiCallable[bytes, bytes] = small.channel.stream_unary("/course.v1.CourseService/GetCourse")
    call = get.future(late(), timeout=20)
    until(lambda: len(small.threads._receiving) == 1)
    closing = threading.Thread(target=small.threads.close, args=(10,))
    closing.start()
    send.set()
    assert call.code() == grpc.StatusCode.NOT_FOUND
    closing.join(10)
    assert not closing.is_alive()


def test_a_call_that_waits_elsewhere_is_waited_for_when_the_service_stops(
    small: Small, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, begun = threading.Event(), threading.Event()

    def find_none(*_: object, **__: object) -> dict[str, object]:
        begun.set()
        assert release.wait(20)
        return {}

    monkeypatch.setattr(CourseRepository, "get_many", find_none)
    monkeypatch.setattr(database._combined, "_shared_until", time.monotonic() + 60)
    call = small.courses.GetCourse.future(course_pb2.GetCourseRequest(name="courses/a"), timeout=20)
    assert begun.wait(5)
    closing = threading.Thread(target=small.threads.close, args=(10,))
    closing.start()
    closing.join(0.3)
    assert closing.is_alive()
    release.set()
    assert call.code() == grpc.StatusCode.NOT_FOUND
    closing.join(10)
    assert not closing.is_alive()


def test_a_message_that_comes_late_is_worked_on(small: Small) -> None:
    send = threading.Event()

    def slowly() -> Iterator[bytes]:
        assert send.wait(10)
        yield course_pb2.GetCourseRequest(name="courses/a").SerializeToString()

    get: grpc.StreamUnaryMultiCallable[bytes, bytes] = small.channel.stream_unary("/course.v1.CourseService/GetCourse")
    calls = [get.future(slowly(), timeout=20) for _ in range(THREADS)]
    assert grpc_failure(small.get).reason == "COURSE_NOT_FOUND"
    send.set()
    assert {call.code() for call in calls} == {grpc.StatusCode.NOT_FOUND}


def test_a_message_that_takes_most_of_the_time_is_worked_on_where_nobody_waits(small: Small) -> None:
    def slowly() -> Iterator[bytes]:
        threading.Event().wait(1.3)  # what is tested is the passing of time
        yield course_pb2.GetCourseRequest(name="courses/a").SerializeToString()

    get: grpc.StreamUnaryMultiCallable[bytes, bytes] = small.channel.stream_unary("/course.v1.CourseService/GetCourse")
    assert grpc_failure(get, slowly(), timeout=2).reason == "COURSE_NOT_FOUND"


def test_what_a_message_takes_to_come_is_no_wait_for_a_turn(
    small: Small, one_by_one: tuple[threading.Semaphore, "queue.SimpleQueue[int]"]
) -> None:
    release, begun = one_by_one
    send = threading.Event()
    request = course_pb2.GetCourseRequest(name="courses/a")

    def slowly() -> Iterator[bytes]:
        assert send.wait(10)
        yield request.SerializeToString()

    waiting: list[Any] = [small.courses.GetCourse.future(request, timeout=20) for _ in range(THREADS)]
    for _ in range(THREADS):
        begun.get(timeout=5)
    get: grpc.StreamUnaryMultiCallable[bytes, bytes] = small.channel.stream_unary("/course.v1.CourseService/GetCourse")
    waiting += [get.future(slowly(), timeout=20) for _ in range(2)]
    threading.Event().wait(1)  # what is tested is the passing of time
    send.set()
    until(lambda: len(small.threads._waiting) == 2)
    release.release()
    begun.get(timeout=5)
    waiting.append(small.courses.GetCourse.future(request, timeout=3))
    until(lambda: len(small.threads._waiting) == 2)
    release.release(len(waiting))
    assert {call.code() for call in waiting} == {grpc.StatusCode.NOT_FOUND}


def test_a_write_with_a_second_message_is_refused_and_nothing_is_stored(small: Small) -> None:
    create: grpc.StreamUnaryMultiCallable[bytes, bytes] = small.channel.stream_unary(
        "/course.v1.CourseService/CreateCourse"
    )
    request = course_pb2.CreateCourseRequest(course=course_pb2.Course(title="x"), course_id="a").SerializeToString()
    for _ in range(20):
        failure = grpc_failure(create, iter([request, request]))
        assert (failure.status, failure.reason) == ("INVALID_ARGUMENT", "REQUEST_MALFORMED")
    assert grpc_failure(small.get).reason == "COURSE_NOT_FOUND"


# HTTP


def connected(small: Small, sent: bytes) -> socket.socket:
    connection = socket.create_connection(small.http_address, timeout=10)
    connection.sendall(sent)
    return connection


def read_until(connection: socket.socket, end: bytes) -> None:
    received = b""
    while end not in received:
        received += connection.recv(1000)
        assert received


def is_ended(connection: socket.socket) -> bool:
    """Wait for the end of a connection."""
    with contextlib.suppress(ConnectionResetError):
        while connection.recv(65_536):
            pass
    return True


@pytest.mark.parametrize("sent", [b"", b"GET /courses/a HTTP/1.1\r\nHost: x\r\nX-Slow: "], ids=["nothing", "half"])
def test_headers_that_do_not_arrive_in_time_end_the_connection(
    small: Small, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(protocol, "HEADER_SECONDS", 0.3)
    start = time.monotonic()
    with connected(small, sent) as connection:
        assert is_ended(connection)
    assert 0.3 <= time.monotonic() - start < 3


def test_headers_of_a_second_request_have_a_time_limit_of_their_own(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEADER_SECONDS", 0.3)
    request = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
    with connected(small, request) as connection:
        read_until(connection, b"alive")
        threading.Event().wait(0.6)  # idle, which is no fault
        connection.sendall(request)
        read_until(connection, b"alive")
        connection.sendall(b"G")
        assert is_ended(connection)


def test_a_body_that_goes_on_after_its_response_ends_the_connection(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "REST_SECONDS", 0.3)
    monkeypatch.setattr(current_call, "BODY_SECONDS", 0.1)
    head = b"POST /courses HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 20\r\n\r\n{"
    with connected(small, head) as connection:
        assert connection.recv(1000).startswith(b"HTTP/1.1 504 ")
        assert is_ended(connection)


def test_garbage_after_a_response_ends_the_connection_and_nothing_else(
    small: Small, caplog: pytest.LogCaptureFixture
) -> None:
    head = b"GET /livez HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    with connected(small, head) as connection:
        read_until(connection, b"alive")
        connection.sendall(b"zzz\r\n")
        assert is_ended(connection)
    assert small.http.get("/livez").status_code == 200
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_a_caller_that_does_not_read_loses_its_connection(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "READ_SECONDS", 0.3)
    lost = threading.Event()
    connection_lost = protocol.BoundedProtocol.connection_lost

    def note(connection: protocol.BoundedProtocol, error: Exception | None) -> None:
        connection_lost(connection, error)
        lost.set()

    monkeypatch.setattr(protocol.BoundedProtocol, "connection_lost", note)
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(20)
        connection.connect(small.http_address)
        with contextlib.suppress(ConnectionError, TimeoutError):
            for _ in range(100):
                connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n")
        assert lost.wait(20)
        assert is_ended(connection)


def test_headers_of_more_than_16_kb_are_refused(small: Small) -> None:
    assert small.http.get("/livez", headers={"X-Large": "x" * 12_000}).status_code == 200
    assert small.http.get("/livez", headers={"X-Large": "x" * 17_000}).status_code == 431


def test_a_connection_too_many_is_ended_and_the_others_are_not(small: Small) -> None:
    assert small.http.get("/livez").status_code == 200
    held = [connected(small, b"") for _ in range(19)]
    with connected(small, b"") as one_more:
        assert is_ended(one_more)
    assert small.http.get("/livez").status_code == 200
    for connection in held:
        connection.close()
