"""Callers who take and do not give: silent, slow and half-sent calls, begun anew as soon as the service ends them."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator

from course.v1 import course_pb2
from h2.exceptions import ProtocolError

from tests.faults.support.http2 import SERVICE, Connection, framed
from tests.faults.support.service import Service

_MESSAGE = framed(course_pb2.GetCourseRequest(name="courses/" + "a" * 200).SerializeToString())
_HEADERS = b"GET /courses HTTP/1.1\r\nHost: localhost\r\nX-Name: " + b"a" * 200
_BODY = (
    b"POST /courses HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 300\r\n\r\n"
    b'{"title": "' + b"a" * 200
)
_BEGINNINGS = {"headers": (_HEADERS, _HEADERS.index(b"aaa")), "body": (_BODY, _BODY.index(b"aaa"))}


class Nuisance:
    """Many calls that never end by themselves."""

    def __init__(self) -> None:
        self.lasted: list[float] = []
        """How many seconds each call lasted until the service ended it."""
        self.begun = 0
        self.stop = threading.Event()

    @property
    def longest(self) -> float:
        """The most seconds that a call lasted, or infinity if none was ended."""
        return max(self.lasted, default=float("inf"))


@contextlib.contextmanager
def _at_it(nuisance: Nuisance, work: Callable[[], None], threads: int) -> Iterator[Nuisance]:
    workers = [threading.Thread(target=work, daemon=True) for _ in range(threads)]
    for worker in workers:
        worker.start()
    try:
        yield nuisance
    finally:
        nuisance.stop.set()
        for worker in workers:
            worker.join()


@contextlib.contextmanager
def unary_calls(
    address: str, *, calls: int = 64, connections: int = 4, is_trickling: bool = False
) -> Iterator[Nuisance]:
    """GetCourse: its headers, and then no message, or one of a byte per second."""
    nuisance = Nuisance()

    def work() -> None:
        while not nuisance.stop.is_set():
            with Connection(address) as connection, contextlib.suppress(ProtocolError):
                _keep_open(nuisance, connection, calls // connections, is_trickling=is_trickling)

    with _at_it(nuisance, work, connections) as begun:
        yield begun


def _keep_open(nuisance: Nuisance, connection: Connection, calls: int, *, is_trickling: bool) -> None:
    since: dict[int, float] = {}
    sent: dict[int, int] = {}
    while not (nuisance.stop.is_set() or connection.is_closed):
        while len(since) < calls and connection.goaway is None:
            stream = connection.begin(f"{SERVICE}/GetCourse")
            since[stream], sent[stream] = time.monotonic(), 0
            nuisance.begun += 1
        connection.read(0.05)
        now = time.monotonic()
        for stream, begun in list(since.items()):
            if connection.replies[stream].has_ended or connection.is_closed:
                nuisance.lasted.append(now - begun)
                del since[stream]
            elif is_trickling and now - begun > sent[stream] + 1:
                connection.send(stream, _MESSAGE[sent[stream] : sent[stream] + 1])
                sent[stream] += 1
        if connection.goaway is not None and not since:
            return


@contextlib.contextmanager
def half_requests(address: str, part: str, *, calls: int = 64, is_trickling: bool = False) -> Iterator[Nuisance]:
    """HTTP requests that stop in the middle of their `headers` or `body`, or go on with a byte per second."""
    host, _, port = address.removeprefix("http://").rpartition(":")
    nuisance = Nuisance()
    whole, half = _BEGINNINGS[part]

    def begin(selector: selectors.BaseSelector) -> None:
        connection = socket.create_connection((host, int(port)), timeout=10)
        connection.sendall(whole[:half])
        selector.register(connection, selectors.EVENT_READ, [time.monotonic(), half])
        nuisance.begun += 1

    def work() -> None:
        with selectors.DefaultSelector() as selector:
            while not nuisance.stop.is_set():
                while len(selector.get_map()) < calls:
                    begin(selector)
                ended = [key for key, _ in selector.select(0.05) if _has_ended(key.fileobj)]
                now = time.monotonic()
                for key in list(selector.get_map().values()):
                    begun, sent = key.data
                    if is_trickling and key not in ended and now - begun > sent - half + 1:
                        ended += [] if _sends(key.fileobj, whole[sent : sent + 1]) else [key]
                        key.data[1] += 1
                for key in ended:
                    nuisance.lasted.append(now - key.data[0])
                    selector.unregister(key.fileobj)
                    _socket(key.fileobj).close()
            for key in list(selector.get_map().values()):
                _socket(key.fileobj).close()

    with _at_it(nuisance, work, 1) as begun:
        yield begun


def _socket(file: object) -> socket.socket:
    assert isinstance(file, socket.socket)
    return file


def _has_ended(file: object) -> bool:
    """Whether the service has responded or hung up: either way it waits no longer."""
    with contextlib.suppress(ConnectionError):
        _socket(file).recv(1 << 16)
    return True


def _sends(file: object, data: bytes) -> bool:
    try:
        _socket(file).sendall(data)
    except ConnectionError:
        return False
    return True


@contextlib.contextmanager
def deaf_watchers(address: str, *, watchers: int = 50) -> Iterator[list[Connection]]:
    """Health watchers, each on a connection of its own, whose window lets no response through."""
    with contextlib.ExitStack() as stack:
        connections = []
        for _ in range(watchers):
            connection = stack.enter_context(Connection(address, window=0))
            stream = connection.begin("/grpc.health.v1.Health/Watch")
            connection.send(stream, framed(b""), end=True)
            connections.append(connection)
        for connection in connections:
            connection.read(2)  # the server's settings: it has taken the connection
        yield connections


@contextlib.contextmanager
def deaf_readers(service: Service, *, readers: int = 100, pause: float = 0.06) -> Iterator[None]:
    """Ask for the largest page again and again by both faces, no faster than it is made, and read none."""
    request = course_pb2.ListCoursesRequest(page_size=1_000, view=course_pb2.COURSE_VIEW_FULL).SerializeToString()
    host, _, port = service.http_address.removeprefix("http://").rpartition(":")
    with contextlib.ExitStack() as stack:
        by_grpc = stack.enter_context(Connection(service.grpc_address, window=0))
        for _ in range(readers):
            by_grpc.send(by_grpc.begin(f"{SERVICE}/ListCourses"), framed(request), end=True)
            by_http = stack.enter_context(socket.create_connection((host, int(port)), timeout=10))
            by_http.sendall(b"GET /courses?page_size=1000&view=FULL HTTP/1.1\r\nHost: localhost\r\n\r\n")
            threading.Event().wait(pause)
        yield
