"""Reads that share queries are as fresh as if each had one of its own: what is acknowledged is seen."""

import itertools
import random
import threading

import pytest
from course.v1 import course_pb2, course_pb2_grpc

from tests.faults.support.counts import FULL, count
from tests.faults.support.figures import record
from tests.faults.support.load import courses
from tests.faults.support.postgres import Postgres
from tests.faults.support.service import Service, running
from tests.support.repeating import repeating

WRITERS = 8
READERS = 64
THREADS = 16
"""So that each of as many calls as there are readers can be handed at once to what combines them."""
CLAIM = "reads that share queries see every write that was acknowledged before they came"


class Titles:
    """Courses whose titles count up: one writer for each, and readers that know what has been acknowledged."""

    def __init__(self, stub: course_pb2_grpc.CourseServiceStub) -> None:
        self._stub = stub
        request = course_pb2.CreateCourseRequest(course=course_pb2.Course(title="0"))
        self._names = [stub.CreateCourse(request, timeout=10).name for _ in range(WRITERS)]
        self._acknowledged = dict.fromkeys(self._names, 0)
        self._reads = itertools.count(1)
        self.reads = 0
        self.stale = 0

    def writer(self, name: str) -> None:
        """Write the next title."""
        title = self._acknowledged[name] + 1
        request = course_pb2.UpdateCourseRequest(course=course_pb2.Course(name=name, title=str(title)))
        self._stub.UpdateCourse(request, timeout=10)
        self._acknowledged[name] = title

    def reader(self) -> None:
        """Read a course."""
        name = random.choice(self._names)
        least = self._acknowledged[name]
        found = self._stub.GetCourse(course_pb2.GetCourseRequest(name=name), timeout=10)
        self.reads = max(self.reads, next(self._reads))
        self.stale += int(found.title) < least

    @property
    def names(self) -> list[str]:
        """Whose writers there are."""
        return self._names

    @property
    def writes(self) -> int:
        """How many writes have been acknowledged."""
        return sum(self._acknowledged.values())


def read_and_write(service: Service, reads: int, readers: int, *, until_stale: bool = False) -> Titles:
    """Read so many courses while they are written to, or until one is stale."""
    enough = threading.Event()
    with courses(service.grpc_address) as stub:
        titles = Titles(stub)

        def read() -> None:
            titles.reader()
            if titles.reads >= reads or (until_stale and titles.stale):
                enough.set()

        writers = [lambda name=name: titles.writer(name) for name in titles.names]
        with repeating(*writers, *[read] * readers):
            assert enough.wait(1800)
    return titles


@pytest.mark.parametrize(
    "readers", [8, READERS] if FULL else [8]
)  # the fewer, the less time passes before a read gets to the service
def test_a_read_sees_what_was_acknowledged_before_it_came(postgres: Postgres, readers: int) -> None:
    with running(postgres.url, COURSE_THREADS=str(THREADS)) as service:
        titles = read_and_write(service, count(2_000, 100_000), readers)
    record(
        "freshness",
        f"{CLAIM}: {readers} readers",
        f"{titles.stale} stale of {titles.reads:,} reads beside {titles.writes:,} writes",
    )
    assert titles.writes > 100
    assert titles.stale == 0


def test_reads_are_stale_if_they_are_answered_from_the_query_before(postgres: Postgres) -> None:
    with running(postgres.url, "answer_from_the_query_before", COURSE_THREADS=str(THREADS)) as service:
        titles = read_and_write(service, 100_000, 8, until_stale=True)
    record(
        "freshness",
        f"{CLAIM}: 8 readers",
        control=f"answered from the query before: {titles.stale} stale of {titles.reads:,} reads",
    )
    with pytest.raises(AssertionError):
        assert titles.stale == 0
