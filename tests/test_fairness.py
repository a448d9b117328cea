"""Callers take turns: however much one of them asks for, the others are served."""

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import grpc
import pytest
from course.v1 import course_pb2, course_pb2_grpc

from course_service.auth.errors import CredentialsMissing
from course_service.call import Call
from course_service.guard.guard import Guard
from course_service.guard.steps import Credentials
from course_service.guard.turns import Turns
from course_service.health import Health
from course_service.rest.app import make_app
from course_service.rest.places import Places
from course_service.rest.server import HttpServer
from course_service.rpc.health import HealthServicer
from course_service.rpc.interceptor import identify
from course_service.rpc.server import make_server
from course_service.rpc.threads import CallThreads
from course_service.store.database import Database
from tests.conftest import TOKENS
from tests.support.http import http_client
from tests.support.waiting import Held, until

THREADS = 2
WAITING = 4

# The order, by itself


def order(turns: Turns[str]) -> list[str]:
    return [turns.next()[1] for _ in range(len(turns))]


def test_callers_take_turns_and_each_ones_calls_keep_their_order() -> None:
    turns: Turns[str] = Turns()
    for item in ("a1", "a2", "a3", "b1", "c1", "b2"):
        turns.add(item[0], item)
    assert order(turns) == ["a1", "b1", "c1", "a2", "b2", "a3"]


def test_who_has_fewer_calls_at_work_is_next() -> None:
    turns: Turns[str] = Turns()
    for _ in range(2):
        turns.begin("a")
    for item in ("a1", "b1", "b2", "b3", "b4"):
        turns.add(item[0], item)
    assert order(turns) == ["b1", "b2", "a1", "b3", "b4"]
    for _ in range(3):
        turns.end("a")
    turns.add("b", "b5")
    turns.add("a", "a2")
    assert order(turns) == ["a2", "b5"]


def test_the_caller_with_most_waiting_gives_room_to_one_with_less() -> None:
    turns: Turns[str] = Turns()
    for item in ("a1", "a2", "a3"):
        turns.add("a", item)
    assert turns.displace("a", "a4") == "a4"
    assert turns.displace("b", "b1") == "a3"
    assert turns.displace("b", "b2") == "b2"  # each has what the other has, or one more
    assert len(turns) == 3
    assert order(turns) == ["a1", "b1", "a2"]


def test_what_waits_no_longer_is_forgotten() -> None:
    turns: Turns[str] = Turns()
    turns.add("a", "a1")
    turns.add("a", "a2")
    turns.remove("a", "a1")
    turns.remove("a", "a1")
    turns.remove("b", "b1")
    assert order(turns) == ["a2"]
    assert not turns._waiting
    turns.end("a")
    assert not turns._at_work


# By both faces


def by_name(_: Call, credentials: Credentials) -> str:
    """Who calls says so."""
    names = credentials.values("who")
    if not names:
        raise CredentialsMissing
    return names[0]


class Face:
    """One face of a service whose callers say who they are."""

    def __init__(self, get: Callable[[str], str], waiting: Callable[[], int]) -> None:
        self._get = get
        self.waiting = waiting
        """How many calls wait for their turn."""
        self.ended: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
        """Who has been answered, and how, in that order."""
        self._threads: list[threading.Thread] = []

    def ask(self, who: str) -> None:
        """Get a course, whose name is the caller's, without waiting for it."""
        thread = threading.Thread(target=lambda: self.ended.put((who, self._get(who))))
        self._threads.append(thread)
        thread.start()

    def ask_and_wait(self, who: str, waiting: int) -> None:
        """The same; returns when so many calls wait."""
        self.ask(who)
        until(lambda: self.waiting() == waiting)

    def join(self) -> None:
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()


def get_by_grpc(channel: grpc.Channel, who: str) -> str:
    metadata = (("who", who),) if who else ()
    call = course_pb2_grpc.CourseServiceStub(channel).GetCourse.future(
        course_pb2.GetCourseRequest(name=f"courses/{who or 'nobody'}"), timeout=20, metadata=metadata
    )
    return str(call.code().name)


def get_by_http(address: str, who: str) -> str:
    headers = {"who": who} if who else {}
    with http_client(address, headers=headers) as client:
        return str(client.get(f"/courses/{who or 'nobody'}").json()["error"]["status"])


@pytest.fixture(params=["grpc", "http"])
def face(database: Database, request: pytest.FixtureRequest) -> Iterator[Face]:
    guard, health = Guard(identify=by_name), Health(database)
    threads = CallThreads(THREADS, max_waiting=WAITING, identify=identify(guard))
    places = Places(THREADS, max_waiting=WAITING)
    with contextlib.ExitStack() as stack:
        if request.param == "grpc":
            server, port = make_server("127.0.0.1:0", database, TOKENS, HealthServicer(health), guard, threads)
            server.start()
            stack.callback(lambda: server.stop(None).wait())
            channel = stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{port}"))
            found = Face(partial(get_by_grpc, channel), threads._waiting.__len__)
        else:
            http_server = HttpServer("127.0.0.1:0", make_app(database, TOKENS, health, guard, places))
            http_server.start()
            stack.callback(http_server.stop)
            found = Face(partial(get_by_http, f"http://127.0.0.1:{http_server.port}"), places._turns.__len__)
        yield found
        found.join()
    threads.close(5)


@dataclass(frozen=True)
class Work:
    """The look-ups of courses: each waits until it is let go."""

    begun: "queue.SimpleQueue[str]"
    """Whose has begun, in that order."""
    _go_on: threading.Semaphore

    def let_go(self, count: int = 1) -> None:
        self._go_on.release(count)


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Iterator[Work]:
    found = Work(queue.SimpleQueue(), threading.Semaphore(0))

    async def get(_: object, name: str) -> None:
        def wait() -> None:
            found.begun.put(name)
            assert found._go_on.acquire(timeout=20)

        await Held(wait)

    monkeypatch.setattr(Database, "get", get)
    yield found
    found.let_go(1000)


def busy(face: Face, work: Work) -> None:
    """Have all threads at work for one caller, whose next calls wait."""
    for _ in range(THREADS):
        face.ask("loud")
        work.begun.get(timeout=5)
    for waiting in range(1, WAITING + 1):
        face.ask_and_wait("loud", waiting)


def test_who_asks_for_little_is_served_before_who_asks_for_much(face: Face, work: Work) -> None:
    for _ in range(THREADS):
        face.ask("loud")
        work.begun.get(timeout=5)
    face.ask_and_wait("loud", 1)
    face.ask_and_wait("loud", 2)
    face.ask_and_wait("quiet", 3)
    work.let_go()
    assert work.begun.get(timeout=5) == "quiet"


def test_there_is_room_to_wait_for_who_has_less_waiting(face: Face, work: Work) -> None:
    busy(face, work)
    face.ask("loud")
    assert face.ended.get(timeout=5) == ("loud", "RESOURCE_EXHAUSTED")
    face.ask("quiet")
    assert face.ended.get(timeout=5) == ("loud", "RESOURCE_EXHAUSTED")  # in its place
    assert face.waiting() == WAITING
    work.let_go()
    assert work.begun.get(timeout=5) == "quiet"
    work.let_go(100)
    face.join()
    ended = [face.ended.get() for _ in range(THREADS + WAITING)]
    assert sorted(ended) == [("loud", "NOT_FOUND")] * (THREADS + WAITING - 1) + [("quiet", "NOT_FOUND")]


def test_who_does_not_say_who_it_is_is_refused_and_takes_nobodys_room(face: Face, work: Work) -> None:
    busy(face, work)
    for _ in range(WAITING):
        face.ask("")
    work.let_go(100)
    face.join()
    ended = [face.ended.get() for _ in range(THREADS + 2 * WAITING)]
    by_nobody = [how for who, how in ended if not who]
    assert set(by_nobody) <= {"UNAUTHENTICATED", "RESOURCE_EXHAUSTED"}
    assert "UNAUTHENTICATED" in by_nobody


def test_turns_are_counted_right_whatever_becomes_of_calls(face: Face, work: Work) -> None:
    busy(face, work)
    work.let_go(100)
    face.join()
    for _ in range(THREADS):
        face.ask("loud")
        work.begun.get(timeout=5)
