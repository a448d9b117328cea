"""A rolling restart behind a client that uses the service config of the repository."""

from __future__ import annotations

import collections
import contextlib
import random
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field

import grpc
import pytest
from course.v1 import course_pb2, course_pb2_grpc
from sqlalchemy.engine import URL

from tests.conftest import ROOT
from tests.faults.support.counts import count
from tests.faults.support.figures import record
from tests.faults.support.load import code_of
from tests.faults.support.ports import free_port
from tests.faults.support.postgres import Postgres
from tests.faults.support.service import Service

_CALLERS = 8
_DRAIN_SECONDS = 1.5
_SERVICE_CONFIG = (ROOT / "protos/course/v1/course_grpc_service_config.json").read_text()


@dataclass
class Figures:
    """What the callers saw."""

    restarts: int = 0
    codes: collections.Counter[str] = field(default_factory=collections.Counter)
    """How many calls ended with which code, the client's own retries aside."""
    slowest: float = 0.0
    exit_codes: set[int] = field(default_factory=set)

    @property
    def failed(self) -> str:
        """The calls that failed, by their codes."""
        return ", ".join(f"{number} {code}" for code, number in self.codes.items() if code != "OK")

    def __str__(self) -> str:
        return (
            f"{self.failed or '0 failed'} of {self.codes.total():,} calls in {self.restarts} restarts,"
            f" the slowest {self.slowest:.2f} s"
        )


def seen_by_callers(url: URL, restarts: int, drain_seconds: float = _DRAIN_SECONDS) -> Figures:
    """Restart two replicas in turn under the callers of one channel, until a call has failed."""
    figures = Figures()
    ports = (free_port(), free_port())

    def start(port: int) -> Service:
        return Service(
            url,
            None,
            COURSE_GRPC_ADDRESS=f"127.0.0.1:{port}",
            COURSE_HTTP_ADDRESS="",
            COURSE_DRAIN_SECONDS=str(drain_seconds),
        )

    services = {port: start(port) for port in ports}
    try:
        with calling(ports, figures):
            for service in services.values():
                service.wait_for(r"calls: grpc \w+ OK")
            while figures.restarts < restarts and not figures.failed:
                port = ports[figures.restarts % 2]
                figures.restarts += 1
                figures.exit_codes.add(services[port].stop())
                services[port].close()
                services[port] = start(port)
                # An orchestrator waits a while after each (minReadySeconds), for clients connect again in steps.
                services[port].wait_for(r"calls: grpc \w+ OK")
    finally:
        for service in services.values():
            service.close()
    return figures


@contextlib.contextmanager
def calling(ports: tuple[int, int], figures: Figures) -> Iterator[None]:
    """Make calls of many kinds through one channel, until the end of the context."""
    stop = threading.Event()
    lock = threading.Lock()
    target = "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in ports)
    options = [("grpc.service_config", _SERVICE_CONFIG), ("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(target, options) as channel:
        grpc.channel_ready_future(channel).result(timeout=10)
        stub = course_pb2_grpc.CourseServiceStub(channel)

        def run() -> None:
            names: list[str] = []
            while not stop.is_set():
                call = random.choice((create, *(get, get, list_courses, update) * bool(names)))
                start = time.monotonic()
                try:
                    call(stub, names)
                    code = "OK"
                except grpc.RpcError as error:
                    code = code_of(error).name
                with lock:
                    figures.codes[code] += 1
                    figures.slowest = max(figures.slowest, time.monotonic() - start)

        threads = [threading.Thread(target=run, daemon=True) for _ in range(_CALLERS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join(timeout=30)


def create(stub: course_pb2_grpc.CourseServiceStub, names: list[str]) -> None:
    request = course_pb2.CreateCourseRequest(course=course_pb2.Course(title="Biology"), request_id=str(uuid.uuid4()))
    names.append(stub.CreateCourse(request).name)


def get(stub: course_pb2_grpc.CourseServiceStub, names: list[str]) -> None:
    stub.GetCourse(course_pb2.GetCourseRequest(name=random.choice(names)))


def list_courses(stub: course_pb2_grpc.CourseServiceStub, _: list[str]) -> None:
    stub.ListCourses(course_pb2.ListCoursesRequest(page_size=10))


def update(stub: course_pb2_grpc.CourseServiceStub, names: list[str]) -> None:
    course = course_pb2.Course(name=random.choice(names), title=str(uuid.uuid4()))
    stub.UpdateCourse(course_pb2.UpdateCourseRequest(course=course, request_id=str(uuid.uuid4())))


def holds(figures: Figures) -> None:
    assert figures.codes["OK"] > 0
    assert not figures.failed, figures
    assert figures.exit_codes == {0}, figures.exit_codes


def test_a_rolling_restart_loses_no_call(postgres: Postgres) -> None:
    with postgres.new_database() as url:
        figures = seen_by_callers(url, count(4, 30))
    record("A1", "a rolling restart loses nothing", str(figures))
    holds(figures)


def test_control_without_a_lame_duck_it_loses_calls(postgres: Postgres) -> None:
    with postgres.new_database() as url:
        figures = seen_by_callers(url, count(30, 60), drain_seconds=0)
    record("A1", "a rolling restart loses nothing", control=f"no lame duck: {figures}")
    with pytest.raises(AssertionError):
        holds(figures)
