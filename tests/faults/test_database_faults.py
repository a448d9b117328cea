"""A4, A7, A10: a database that restarts, one that has become read-only, and one that takes too long."""

import contextlib
import functools
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

import grpc
import psycopg2
import pytest
from course.v1 import course_pb2, course_pb2_grpc
from sqlalchemy.engine import URL

from course_service.commands.health import is_serving
from tests.faults.support.counts import count
from tests.faults.support.figures import record
from tests.faults.support.http2 import SERVICE, Connection, framed
from tests.faults.support.load import code_of, courses, retrying
from tests.faults.support.noise import Noise
from tests.faults.support.postgres import Postgres
from tests.faults.support.proxy import TcpProxy
from tests.faults.support.service import LoggedCall, running
from tests.support.at_once import at_once
from tests.support.repeating import repeating


@dataclass
class Calls:
    """What became of the calls so far."""

    codes: Counter[str] = field(default_factory=Counter)
    """By kind and code, such as `read OK`."""
    phase: str = ""
    """Put before the kind of the calls that begin from now on."""
    last_start: dict[str, float] = field(default_factory=dict)
    """When the last call of a kind and code began."""
    changed: threading.Condition = field(default_factory=threading.Condition)

    def make(self, kind: str, call: Callable[[], object]) -> None:
        start = time.monotonic()
        kind = self.phase + kind
        code = "OK"
        try:
            call()
        except grpc.RpcError as error:
            code = code_of(error).name
        with self.changed:
            self.codes[f"{kind} {code}"] += 1
            self.last_start[f"{kind} {code}"] = start
            self.changed.notify_all()

    def wait_for(self, condition: Callable[[], bool], seconds: float = 30.0) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, seconds), self.codes

    def wait_for_more(self, number: int) -> None:
        total = self.codes.total() + number
        self.wait_for(lambda: self.codes.total() >= total)

    def wait_for_one(self, kind: str, since: float) -> None:
        """Wait for a call of a kind and code that began after a moment."""
        self.wait_for(lambda: self.last_start.get(kind, 0) >= since)

    def failed(self, kind: str = "") -> int:
        """Return how many calls of a kind have failed."""
        return sum(n for name, n in self.codes.items() if name.startswith(kind) and not name.endswith(" OK"))


@contextlib.contextmanager
def calling(address: str, calls: Calls, *, tries: int) -> Iterator[None]:
    """Read and write without end, 4 callers each; every call is tried so often within 10 s."""
    with ExitStack() as stack:
        steps = []
        for _ in range(4):
            stub = stack.enter_context(courses(address))
            name = stub.CreateCourse(
                course_pb2.CreateCourseRequest(course=course_pb2.Course(title="A")), timeout=5
            ).name
            steps += [functools.partial(read, stub, name, calls, tries), functools.partial(write, stub, calls, tries)]
        stack.enter_context(repeating(*steps, pause=0.005))
        yield


def read(stub: course_pb2_grpc.CourseServiceStub, name: str, calls: Calls, tries: int) -> None:
    def get(seconds: float) -> object:
        return stub.GetCourse(course_pb2.GetCourseRequest(name=name), timeout=seconds)

    calls.make("read", functools.partial(retrying, get, seconds=10, tries=tries))


def write(stub: course_pb2_grpc.CourseServiceStub, calls: Calls, tries: int) -> None:
    request = course_pb2.CreateCourseRequest(course=course_pb2.Course(title="A"), request_id=str(uuid.uuid4()))

    def create(seconds: float) -> object:
        return stub.CreateCourse(request, timeout=seconds)

    calls.make("write", functools.partial(retrying, create, seconds=10, tries=tries))


RESTART = "a restart of the database fails no call of a client that tries again"


@dataclass(frozen=True)
class Restarts:
    restarts: int
    calls: int
    failed: int
    back_after: float
    """The longest from PostgreSQL being up to a read and a write that began then and succeeded, in seconds."""
    noise: Noise

    def __str__(self) -> str:
        return (
            f"{self.failed} of {self.calls:,} calls failed in {self.restarts} restarts;"
            f" back {self.back_after * 1000:.0f} ms after PostgreSQL was up, at most"
        )


def is_ridden_out(figures: Restarts) -> None:
    assert figures.failed == 0, figures
    assert figures.back_after <= 1 + figures.noise.allowance, figures


def restart(postgres: Postgres, restarts: int, *, tries: int, fault: str | None = None) -> Restarts:
    calls = Calls()
    back_after = []
    with (
        running(postgres.url, fault, COURSE_HTTP_ADDRESS="") as service,
        calling(service.grpc_address, calls, tries=tries),
        Noise() as noise,
    ):
        for number in range(restarts):
            calls.wait_for_more(100)
            postgres.restart("immediate" if number % 2 else "fast")
            up = time.monotonic()
            for kind in ("read OK", "write OK"):
                calls.wait_for_one(kind, since=up)
            back_after.append(time.monotonic() - up)
    return Restarts(restarts, calls.codes.total(), calls.failed(), max(back_after), noise)


def test_a_restart_of_the_database_is_ridden_out(postgres: Postgres) -> None:
    figures = restart(postgres, count(4, 40), tries=1000)
    is_ridden_out(figures)
    record("A4", RESTART, str(figures))


def test_without_another_try_a_restart_fails_calls(postgres: Postgres) -> None:
    figures = restart(postgres, 2, tries=1, fault="no_second_try")
    with pytest.raises(AssertionError):
        is_ridden_out(figures)
    record("A4", RESTART, control=f"nobody tries again: {figures}")


CUT = "lost connections to the database fail no call, though no client tries again"


@dataclass(frozen=True)
class Cuts:
    cuts: int
    calls: int
    failed: int

    def __str__(self) -> str:
        return f"{self.failed} of {self.calls:,} calls failed while all connections were cut {self.cuts} times"


def is_made_up_for(figures: Cuts) -> None:
    assert figures.failed == 0, figures


def cut(postgres: Postgres, cuts: int, fault: str | None = None) -> Cuts:
    calls = Calls()
    with (
        TcpProxy(("127.0.0.1", postgres.port)) as proxy,
        running(postgres.url.set(port=proxy.port), fault, COURSE_HTTP_ADDRESS="") as service,
        calling(service.grpc_address, calls, tries=1),
    ):
        for _ in range(cuts):
            calls.wait_for_more(50)
            proxy.cut()
        calls.wait_for_more(50)
    return Cuts(cuts, calls.codes.total(), calls.failed())


def test_lost_connections_are_made_up_for(postgres: Postgres) -> None:
    figures = cut(postgres, count(15, 200))
    is_made_up_for(figures)
    record("A4", CUT, str(figures))


def test_without_a_second_try_lost_connections_fail_calls(postgres: Postgres) -> None:
    figures = cut(postgres, 10, fault="no_second_try")
    with pytest.raises(AssertionError):
        is_made_up_for(figures)
    record("A4", CUT, control=f"a transaction is tried once: {figures}")


READ_ONLY = "a database that has become read-only is left"
CONNECTIONS = 2 * 8
"""What the service keeps open for its calls."""


@dataclass(frozen=True)
class ReadOnly:
    failed_reads: int
    refused_writes: int
    """While the database was read-only."""
    failed_writes: int
    """Of those that began when it accepted writes again."""
    not_serving_after: float
    serving_after: float
    noise: Noise

    def __str__(self) -> str:
        return (
            f"{self.failed_writes} writes failed once the database accepted them again ({CONNECTIONS} connections),"
            f" {self.failed_reads} reads; NOT_SERVING after {self.not_serving_after:.1f} s,"
            f" SERVING after {self.serving_after:.1f} s"
        )


def is_left(figures: ReadOnly) -> None:
    assert figures.refused_writes > 0, figures
    assert figures.failed_writes <= CONNECTIONS, figures
    assert figures.failed_reads == 0, figures
    assert figures.not_serving_after <= 4 + figures.noise.allowance, figures
    assert figures.serving_after <= 3 + figures.noise.allowance, figures


def demote(postgres: Postgres, url: URL, fault: str | None = None) -> ReadOnly:
    """Make the sessions of a database read-only, as those of a demoted primary are: they stay so until they end."""
    calls = Calls()
    with (
        running(url, fault, COURSE_HTTP_ADDRESS="") as service,
        calling(service.grpc_address, calls, tries=1),
        Noise() as noise,
    ):
        calls.wait_for(lambda: calls.codes["write OK"] > 20)
        postgres.execute(f"ALTER DATABASE {url.database} SET default_transaction_read_only = on", "postgres")
        postgres.execute(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{url.database}'", "postgres"
        )
        demoted = time.monotonic()
        not_serving_after = wait_until(lambda: not is_serving(service.grpc_address)) - demoted
        calls.wait_for(lambda: calls.failed("write") > CONNECTIONS)
        postgres.execute(f"ALTER DATABASE {url.database} RESET default_transaction_read_only", "postgres")
        back = time.monotonic()
        calls.phase = "later "
        serving_after = wait_until(lambda: is_serving(service.grpc_address)) - back
        calls.wait_for(lambda: calls.codes["later write OK"] + calls.failed("later write") >= 200)
    return ReadOnly(
        failed_reads=calls.failed("read") + calls.failed("later read"),
        refused_writes=calls.failed("write"),
        failed_writes=calls.failed("later write"),
        not_serving_after=not_serving_after,
        serving_after=serving_after,
        noise=noise,
    )


def wait_until(condition: Callable[[], bool], seconds: float = 15.0) -> float:
    """Ask again and again until something is so; returns when that was."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it does not come about"
        time.sleep(0.02)
    return time.monotonic()


def test_a_database_that_has_become_read_only_is_left(postgres: Postgres) -> None:
    with postgres.new_database() as url:
        figures = demote(postgres, url)
    is_left(figures)
    record("A7", READ_ONLY, str(figures))


def test_who_stays_with_a_read_only_database_goes_on_failing(postgres: Postgres) -> None:
    with postgres.new_database() as url:
        figures = demote(postgres, url, fault="no_disconnect_states")
    with pytest.raises(AssertionError):
        is_left(figures)
    record("A7", READ_ONLY, control=f"read-only sessions are kept: {figures}")


DEADLINES = (1.0, 0.5, 0.2, 0.1, 0.05)
REQUESTS = {
    "GetCourse": course_pb2.GetCourseRequest(name="courses/a-course"),
    "ListCourses": course_pb2.ListCoursesRequest(),
    "CreateCourse": course_pb2.CreateCourseRequest(course=course_pb2.Course(title="A")),
    "UpdateCourse": course_pb2.UpdateCourseRequest(course=course_pb2.Course(name="courses/a-course", title="B")),
}
HOLDS = "a deadline holds, whatever the database does"


@dataclass(frozen=True)
class Slow:
    """What was seen of calls that waited for a lock that nobody releases; seconds."""

    calls: int
    response_late: float
    """By how much the last response came after its call's deadline."""
    worker_late: float
    """By how much the last thread was free after its call's deadline."""
    statement_left: float
    """How long the last statement ran in the database when all had got their responses."""
    codes: frozenset[tuple[str, str]]
    """How calls ended, with their method."""
    noise: Noise

    def __str__(self) -> str:
        return (
            f"{self.calls} calls: response {self.response_late * 1000:.0f} ms after the deadline at most, thread free"
            f" after {self.worker_late * 1000:.0f} ms, no statement left after {self.statement_left:.1f} s"
        )


def deadlines_hold(figures: Slow) -> None:
    assert figures.response_late <= 0.05 + figures.noise.allowance, figures
    assert figures.worker_late <= 0.2 + figures.noise.allowance, figures
    assert figures.statement_left <= 2 + figures.noise.allowance, figures
    # Of a create that is one statement nobody knows whether the database will do it yet.
    others = figures.codes - {("CreateCourse", "UNAVAILABLE")}
    assert {code for _, code in others} <= {"DEADLINE_EXCEEDED", "CANCELLED"}, figures


@contextlib.contextmanager
def locked(url: URL) -> Iterator[None]:
    """Hold a lock that everybody waits for who works with courses."""
    connection = psycopg2.connect(url.set(drivername="postgresql").render_as_string(hide_password=False))
    try:
        connection.cursor().execute("LOCK TABLE courses IN ACCESS EXCLUSIVE MODE")
        yield
    finally:
        connection.close()


def response_seconds(address: str, method: str, deadline: float | None, *, patience: float = 12) -> float:
    """Return how long a response took, by a caller that waits beyond its deadline to see it."""
    headers = {} if deadline is None else {"grpc-timeout": f"{round(deadline * 1000)}m"}
    with Connection(address) as connection:
        start = time.monotonic()
        reply = connection.call(
            f"{SERVICE}/{method}", framed(REQUESTS[method].SerializeToString()), headers=headers, seconds=patience
        )
        assert reply.has_ended
        return time.monotonic() - start


def wait_for_lock(postgres: Postgres, url: URL, fault: str | None = None, *, rounds: int = 1) -> Slow:
    expected = [deadline for _ in range(rounds) for deadline in DEADLINES]
    late: list[float] = []
    with running(url, fault, COURSE_HTTP_ADDRESS="") as service, locked(url), Noise() as noise:

        def worked_on() -> list[LoggedCall]:
            return [call for call in service.calls() if call.method in REQUESTS]

        for deadline in expected:
            ask = (functools.partial(response_seconds, service.grpc_address, method, deadline) for method in REQUESTS)
            late += [seconds - deadline for seconds in at_once(*ask)]
            # Until the threads are free too; the log's lines come in the order in which calls end.
            wait_until(lambda: len(worked_on()) == len(late))  # noqa: B023  # called at once
        ended = time.monotonic()
        left = wait_until(lambda: statements(postgres) == 0) - ended
        ended_calls = worked_on()
    worker_late = [call.seconds - expected[i // len(REQUESTS)] for i, call in enumerate(ended_calls)]
    codes = frozenset((call.method, call.code) for call in ended_calls)
    return Slow(len(late), max(late), max(worker_late), left, codes, noise)


def statements(postgres: Postgres) -> int:
    """Return how many statements of the service wait for a lock, but those by which it looks at the database."""
    ((number,),) = postgres.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'course-service' AND state = 'active'"
        " AND wait_event_type = 'Lock' AND query NOT LIKE 'SELECT version_num%'"
    )
    return int(number)


def test_a_deadline_holds_while_the_database_waits_for_a_lock(postgres: Postgres) -> None:
    with postgres.new_database() as url:
        figures = wait_for_lock(postgres, url, rounds=count(1, 10))
    deadlines_hold(figures)
    record("A10", HOLDS, str(figures))


def test_a_driver_that_waits_without_limit_breaks_deadlines(postgres: Postgres) -> None:
    with postgres.new_database() as url:
        figures = wait_for_lock(postgres, url, fault="no_wait_callback")
    with pytest.raises(AssertionError):
        deadlines_hold(figures)
    record("A10", HOLDS, control=f"the driver waits without limit: {figures}")


CAPS = "a call without a deadline ends after 5 s (reads) or 10 s (writes)"


def without_deadline(url: URL, *methods: str, patience: float, fault: str | None = None) -> dict[str, float]:
    """Return how long each method took; nothing in the database bounds their statements."""
    with running(url, fault, COURSE_HTTP_ADDRESS="", COURSE_DATABASE_SESSION_SETTINGS="false") as service, locked(url):
        ask = functools.partial(response_seconds, service.grpc_address, deadline=None, patience=patience)
        return dict(zip(methods, at_once(*(functools.partial(ask, method) for method in methods)), strict=True))


def caps_hold(took: dict[str, float]) -> None:
    for method, seconds in took.items():
        cap = 5 if method in {"GetCourse", "ListCourses"} else 10
        assert cap - 0.1 <= seconds <= cap + 0.25, took


def test_a_call_without_a_deadline_ends_all_the_same(postgres: Postgres) -> None:
    with postgres.new_database() as url:
        took = without_deadline(url, *REQUESTS, patience=12)
    caps_hold(took)
    record("A10", CAPS, ", ".join(f"{method} {seconds:.2f} s" for method, seconds in took.items()))


def test_a_driver_that_waits_without_limit_never_ends_a_call(postgres: Postgres) -> None:
    with postgres.new_database() as url, pytest.raises(AssertionError):
        without_deadline(url, "GetCourse", patience=7, fault="no_wait_callback")
    record("A10", CAPS, control="the driver waits without limit: GetCourse has no response after 7 s")
