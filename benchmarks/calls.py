"""The calls that are measured."""

from __future__ import annotations

import contextlib
import itertools
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from course.v1 import course_pb2
from google.protobuf.json_format import MessageToDict

from benchmarks import http_calls
from benchmarks.servers import Server

BATCH = 100
PAGE = 50


@dataclass(frozen=True)
class Kind:
    """One row of the results."""

    title: str
    method: str
    """Of the contract; empty for calls by HTTP."""
    requests: Callable[[Server, int], Sequence[Any]]
    """Makes so many requests, about random courses of a server: messages, or bytes for HTTP."""
    in_flight: int
    calls: int
    """In one turn."""
    peers: tuple[str, ...] = ()
    """Who answers it beside the service."""
    per: int = 1
    """What a call's cost is divided by."""


def get(server: Server, count: int) -> list[course_pb2.GetCourseRequest]:
    """Get one course. Of one id for all, combined reads would look too good."""
    return [course_pb2.GetCourseRequest(name=name) for name in random.choices(server.names, k=count)]


def batch_get(server: Server, count: int) -> list[course_pb2.BatchGetCoursesRequest]:
    """Get many."""
    return [course_pb2.BatchGetCoursesRequest(names=random.sample(server.names, BATCH)) for _ in range(count)]


def first_page(_: Server, count: int) -> list[course_pb2.ListCoursesRequest]:
    """List the oldest."""
    return [course_pb2.ListCoursesRequest(page_size=PAGE)] * count


def deep_page(server: Server, count: int) -> list[course_pb2.ListCoursesRequest]:
    """List what comes after half of the courses, or after the thousand that a page has at most."""
    half = course_pb2.ListCoursesRequest(page_size=len(server.names) // 2)
    token = server.courses[0].ListCourses(half, timeout=30, metadata=server.metadata).next_page_token
    return [course_pb2.ListCoursesRequest(page_size=PAGE, page_token=token)] * count


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


def create(_: Server, count: int) -> list[course_pb2.CreateCourseRequest]:
    """Create one."""
    return [course_pb2.CreateCourseRequest(course=course()) for _ in range(count)]


def create_once(_: Server, count: int) -> list[course_pb2.CreateCourseRequest]:
    """Create one so that it may be sent again."""
    return [course_pb2.CreateCourseRequest(course=course(), request_id=str(uuid.uuid4())) for _ in range(count)]


def update(server: Server, count: int) -> list[course_pb2.UpdateCourseRequest]:
    """Write another title."""
    return [_update(name) for name in random.choices(server.names, k=count)]


def update_seen(server: Server, count: int) -> list[course_pb2.UpdateCourseRequest]:
    """Write another title over the version that was read; each course once, so that no call stops another."""
    names = random.sample(server.names, count)
    batches = [course_pb2.BatchGetCoursesRequest(names=names[at : at + BATCH]) for at in range(0, count, BATCH)]
    read = (server.courses[0].BatchGetCourses(batch, timeout=30, metadata=server.metadata) for batch in batches)
    return [_update(each.name, each.etag) for batch in read for each in batch.courses]


def _update(name: str, etag: str = "") -> course_pb2.UpdateCourseRequest:
    changed = course_pb2.Course(name=name, title=f"Course {random.randrange(10_000)}", etag=etag)
    return course_pb2.UpdateCourseRequest(course=changed)


def http_get(server: Server, count: int) -> list[bytes]:
    """Get one course by HTTP."""
    return [http_calls.get(server, f"/{name}") for name in random.choices(server.names, k=count)]


def http_first_page(server: Server, count: int) -> list[bytes]:
    """List the oldest by HTTP."""
    return [http_calls.get(server, f"/courses?page_size={PAGE}")] * count


def http_create(server: Server, count: int) -> list[bytes]:
    """Create one by HTTP."""
    return [http_calls.post(server, "/courses", MessageToDict(course())) for _ in range(count)]


KINDS = [
    *(
        Kind(
            f"GetCourse, {in_flight} in flight", "GetCourse", get, in_flight, 300, ("echo", "by_hand", "textbook", "go")
        )
        for in_flight in (1, 4, 32, 128)
    ),
    Kind("BatchGetCourses(100), 8 in flight, per course", "BatchGetCourses", batch_get, 8, 20, ("textbook",), BATCH),
    Kind("ListCourses(50), 8 in flight", "ListCourses", first_page, 8, 30, ("textbook",)),
    Kind("ListCourses(50) from half of the courses on, 8 in flight", "ListCourses", deep_page, 8, 30),
    Kind("CreateCourse, 8 in flight", "CreateCourse", create, 8, 80, ("by_hand", "textbook", "go")),
    Kind("CreateCourse with request_id, 8 in flight", "CreateCourse", create_once, 8, 80),
    Kind("UpdateCourse, 8 in flight", "UpdateCourse", update, 8, 80),
    Kind("UpdateCourse with etag, 8 in flight", "UpdateCourse", update_seen, 8, 80),
    Kind("GetCourse by HTTP, 32 in flight", "", http_get, 32, 200, ("fastapi",)),
    Kind("ListCourses(50) by HTTP, 8 in flight", "", http_first_page, 8, 30, ("fastapi",)),
    Kind("CreateCourse by HTTP, 8 in flight", "", http_create, 8, 80, ("fastapi",)),
]


@contextlib.contextmanager
def prepared(server: Server, kind: Kind, calls: int) -> Iterator[Callable[[], list[float]]]:
    """Make requests, which is not to be measured.

    Gives what makes the calls, so many at a time, and returns how long each took, in milliseconds.
    """
    requests = kind.requests(server, calls)
    if kind.method:
        yield partial(_by_grpc, server, kind, requests)
    else:
        with http_calls.prepared(server, kind.requests(server, kind.in_flight), requests) as make:
            yield make


def _by_grpc(server: Server, kind: Kind, requests: Sequence[Any]) -> list[float]:
    room, taken, waiting = threading.Semaphore(kind.in_flight), list[float](), []
    methods = itertools.cycle([getattr(stub, kind.method) for stub in server.courses])
    metadata = server.metadata

    def ended(start: float) -> None:
        taken.append((time.perf_counter() - start) * 1000)
        room.release()

    for request in requests:
        room.acquire()
        start = time.perf_counter()
        call = next(methods).future(request, timeout=30, metadata=metadata)
        call.add_done_callback(lambda _, start=start: ended(start))
        waiting.append(call)
    for call in waiting:
        call.result()
    for _ in range(kind.in_flight):
        room.acquire()  # its callback comes after its result
    return taken
