"""Callers of a replica who write and read on, and remember what they were told and when."""

from __future__ import annotations

import contextlib
import math
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import grpc
from course.v1 import course_pb2
from grpc_health.v1 import health_pb2

from tests.faults.support.callers import CHANNEL_OPTIONS
from tests.faults.support.load import RETRIED, code_of, courses
from tests.faults.support.service import Service

DEADLINE_SECONDS = 1.0
"""How long a caller waits for one try."""
_PAUSE_SECONDS = 0.02
_LOOK_SECONDS = 0.05


@dataclass
class Memory:
    """What one caller was told; moments by time.monotonic()."""

    acknowledged: list[str] = field(default_factory=list)
    """The titles of the courses that it has created; a caller tries under one request_id until it is told so."""
    moments: list[float] = field(default_factory=list)
    """When each of them was acknowledged."""
    slowest: float = 0.0
    """The longest that a try took."""
    surprises: list[str] = field(default_factory=list)
    """What no failover explains: other statuses, a course that was acknowledged and is not there."""


class Callers:
    """Many callers of one replica, and one who watches its health."""

    def __init__(self, service: Service, number: int) -> None:
        self._service = service
        self.memories = [Memory() for _ in range(number)]
        self._unhealthy: list[float] = []
        self._stop = threading.Event()
        works: list[Callable[[], None]] = [self._watch_health, *(self._caller(memory) for memory in self.memories)]
        self._threads = [threading.Thread(target=work, daemon=True) for work in works]

    @contextlib.contextmanager
    def calling(self) -> Iterator[None]:
        """Call until the end of the context."""
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join(timeout=60)

    def last_before(self, moment: float) -> float:
        """Return when any caller was told of a success for the last time before a moment."""
        return max(told for memory in self.memories for told in memory.moments if told < moment)

    def first_after(self, moment: float) -> float:
        """Return when every caller had been told of a success after a moment; infinity if one has not."""
        return max(
            min((told for told in memory.moments if told >= moment), default=math.inf) for memory in self.memories
        )

    def healthy_after(self, moment: float) -> float:
        """Return since when the replica was SERVING whenever it was asked after a moment."""
        return max((seen for seen in self._unhealthy if seen >= moment), default=moment)

    def all_succeed_after(self, moment: float) -> bool:
        """Whether every caller has been told of a success after a moment."""
        return all(memory.moments and memory.moments[-1] > moment for memory in self.memories)

    def _watch_health(self) -> None:
        with grpc.insecure_channel(self._service.health_address, options=CHANNEL_OPTIONS) as channel:
            check: grpc.UnaryUnaryMultiCallable[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse]
            check = channel.unary_unary(
                "/grpc.health.v1.Health/Check",
                request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
                response_deserializer=health_pb2.HealthCheckResponse.FromString,
            )
            while not self._stop.wait(_LOOK_SECONDS):
                try:
                    status = check(health_pb2.HealthCheckRequest(), timeout=1).status
                except grpc.RpcError:
                    status = health_pb2.HealthCheckResponse.UNKNOWN
                if status != health_pb2.HealthCheckResponse.SERVING:
                    self._unhealthy.append(time.monotonic())

    def _caller(self, memory: Memory) -> Callable[[], None]:
        def work() -> None:
            with courses(self._service.grpc_address) as stub:
                while not self._stop.is_set():
                    request = course_pb2.CreateCourseRequest(
                        course=course_pb2.Course(title=str(uuid.uuid4())), request_id=str(uuid.uuid4())
                    )
                    if (created := self._persist(stub.CreateCourse, request, memory)) is None:
                        return
                    memory.moments.append(time.monotonic())
                    memory.acknowledged.append(created.title)
                    self._persist(stub.GetCourse, course_pb2.GetCourseRequest(name=created.name), memory)

        return work

    def _persist(
        self, method: Callable[..., course_pb2.Course], request: object, memory: Memory
    ) -> course_pb2.Course | None:
        """Try until it succeeds or the callers stop."""
        while not self._stop.wait(_PAUSE_SECONDS):
            start = time.monotonic()
            try:
                return method(request, timeout=DEADLINE_SECONDS)
            except grpc.RpcError as error:
                if code_of(error) not in RETRIED:
                    memory.surprises.append(f"{type(request).__name__}: {error}")
            finally:
                memory.slowest = max(memory.slowest, time.monotonic() - start)
        return None
