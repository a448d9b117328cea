"""A5: a database that freezes, seen call by call: before, during and after, by both faces and by health."""

import contextlib
import functools
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import httpx2
import pytest
from course.v1 import course_pb2
from grpc_health.v1 import health_pb2
from sqlalchemy.engine import URL, make_url

from tests.conftest import migrate
from tests.faults.support.counts import count
from tests.faults.support.figures import publish, record, table
from tests.faults.support.load import code_of, courses
from tests.faults.support.noise import Noise
from tests.faults.support.postgres import Postgres
from tests.faults.support.service import LoggedCall, Service, running
from tests.support.repeating import repeating

SECONDS = count(6, 20)
"""How long the database is frozen."""
BEFORE, SETTLING, AFTER = count(1, 5), 2, count(1, 5)
CONTROL_SECONDS = 2
PHASES = ("before", "during", "settling", "after")

SHORT_DEADLINE = 0.5
READ_CAP, WRITE_CAP = 5.0, 10.0
"""What a call may take whose caller sets no deadline; HTTP has none."""
LIMITS = {
    ("grpc", "GetCourse"): SHORT_DEADLINE,
    ("grpc", "CreateCourse"): SHORT_DEADLINE,
    ("grpc", "ListCourses"): READ_CAP,
    ("grpc", "BatchCreateCourses"): WRITE_CAP,
    ("http", "GetCourse"): READ_CAP,
    ("http", "CreateCourse"): WRITE_CAP,
}
"""How long each method may take as it is called here; those of gRPC without a limit of the service have a deadline."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One call, as its caller saw it."""

    kind: str
    start: float
    end: float
    code: str
    limit: float

    @property
    def seconds(self) -> float:
        return self.end - self.start

    @property
    def is_health(self) -> bool:
        return self.kind.startswith("health")


@dataclass
class Samples:
    """What all callers have seen."""

    all: list[Sample] = field(default_factory=list)

    def take(self, kind: str, limit: float, call: Callable[[], str]) -> None:
        start = time.monotonic()
        try:
            code = call()
        except grpc.RpcError as error:
            code = code_of(error).name
        self.all.append(Sample(kind, start, time.monotonic(), code, limit))


@dataclass(frozen=True)
class Freeze:
    """What was seen of a freeze."""

    samples: list[Sample]
    logged: list[LoggedCall]
    start: float
    end: float
    noise: Noise

    def phase(self, sample: Sample) -> str:
        if sample.end < self.start:
            return "before"
        if sample.start < self.end:
            return "during"
        return "settling" if sample.start < self.end + SETTLING else "after"

    def of(self, phase: str) -> list[Sample]:
        return [sample for sample in self.samples if self.phase(sample) == phase]

    @property
    def late(self) -> float:
        """By how much the last response came later than its call's limit, or a thread was free later."""
        return max(
            *(sample.seconds - sample.limit for sample in self.samples),
            *(call.seconds - LIMITS[call.face, call.method] for call in self.logged),
        )

    @property
    def slowest_health(self) -> float:
        """Of all calls but the first of each kind: these connect too, all callers at once."""
        first: dict[str, float] = {}
        for sample in self.samples:
            first[sample.kind] = min(sample.start, first.get(sample.kind, sample.start))
        return max(sample.seconds for sample in self.samples if sample.is_health and sample.start > first[sample.kind])

    @property
    def normal_after(self) -> float:
        """When the last call began that failed, counted from the end of the freeze."""
        failed = [sample.start for sample in self.samples if sample.code not in {"OK", "SERVING"}]
        return max(0.0, max(failed, default=0.0) - self.end)

    def __str__(self) -> str:
        seen = (
            f"frozen {self.end - self.start:.0f} s under {len(self.samples):,} calls: {self.late * 1000:.0f} ms late at"
            f" most, health within {self.slowest_health * 1000:.0f} ms, normal {self.normal_after:.1f} s after"
        )
        return f"{seen} (the machine itself: {self.noise.longest * 1000:.0f} ms)"

    def table(self) -> list[str]:
        """The latency of every kind of call in every phase, in milliseconds."""
        rows = []
        for kind in dict.fromkeys(sample.kind for sample in sorted(self.samples, key=lambda sample: sample.kind)):
            for phase in PHASES:
                found = [sample for sample in self.of(phase) if sample.kind == kind]
                if not found:
                    continue
                codes = ", ".join(f"{n} {code}" for code, n in Counter(s.code for s in found).most_common())
                times = sorted(sample.seconds * 1000 for sample in found)
                shares = (times[len(times) // 2], times[int(len(times) * 0.99)], times[-1])
                rows.append([kind, phase, codes, *(f"{milliseconds:,.0f}" for milliseconds in shares)])
        return table(("Call", "When", "How they ended", "p50 ms", "p99 ms", "max ms"), rows)


def freezes_nobody(figures: Freeze) -> None:
    assert figures.late <= 0.1 + figures.noise.allowance, figures
    assert figures.slowest_health <= 0.1 + figures.noise.allowance, figures
    codes = {sample.code for sample in figures.samples}
    assert codes <= {"OK", "DEADLINE_EXCEEDED", "UNAVAILABLE", "RESOURCE_EXHAUSTED", "SERVING", "NOT_SERVING"}, codes
    after = defaultdict(set)
    for sample in figures.of("before") + figures.of("after"):
        after[sample.kind].add(sample.code)
    assert all(codes in ({"OK"}, {"SERVING"}) for codes in after.values()), after
    assert {sample.code for sample in figures.of("during") if "liveness" in sample.kind} <= {"OK", "SERVING"}


def freeze(
    url: URL, frozen: Callable[[], AbstractContextManager[object]], seconds: float, fault: str | None = None
) -> Freeze:
    """Freeze the database for some seconds under callers of both faces and of health."""
    samples = Samples()
    waiting = threading.Event()
    with running(url, fault) as service, calling(service, samples), Noise() as noise:
        waiting.wait(BEFORE)
        with frozen():
            start = time.monotonic()
            waiting.wait(seconds)
        end = time.monotonic()
        waiting.wait(SETTLING + AFTER)
    logged = [call for call in service.calls() if (call.face, call.method) in LIMITS]
    return Freeze(samples.all, logged, start, end, noise)


@contextlib.contextmanager
def calling(service: Service, samples: Samples) -> Iterator[None]:
    """Make calls of every kind without end."""
    with ExitStack() as stack:
        steps: list[Callable[[], None]] = []
        course = course_pb2.Course(title="A")
        create = course_pb2.CreateCourseRequest(course=course)
        several = course_pb2.BatchCreateCoursesRequest(requests=[create] * 2)
        for number in range(3):
            stub = stack.enter_context(courses(service.grpc_address))
            name = stub.CreateCourse(create, timeout=5).name
            get = course_pb2.GetCourseRequest(name=name)
            steps.append(
                by_grpc(samples, "gRPC GetCourse, deadline 0.5 s", stub.GetCourse, get, SHORT_DEADLINE, SHORT_DEADLINE)
            )
            steps.append(
                by_grpc(
                    samples,
                    "gRPC CreateCourse, deadline 0.5 s",
                    stub.CreateCourse,
                    create,
                    SHORT_DEADLINE,
                    SHORT_DEADLINE,
                )
            )
            if number == 0:  # deadlines of its own the service must keep
                every = course_pb2.ListCoursesRequest(page_size=5)
                steps.append(by_grpc(samples, "gRPC ListCourses, no deadline", stub.ListCourses, every, READ_CAP))
                steps.append(
                    by_grpc(
                        samples, "gRPC BatchCreateCourses, no deadline", stub.BatchCreateCourses, several, WRITE_CAP
                    )
                )
            client = stack.enter_context(httpx2.Client(base_url=service.http_address, timeout=30))
            steps.append(by_http(samples, "HTTP GetCourse", READ_CAP, client, "GET", f"/{name}"))
            steps.append(by_http(samples, "HTTP CreateCourse", WRITE_CAP, client, "POST", "/courses"))
        for port, address in {"business port": service.grpc_address, "health port": service.health_address}.items():
            for name in ("course.v1.CourseService", "liveness"):
                channel = stack.enter_context(grpc.insecure_channel(address))
                what = "liveness" if name == "liveness" else "readiness"
                steps.append(by_health(samples, f"health: {what}, {port}", channel, name))
        for path in ("/livez", "/readyz"):
            client = stack.enter_context(httpx2.Client(base_url=service.http_address, timeout=30))
            kind = "health: liveness, HTTP" if path == "/livez" else "health: readiness, HTTP"
            steps.append(by_http(samples, kind, 1.0, client, "GET", path))
        stack.enter_context(repeating(*steps, pause=0.05))
        yield


def by_grpc(
    samples: Samples, kind: str, method: Callable[..., object], request: object, limit: float, deadline: float = 30.0
) -> Callable[[], None]:
    def call() -> str:
        method(request, timeout=deadline)
        return "OK"

    return functools.partial(samples.take, kind, limit, call)


def by_http(
    samples: Samples, kind: str, limit: float, client: httpx2.Client, method: str, path: str
) -> Callable[[], None]:
    def call() -> str:
        response = client.request(method, path, json={"title": "A"} if method == "POST" else None)
        if kind.startswith("health"):
            return "SERVING" if response.status_code == 200 else "NOT_SERVING"
        return "OK" if response.is_success else str(response.json()["error"]["status"])

    return functools.partial(samples.take, kind, limit, call)


def by_health(samples: Samples, kind: str, channel: grpc.Channel, service: str) -> Callable[[], None]:
    check: grpc.UnaryUnaryMultiCallable[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse]
    check = channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )

    def call() -> str:
        status = check(health_pb2.HealthCheckRequest(service=service), timeout=30).status
        return health_pb2.HealthCheckResponse.ServingStatus.Name(status)

    return functools.partial(samples.take, kind, 1.0, call)


POSTGRESQL = "a frozen PostgreSQL freezes nobody: calls end by their deadline, health responds"


def test_a_frozen_database_freezes_nobody(postgres: Postgres) -> None:
    with postgres.new_database() as url:
        figures = freeze(url, postgres.frozen, SECONDS)
    publish("freeze", figures.table())
    freezes_nobody(figures)
    record("A5", POSTGRESQL, str(figures))


def test_a_driver_that_waits_without_limit_freezes_with_the_database(postgres: Postgres) -> None:
    with postgres.new_database() as url:
        figures = freeze(url, postgres.frozen, CONTROL_SECONDS, fault="no_wait_callback")
    with pytest.raises(AssertionError):
        freezes_nobody(figures)
    record("A5", POSTGRESQL, control=f"the driver waits without limit: {figures}")


SQLITE = "an SQLite file that another process keeps locked freezes nobody, and reads go on"


@pytest.fixture
def sqlite_url(tmp_path: Path) -> URL:
    url = make_url(f"sqlite:///{tmp_path / 'course.db'}")
    migrate(url)
    return url


@contextlib.contextmanager
def locked(url: URL) -> Iterator[None]:
    """Let another process hold the write lock of an SQLite file."""
    program = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('BEGIN EXCLUSIVE'); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", program, str(url.database)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout
        assert holder.stdout.readline()
        yield
        holder.communicate("\n")


def reads_go_on(figures: Freeze) -> None:
    reads = Counter(sample.code for sample in figures.of("during") if "GetCourse" in sample.kind)
    assert reads.keys() == {"OK"}, reads


def test_a_locked_sqlite_file_freezes_nobody(sqlite_url: URL) -> None:
    figures = freeze(sqlite_url, functools.partial(locked, sqlite_url), SECONDS)
    publish("freeze of sqlite", figures.table())
    freezes_nobody(figures)
    reads_go_on(figures)
    record("A5", SQLITE, str(figures))


def test_deadlines_that_the_database_does_not_know_do_not_hold(sqlite_url: URL) -> None:
    figures = freeze(sqlite_url, functools.partial(locked, sqlite_url), CONTROL_SECONDS, fault="no_deadlines")
    with pytest.raises(AssertionError):
        freezes_nobody(figures)
    record("A5", SQLITE, control=f"deadlines are unknown to the database layer: {figures}")
