"""D7: what callers see of a course can have happened in some order, whatever crashes meanwhile."""

import itertools
import math
import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from course.v1 import course_pb2
from sqlalchemy.engine import URL, make_url

from tests.conftest import migrate
from tests.faults.support.counts import count
from tests.faults.support.faces import Failed, GrpcFace
from tests.faults.support.figures import record
from tests.faults.support.linearizability import OK, UNKNOWN, Operation, Version, violation
from tests.faults.support.ports import free_port
from tests.faults.support.postgres import Postgres
from tests.faults.support.service import Service
from tests.support.repeating import repeating

CLIENTS = 8
HOT_COURSES = 10
"""How many courses, and so histories, the clients share at a time."""
CALLS_BETWEEN_FAULTS = 40 * HOT_COURSES
FAULTS_IN_A_HISTORY = 2
TRY_SECONDS = 2.0
FREEZE_SECONDS = 2.5
"""So that callers give up, and what they asked for may be done later."""
CLAIM = "what callers see of a course can have happened in some order"
KINDS = {"create": 1, "get": 10, "update": 10, "delete": 2, "undelete": 2}


class Histories:
    """What all clients have seen of some courses."""

    def __init__(self, ids: Sequence[str]) -> None:
        self.ids = ids
        self._calls: dict[str, list[Operation]] = {course_id: [] for course_id in ids}
        self._made = 0
        self._grows = threading.Condition()

    def add(self, course_id: str, call: Operation) -> None:
        with self._grows:
            self._calls[course_id].append(call)
            self._made += 1
            self._grows.notify_all()

    def wait_for_more(self, calls: int) -> None:
        with self._grows:
            wanted = self._made + calls
            assert self._grows.wait_for(lambda: self._made >= wanted, timeout=60), "no call succeeds any more"

    def all(self) -> list[list[Operation]]:
        return list(self._calls.values())


class Client:
    """Makes one call after the other of courses that others call too."""

    def __init__(self, number: int, face: GrpcFace, seed: int) -> None:
        self._number = number
        self._face = face
        self._chance = random.Random(f"{seed} {number}")
        self._written = 0
        self._etags: dict[str, str] = {}
        """The newest etag of each course that this client has seen."""
        self.histories = Histories([])

    def _pause(self) -> None:
        """Let a crash pass: each write that fails meanwhile may have been done, which is hard to search through."""
        time.sleep(self._chance.uniform(0.3, 0.7))

    def step(self) -> None:
        histories, chance = self.histories, self._chance
        course_id = chance.choice(histories.ids)
        etag = self._etags.get(course_id, "")
        kind = chance.choices(list(KINDS), list(KINDS.values()))[0] if etag else chance.choice(("create", "get"))
        value = ""
        if kind in {"create", "update"}:
            self._written += 1
            value = f"Written {self._written} by {self._number}"
        condition = etag if kind == "update" and chance.random() < 0.6 else ""
        request = _request(kind, course_id, value, condition)
        start = time.monotonic()
        try:
            course = self._face.call(f"{kind.title()}Course", request, TRY_SECONDS)
        except Failed as failed:
            if failed.may_be_done:
                histories.add(course_id, Operation(kind, start, math.inf, UNKNOWN, value, condition))
            elif not failed.is_passing:
                histories.add(course_id, Operation(kind, start, time.monotonic(), failed.reason, value, condition))
            if failed.is_passing:
                self._pause()
            return
        seen = Version(course.title, course.state == course_pb2.Course.DELETED, course.etag)
        self._etags[course_id] = course.etag
        histories.add(course_id, Operation(kind, start, time.monotonic(), OK, value, condition, seen))


def _request(kind: str, course_id: str, value: str, etag: str) -> object:
    name = f"courses/{course_id}"
    match kind:
        case "create":
            return course_pb2.CreateCourseRequest(course_id=course_id, course=course_pb2.Course(title=value))
        case "update":
            return course_pb2.UpdateCourseRequest(course=course_pb2.Course(name=name, title=value, etag=etag))
    request = {
        "get": course_pb2.GetCourseRequest,
        "delete": course_pb2.DeleteCourseRequest,
        "undelete": course_pb2.UndeleteCourseRequest,
    }[kind]
    return request(name=name)


@dataclass(frozen=True)
class Seen:
    """What was seen of some histories."""

    histories: int
    calls: int
    unknown: int
    faults: int
    violations: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"{len(self.violations)} of {self.histories} histories violated it ({self.calls:,} calls by {CLIENTS}"
            f" clients, {self.unknown} of unknown outcome, {self.faults} crashes and freezes)"
        )


def holds(seen: Seen) -> None:
    assert not seen.violations, f"{seen}: {seen.violations[0]}"


def database_faults(database: Postgres) -> list[Callable[[], None]]:
    """What can be done to a database's server, which is up again in the end."""

    def crash() -> None:
        database.kill()
        database.start()

    def freeze() -> None:
        with database.frozen():
            time.sleep(FREEZE_SECONDS)

    return [crash, freeze, database.restart, lambda: database.restart("immediate")]


def hurt_and_watch(
    url: URL, *, histories: int, database: Postgres | None = None, fault: str | None = None, seed: int = 1
) -> Seen:
    """Have clients call the same few courses; crash or freeze the service, or the database's server, meanwhile."""
    chance = random.Random(seed)
    settings = {"COURSE_GRPC_ADDRESS": f"127.0.0.1:{free_port()}", "COURSE_HTTP_ADDRESS": ""}
    rounds: list[Histories] = []
    done = 0
    with ExitStack() as stack:

        def start() -> Service:
            started = Service(url, fault, **settings)
            stack.callback(started.close)
            return started

        service = start()

        def crash_service() -> None:
            nonlocal service
            service.kill()
            service = start()

        def freeze_service() -> None:
            service.freeze()
            time.sleep(FREEZE_SECONDS)
            service.thaw()

        faces = [GrpcFace(service.grpc_address, waits_for_ready=True) for _ in range(CLIENTS)]
        for face in faces:
            stack.callback(face.close)
        clients = [Client(number, face, seed) for number, face in enumerate(faces)]
        faults: list[Callable[[], None]] = [crash_service, freeze_service]
        if database:
            faults += database_faults(database)
        for first in range(0, histories, HOT_COURSES):
            rounds.append(Histories([f"hot-{first + number}" for number in range(HOT_COURSES)]))
            for client in clients:
                client.histories = rounds[-1]
            with repeating(*(client.step for client in clients)):
                for do in chance.sample(faults, FAULTS_IN_A_HISTORY):
                    rounds[-1].wait_for_more(CALLS_BETWEEN_FAULTS)
                    do()
                    done += 1
                rounds[-1].wait_for_more(CALLS_BETWEEN_FAULTS)
    every = [history for histories in rounds for history in histories.all()]
    calls = list(itertools.chain.from_iterable(every))
    return Seen(
        histories=len(every),
        calls=len(calls),
        unknown=sum(call.result == UNKNOWN for call in calls),
        faults=done,
        violations=tuple(filter(None, map(violation, every))),
    )


@pytest.fixture
def sqlite_url(tmp_path: Path) -> URL:
    url = make_url(f"sqlite:///{tmp_path / 'course.db'}")
    migrate(url)
    return url


def test_what_callers_see_of_a_course_can_have_happened_in_some_order_on_postgresql(postgres: Postgres) -> None:
    with postgres.new_database() as url:
        seen = hurt_and_watch(url, histories=count(10, 100), database=postgres)
    holds(seen)
    record("D7", f"{CLAIM}, on PostgreSQL", str(seen))


def test_what_callers_see_of_a_course_can_have_happened_in_some_order_on_sqlite(sqlite_url: URL) -> None:
    seen = hurt_and_watch(sqlite_url, histories=count(10, 100))
    holds(seen)
    record("D7", f"{CLAIM}, on SQLite", str(seen))


def test_a_get_from_a_stale_copy_is_found(sqlite_url: URL) -> None:
    seen = hurt_and_watch(sqlite_url, histories=HOT_COURSES, fault="stale_get")
    with pytest.raises(AssertionError):
        holds(seen)
    record("D7", f"{CLAIM}, on SQLite", control=f"Get from a copy up to a second old: {seen}")


def test_an_update_whatever_the_etag_is_found(postgres: Postgres) -> None:
    with postgres.new_database() as url:
        seen = hurt_and_watch(url, histories=HOT_COURSES, database=postgres, fault="no_etag_compared")
    with pytest.raises(AssertionError):
        holds(seen)
    record("D7", f"{CLAIM}, on PostgreSQL", control=f"etags are not compared: {seen}")
