"""D1, D2: a write that was acknowledged is there after a crash of the database or of the service."""

import random
import sqlite3
import threading
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest
from course.v1 import course_pb2, course_pb2_grpc
from sqlalchemy.engine import URL, make_url

from tests.conftest import migrate
from tests.faults.support.counts import count
from tests.faults.support.figures import record
from tests.faults.support.load import courses
from tests.faults.support.ports import free_port
from tests.faults.support.postgres import Postgres
from tests.faults.support.service import Service
from tests.support.repeating import repeating

WRITERS = 8
CLAIM = "an acknowledged write survives a crash"


@dataclass
class Acknowledged:
    """What the service has said it has stored."""

    courses: dict[str, course_pb2.Course] = field(default_factory=dict)
    """The newest state of each course."""
    unsure: set[str] = field(default_factory=set)
    """The courses of which a change was not answered, so that they may be in the next state too."""
    writes: int = 0
    grows: threading.Condition = field(default_factory=threading.Condition)

    def add(self, course: course_pb2.Course) -> None:
        with self.grows:
            self.courses[course.name] = course
            self.writes += 1
            self.grows.notify_all()

    def wait_for(self, writes: int) -> None:
        with self.grows:
            assert self.grows.wait_for(lambda: self.writes >= writes, timeout=60), "no write is acknowledged any more"


class Writer:
    """Creates a course and publishes it, again and again."""

    def __init__(self, stub: course_pb2_grpc.CourseServiceStub, number: int, acknowledged: Acknowledged) -> None:
        self._stub = stub
        self._number = number
        self._acknowledged = acknowledged
        self._created = 0

    def step(self) -> None:
        self._created += 1
        new = course_pb2.Course(title=f"Course {self._created} of {self._number}", code=f"{self._number}")
        create = course_pb2.CreateCourseRequest(course=new, course_id=f"w{self._number}-{self._created}")
        try:
            course = self._stub.CreateCourse(create, timeout=2, wait_for_ready=True)
        except grpc.RpcError:
            return
        self._acknowledged.add(course)
        try:
            publish = course_pb2.PublishCourseRequest(name=course.name)
            self._acknowledged.add(self._stub.PublishCourse(publish, timeout=2, wait_for_ready=True))
        except grpc.RpcError:
            self._acknowledged.unsure.add(course.name)


@dataclass(frozen=True)
class Crashes:
    """What was seen of some crashes under writers."""

    crashes: int
    acknowledged: int
    lost: int
    """Courses that are missing or in an earlier state."""

    def __str__(self) -> str:
        return f"{self.lost} courses lost after {self.acknowledged:,} acknowledged writes and {self.crashes} crashes"


def holds(figures: Crashes) -> None:
    assert figures.lost == 0, figures


def crash(
    url: URL, *, crashes: int, writes: int, fault: str | None = None, database: Postgres | None = None, seed: int = 1
) -> Crashes:
    """Kill the service, or the database where there is one, at random moments; then compare what is stored."""
    chance = random.Random(seed)
    settings = {"COURSE_GRPC_ADDRESS": f"127.0.0.1:{free_port()}", "COURSE_HTTP_ADDRESS": ""}
    acknowledged = Acknowledged()
    with ExitStack() as stack:

        def start() -> Service:
            started = Service(url, fault, **settings)
            stack.callback(started.close)
            return started

        service = start()
        stubs = [stack.enter_context(courses(service.grpc_address)) for _ in range(WRITERS)]
        with repeating(*(Writer(stub, number, acknowledged).step for number, stub in enumerate(stubs))):
            for _ in range(crashes):
                acknowledged.wait_for(acknowledged.writes + round(writes / crashes * chance.uniform(0.5, 1.6)))
                if database and chance.random() < 0.6:
                    database.kill()
                    database.start()
                else:
                    service.kill()
                    service = start()
            acknowledged.wait_for(writes)
        service.kill()
        if database:
            database.kill()
            database.start()
        service = start()
        stored = all_courses(stack.enter_context(courses(service.grpc_address)))
    lost = [
        name
        for name, course in acknowledged.courses.items()
        if name not in stored or (stored[name] != course and name not in acknowledged.unsure)
    ]
    return Crashes(crashes + 1, acknowledged.writes, len(lost))


def all_courses(stub: course_pb2_grpc.CourseServiceStub) -> dict[str, course_pb2.Course]:
    found: dict[str, course_pb2.Course] = {}
    request = course_pb2.ListCoursesRequest(page_size=1000)
    while True:
        page = stub.ListCourses(request, timeout=10)
        found.update((course.name, course) for course in page.courses)
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


def test_an_acknowledged_write_survives_crashes_of_postgresql_and_of_the_service(postgres: Postgres) -> None:
    with postgres.new_database() as url:
        figures = crash(url, crashes=count(6, 50), writes=count(1_500, 50_000), database=postgres)
    holds(figures)
    record("D1", f"{CLAIM} of PostgreSQL or of the service", str(figures))


def test_with_synchronous_commit_off_acknowledged_writes_are_lost(postgres: Postgres) -> None:
    with postgres.new_database() as url:
        postgres.execute(f"ALTER DATABASE {url.database} SET synchronous_commit = off", "postgres")
        figures = crash(url, crashes=2, writes=400, database=postgres)
    with pytest.raises(AssertionError):
        holds(figures)
    record("D1", f"{CLAIM} of PostgreSQL or of the service", control=f"synchronous_commit = off: {figures}")


@pytest.fixture
def sqlite_url(tmp_path: Path) -> URL:
    url = make_url(f"sqlite:///{tmp_path / 'course.db'}")
    migrate(url)
    return url


def test_an_acknowledged_write_survives_crashes_of_the_service_on_sqlite(sqlite_url: URL) -> None:
    figures = crash(sqlite_url, crashes=count(4, 50), writes=count(1_000, 20_000))
    holds(figures)
    assert sqlite3.connect(sqlite_url.database or "").execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    record("D2", f"{CLAIM} of the service on SQLite, and the file is sound", str(figures))


def test_acknowledging_before_the_commit_loses_writes_on_sqlite(sqlite_url: URL) -> None:
    figures = crash(sqlite_url, crashes=1, writes=100, fault="acknowledge_before_commit")
    with pytest.raises(AssertionError):
        holds(figures)
    record(
        "D2",
        f"{CLAIM} of the service on SQLite, and the file is sound",
        control=f"acknowledged before the commit: {figures}",
    )
