"""Random and mutated bytes in place of messages and bodies: each gets a clean status, and the service lives on."""

import json
import os
import random
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx2
import pytest
from course.v1 import course_pb2
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from sqlalchemy.engine import URL, make_url

from tests.conftest import migrate
from tests.faults.support.callers import CHANNEL_OPTIONS, create_by_grpc, grpc_caller, http_caller
from tests.faults.support.counts import count
from tests.faults.support.figures import record
from tests.faults.support.http2 import SERVICE
from tests.faults.support.mutations import mutated
from tests.faults.support.service import Service, running

SEED = int(os.environ.get("SEED") or random.SystemRandom().randrange(1 << 32))
"""Makes a run the same again: SEED=… in the environment."""
AT_ONCE = 6
"""Calls at once: as many as the service works on without refusing any."""

COURSE = course_pb2.Course(
    name="courses/biology",
    title="Biology İßſ\N{GRINNING FACE}",
    code="BIO 101",
    description="Life.\n" * 20,
    owner="users/ann",
    language_code="en",
    subjects=["biology", "chemistry"],
    labels={"level": "1", "term": "spring"},
    external_ids={"sis": "77"},
    etag='"09f7cccc45cbdf4ca9c577ef"',
)
CREATE = course_pb2.CreateCourseRequest(course=COURSE, request_id="6f1f2a60-3e0b-4c57-9d5a-2f0f5d3b8a11")
_CHANGES: dict[str, Any] = {"name": "courses/biology", "etag": "*", "validate_only": True}
MESSAGES: dict[str, list[Message]] = {
    f"{SERVICE}/CreateCourse": [CREATE, course_pb2.CreateCourseRequest(course=COURSE, course_id="physics")],
    f"{SERVICE}/GetCourse": [course_pb2.GetCourseRequest(name="courses/biology")],
    f"{SERVICE}/ListCourses": [
        course_pb2.ListCoursesRequest(page_size=3, filter='title = "Bio*" AND labels.level:1', order_by="title desc"),
        course_pb2.ListCoursesRequest(
            page_token="eyJ0ZXN0IjoxfQ.c2lnbmF0dXJl", show_deleted=True, view=course_pb2.COURSE_VIEW_FULL
        ),
    ],
    f"{SERVICE}/UpdateCourse": [
        course_pb2.UpdateCourseRequest(
            course=COURSE, update_mask=FieldMask(paths=["title", "labels"]), allow_missing=True
        ),
    ],
    f"{SERVICE}/DeleteCourse": [
        course_pb2.DeleteCourseRequest(**_CHANGES),
        course_pb2.DeleteCourseRequest(name="courses/x"),
    ],
    f"{SERVICE}/UndeleteCourse": [course_pb2.UndeleteCourseRequest(**_CHANGES)],
    f"{SERVICE}/PublishCourse": [course_pb2.PublishCourseRequest(**_CHANGES)],
    f"{SERVICE}/ArchiveCourse": [course_pb2.ArchiveCourseRequest(**_CHANGES)],
    f"{SERVICE}/BatchGetCourses": [course_pb2.BatchGetCoursesRequest(names=["courses/biology", "courses/physics"])],
    f"{SERVICE}/BatchCreateCourses": [course_pb2.BatchCreateCoursesRequest(requests=[CREATE, CREATE])],
    "/grpc.health.v1.Health/Check": [health_pb2.HealthCheckRequest(service="course.v1.CourseService")],
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": [
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="course.v1.CourseService")
    ],
}
"""Valid messages by method: the seeds."""
CLEAN = {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "ABORTED", "FAILED_PRECONDITION"}

BODIES: dict[str, list[dict[str, Any]]] = {
    "POST /courses": [{"title": "Biology", "labels": {"level": "1"}, "subjects": ["a"], "external_ids": {"sis": "7"}}],
    "PATCH /courses/biology": [{"title": "Biology 2", "description": None, "etag": "*"}],
    "POST /courses/biology:publish": [{"etag": "*", "validate_only": True, "request_id": CREATE.request_id}],
    "POST /courses/biology:archive": [{"etag": "*", "validate_only": True}],
    "POST /courses/biology:undelete": [{"etag": "*", "validate_only": True}],
    "POST /courses:batchCreate": [{"requests": [{"course": {"title": "A"}, "course_id": "a"}], "validate_only": True}],
    "GET /courses?filter=": [],
    "GET /courses?page_token=": [],
    "GET /courses/": [],
}
"""Valid bodies by route: the seeds. What has none gets the bytes in its path."""
TEXTS = [
    b'title = "Bio*" AND labels.level:1 OR NOT (state = DRAFT)',
    b"eyJ0ZXN0IjoxfQ.c2lnbmF0dXJl",
    b"biology:publish",
]
CLEAN_BY_HTTP = {"200", "201", "204", "307", "400", "404", "405", "409", "412", "413", "422"}


@dataclass(frozen=True)
class Bombarded:
    """What became of malformed messages."""

    statuses: Counter[str]
    dirty: dict[str, str]
    """Of each status that must not be: a method and a message that led to it."""
    growth: float
    """By how much the service's memory has grown since a third of the messages, as a fraction."""
    is_alive: bool

    def __str__(self) -> str:
        statuses = ", ".join(f"{status} {number:,}" for status, number in self.statuses.most_common())
        return f"{statuses}; memory {self.growth:+.1%}; seed {SEED}"


Send = Callable[[str, bytes], str]
"""Sends bytes to a method or route, and returns the status."""


def bombarded(service: Service, send: Send, clean: set[str], messages: Iterable[tuple[str, bytes]]) -> Bombarded:
    """Send every message, several at once."""
    statuses: Counter[str] = Counter()
    dirty: dict[str, str] = {}
    memory = 0
    todo = list(messages)
    with ThreadPoolExecutor(AT_ONCE) as threads:
        for number, ((method, message), status) in enumerate(
            zip(todo, threads.map(lambda one: send(*one), todo), strict=True)
        ):
            statuses[status] += 1
            if status not in clean:
                dirty.setdefault(status, f"{method} {message!r}")
            if number == len(todo) // 3:
                memory = service.memory_bytes()
    growth = service.memory_bytes() / memory - 1
    name = create_by_grpc(service.grpc_address)
    with grpc_caller(service.grpc_address, name), http_caller(service.http_address, name):
        return Bombarded(statuses, dirty, growth, service.is_running)


def by_grpc(service: Service, number: int) -> Bombarded:
    """Send malformed messages to every method."""
    randomness = random.Random(SEED)
    seeds = {method: [message.SerializeToString() for message in valid] for method, valid in MESSAGES.items()}
    messages = [(method, mutated(randomness, seeds[method])) for _ in range(number) for method in MESSAGES]
    with grpc.insecure_channel(service.grpc_address, options=CHANNEL_OPTIONS) as channel:
        calls = {method: _sender(channel, method) for method in MESSAGES}

        def send(method: str, message: bytes) -> str:
            try:
                calls[method](message)
            except grpc.RpcError as error:
                return error.code().name if isinstance(error, grpc.Call) else repr(error)
            return "OK"

        return bombarded(service, send, CLEAN, messages)


def _sender(channel: grpc.Channel, method: str) -> Callable[[bytes], object]:
    if method.endswith("ServerReflectionInfo"):
        stream: Any = channel.stream_stream(method)
        return lambda message: list(stream(iter([message]), timeout=10))
    unary: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
    return lambda message: unary(message, timeout=10)


def by_http(service: Service, number: int) -> Bombarded:
    """Send malformed bodies to every route that has one, and malformed paths and parameters to others."""
    randomness = random.Random(SEED)
    seeds = {route: [json.dumps(body).encode() for body in valid] or TEXTS for route, valid in BODIES.items()}
    messages = [(route, mutated(randomness, seeds[route])) for _ in range(number) for route in BODIES]
    with httpx2.Client(base_url=service.http_address, timeout=10) as client:

        def send(route: str, data: bytes) -> str:
            method, _, path = route.partition(" ")
            if method == "GET":
                path, data = path + "".join(f"%{byte:02x}" for byte in data[:2000]), b""
            headers = {"Content-Type": "application/json"} if data else {}
            return str(client.request(method, path, content=data, headers=headers).status_code)

        return bombarded(service, send, CLEAN_BY_HTTP, messages)


def nothing_but_clean_statuses(seen: Bombarded) -> None:
    assert seen.dirty == {}, f"SEED={SEED}"


def service_is_as_it_was(seen: Bombarded) -> None:
    assert seen.is_alive
    assert seen.growth < 0.05


@pytest.fixture
def url(tmp_path: Path) -> URL:
    found = make_url(f"sqlite:///{tmp_path / 'course.db'}")
    migrate(found)
    return found


def test_malformed_messages_get_clean_statuses(url: URL) -> None:
    with running(url) as service:
        seen = by_grpc(service, count(400, 10_000))
    record("W1", "malformed messages to every gRPC method get clean statuses", str(seen))
    nothing_but_clean_statuses(seen)
    service_is_as_it_was(seen)


def test_malformed_bodies_get_clean_statuses(url: URL) -> None:
    with running(url) as service:
        seen = by_http(service, count(150, 2_000))
    record("W1", "malformed bodies and paths to every HTTP route get clean statuses", str(seen))
    nothing_but_clean_statuses(seen)
    service_is_as_it_was(seen)


def test_malformed_messages_are_internal_errors_if_nobody_foresaw_them(url: URL) -> None:
    with running(url, "no_decode_errors") as service:
        seen = by_grpc(service, 20)
    record(
        "W1",
        "malformed messages to every gRPC method get clean statuses",
        control=f"a message that cannot be decoded is no error of the contract: {seen}",
    )
    with pytest.raises(AssertionError):
        nothing_but_clean_statuses(seen)
