"""The calls that are measured."""

from __future__ import annotations

import itertools
import random
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from course.v1 import course_pb2

from benchmarks.servers import Server

BATCH = 100
PAGE = 50


@dataclass(frozen=True)
class Kind:
    """One row of the results."""

    title: str
    method: str
    request: Callable[[list[str]], Any]
    """Makes a request, about courses of random names."""
    in_flight: int
    calls: int
    """In one turn."""
    peers: tuple[str, ...] = ()
    """Who answers it beside the service."""
    per: int = 1
    """What a call's cost is divided by."""


def get(names: list[str]) -> course_pb2.GetCourseRequest:
    """Get one course. Of one id for all, combined reads would look too good."""
    return course_pb2.GetCourseRequest(name=random.choice(names))


def batch_get(names: list[str]) -> course_pb2.BatchGetCoursesRequest:
    """Get many."""
    return course_pb2.BatchGetCoursesRequest(names=random.sample(names, BATCH))


def first_page(_: list[str]) -> course_pb2.ListCoursesRequest:
    """List the newest."""
    return course_pb2.ListCoursesRequest(page_size=PAGE)


def course() -> course_pb2.Course:
    """Make a course of the usual size."""
    number = random.randrange(10_000)
    return course_pb2.Course(
        title=f"Course {number}",
        code=f"C {number}",
        description="x" * 300,
        owner=f"users/{number % 500}",
        subjects=["biology", "chemistry"],
        labels={"team": str(number % 500)},
    )


def create(_: list[str]) -> course_pb2.CreateCourseRequest:
    """Create one."""
    return course_pb2.CreateCourseRequest(course=course())


def create_once(_: list[str]) -> course_pb2.CreateCourseRequest:
    """Create one so that it may be sent again."""
    return course_pb2.CreateCourseRequest(course=course(), request_id=str(uuid.uuid4()))


def update(names: list[str]) -> course_pb2.UpdateCourseRequest:
    """Write another title."""
    changed = course_pb2.Course(name=random.choice(names), title=f"Course {random.randrange(10_000)}")
    return course_pb2.UpdateCourseRequest(course=changed)


_ALL = ("echo", "by_hand", "textbook")
KINDS = [
    *(
        Kind(f"GetCourse, {in_flight} in flight", "GetCourse", get, in_flight, 300, _ALL)
        for in_flight in (1, 4, 32, 128)
    ),
    Kind("BatchGetCourses(100), 8 in flight, per course", "BatchGetCourses", batch_get, 8, 20, ("textbook",), BATCH),
    Kind("ListCourses(50), 8 in flight", "ListCourses", first_page, 8, 30, ("textbook",)),
    Kind("CreateCourse, 8 in flight", "CreateCourse", create, 8, 80, ("by_hand", "textbook")),
    Kind("CreateCourse with request_id, 8 in flight", "CreateCourse", create_once, 8, 80),
    Kind("UpdateCourse, 8 in flight", "UpdateCourse", update, 8, 80),
]


def run(server: Server, kind: Kind, names: list[str], calls: int) -> list[float]:
    """Make calls, so many at a time; returns how long each took, in milliseconds."""
    requests = [kind.request(names) for _ in range(calls)]  # not while it is measured
    room, taken, waiting = threading.Semaphore(kind.in_flight), list[float](), []
    methods = itertools.cycle([getattr(stub, kind.method) for stub in server.courses])

    def ended(start: float) -> None:
        taken.append((time.perf_counter() - start) * 1000)
        room.release()

    for request in requests:
        room.acquire()
        start = time.perf_counter()
        call = next(methods).future(request, timeout=30)
        call.add_done_callback(lambda _, start=start: ended(start))
        waiting.append(call)
    for call in waiting:
        call.result()
    return taken
