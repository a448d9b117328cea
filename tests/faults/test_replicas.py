"""Three replicas on one PostgreSQL, by the client's round_robin and behind Envoy: they stop, are killed, and freeze."""

from __future__ import annotations

import collections
import contextlib
import random
import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import grpc
import pytest
from course.v1 import course_pb2, course_pb2_grpc
from sqlalchemy.engine import URL

from tests.conftest import ROOT
from tests.faults.support import load
from tests.faults.support.callers import Caller
from tests.faults.support.counts import FULL, count
from tests.faults.support.figures import record
from tests.faults.support.ports import free_port
from tests.faults.support.postgres import Postgres
from tests.faults.support.service import Service
from tests.support import envoy
from tests.support.at_once import at_once
from tests.support.repeating import repeating
from tests.support.waiting import until

_REPLICAS = 3
_CALLERS = 3
"""Of each kind."""
_PAUSE_SECONDS = 0.015 if FULL else 0.03
_CALLS = 50_000
"""How many, at least, those who must lose none make in the full form; the short form replaces each replica once."""
_CALLS_WHILE_WELL = count(150, 600)
_WINDOWS = 5
"""How often to look for an even spread: on a busy machine, late health checks put a replica out for a while."""
_DRAIN_SECONDS = count(1, 5)
_FROZEN_SECONDS = 3.0
_SERVICE_CONFIG = (ROOT / "protos/course/v1/course_grpc_service_config.json").read_text()

Write = Callable[[float], course_pb2.Course]


def once(write: Write) -> course_pb2.Course:
    """Make a write as a caller does who leaves all else to Envoy."""
    return write(10)


def again(write: Write) -> course_pb2.Course:
    """Make a write as a caller does who sends it again under its request_id."""
    return load.retrying(write, seconds=10)


class Callers:
    """Some callers who reach the replicas in one way, and what they were told."""

    def __init__(self, courses: course_pb2_grpc.CourseServiceStub, make: Callable[[Write], course_pb2.Course]) -> None:
        self._courses = courses
        self._make = make
        self._tag = uuid.uuid4().hex[:8]
        self.created: list[tuple[str, str]] = []
        """The courses whose creation was acknowledged: a title that is new to all, and the name."""
        self.spread: list[float] = []
        """The shares of the replicas in its calls while all were well."""
        self.failures: collections.Counter[str] = collections.Counter()
        self.calls = 0
        self.slowest = 0.0

    def call(self) -> None:
        """Make one call."""
        random.choice((self._create, *(self._get, self._list) * bool(self.created)))()

    @contextlib.contextmanager
    def calling(self) -> Iterator[None]:
        """Call until the end of the context, whatever becomes of it."""
        callers = [Caller(self.call, pause=_PAUSE_SECONDS) for _ in range(_CALLERS)]
        try:
            yield
        finally:
            for caller in callers:
                caller.stop()
                seen = caller.seen()
                self.calls += len(seen.latencies)
                self.slowest = max(self.slowest, seen.slowest)
                self.failures.update(failure.partition(":")[0] for failure in seen.failures)

    @property
    def is_even(self) -> bool:
        """Whether every replica has about a third."""
        return all(0.25 <= share <= 0.42 for share in self.spread)

    def is_back(self, replica: Service, since: int) -> bool:
        """Whether a replica has answered a write of these callers, by its log from some length on."""
        return bool(re.search(f"CreateCourse OK .* request_id={self._tag}", replica.log[since:]))

    def __str__(self) -> str:
        failed = ", ".join(f"{number} {code}" for code, number in self.failures.items()) or "0"
        shares = ", ".join(f"{share:.0%}" for share in self.spread)
        return f"{failed} of {self.calls:,} calls failed, the slowest {self.slowest / 1000:.1f} s; spread {shares}"

    def _create(self) -> None:
        title, request_id = str(uuid.uuid4()), self._tag + str(uuid.uuid4())[8:]
        request = course_pb2.CreateCourseRequest(course=course_pb2.Course(title=title), request_id=request_id)
        course = self._make(lambda seconds: self._courses.CreateCourse(request, timeout=seconds))
        self.created.append((title, course.name))

    def _get(self) -> None:
        title, name = random.choice(self.created)
        assert self._courses.GetCourse(course_pb2.GetCourseRequest(name=name), timeout=5).title == title

    def _list(self) -> None:
        self._courses.ListCourses(course_pb2.ListCoursesRequest(page_size=10), timeout=5)


class Replicas:
    """Three processes of the service on one database."""

    def __init__(self, url: URL) -> None:
        self._url = url
        self._ports = [free_port() for _ in range(_REPLICAS)]
        self.addresses = [f"127.0.0.1:{port}" for port in self._ports]
        self.services = at_once(*(lambda address=address: self._start(address) for address in self.addresses))

    def hurt(self, kinds: Iterable[Callers]) -> None:
        """Restart two in turn, kill the third, freeze one; after each, wait until these callers are back."""
        killed, *stopped = random.sample(range(_REPLICAS), _REPLICAS)
        for number in stopped:
            assert self.services[number].stop() == 0
            self._replace(number, kinds)
        self.services[killed].kill()
        self._replace(killed, kinds)
        frozen = self.services[killed]
        frozen.freeze()
        time.sleep(_FROZEN_SECONDS)
        since = len(frozen.log)
        frozen.thaw()
        self._wait_for(kinds, frozen, since)

    def close(self) -> None:
        for service in self.services:
            service.thaw()
            service.close()

    def _start(self, address: str) -> Service:
        return Service(
            self._url,
            None,
            COURSE_GRPC_ADDRESS=address,
            COURSE_HTTP_ADDRESS="",
            COURSE_HEALTH_ADDRESS="",
            COURSE_DRAIN_SECONDS=str(_DRAIN_SECONDS),
        )

    def _replace(self, number: int, kinds: Iterable[Callers]) -> None:
        self.services[number].close()
        self.services[number] = self._start(self.addresses[number])
        self._wait_for(kinds, self.services[number], 0)

    @staticmethod
    def _wait_for(kinds: Iterable[Callers], replica: Service, since: int) -> None:
        until(lambda: all(kind.is_back(replica, since) for kind in kinds), seconds=30)


def measure_spread(kind: Callers, replicas: Replicas) -> None:
    """Enter how the calls of some callers spread over the replicas while all are well and nobody else calls."""
    for _ in range(_WINDOWS):
        kind.spread = spread(kind, replicas)
        if kind.is_even:
            break


def spread(kind: Callers, replicas: Replicas) -> list[float]:
    """Return the shares of the replicas in some calls."""

    def counts() -> list[int]:
        return [len(service.calls()) for service in replicas.services]

    before = counts()
    with repeating(*[kind.call] * _CALLERS):
        until(lambda: sum(counts()) - sum(before) >= _CALLS_WHILE_WELL, seconds=60)
    calls = [after - earlier for after, earlier in zip(counts(), before, strict=True)]
    return [number / sum(calls) for number in calls]


@contextlib.contextmanager
def by_round_robin(addresses: list[str]) -> Iterator[Callers]:
    options = [("grpc.service_config", _SERVICE_CONFIG), ("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel("ipv4:" + ",".join(addresses), options) as channel:
        yield Callers(course_pb2_grpc.CourseServiceStub(channel), again)


@contextlib.contextmanager
def behind_envoy(
    addresses: list[str], change: Callable[[envoy.Configuration], object] = lambda _: None
) -> Iterator[Callers]:
    with envoy.running(addresses, change) as running, load.courses(running.address) as courses:
        yield Callers(courses, once)


@dataclass
class Seen:
    """What all kinds of callers saw of the same faults."""

    kinds: dict[str, Callers]
    stored: dict[str, int]
    """How often each title was stored."""


@pytest.fixture(scope="module")
def seen(postgres: Postgres) -> Iterator[Seen]:
    with postgres.new_database() as url, contextlib.ExitStack() as stack:
        replicas = Replicas(url)
        stack.callback(replicas.close)
        careful = {"round_robin": stack.enter_context(by_round_robin(replicas.addresses))}
        careless = {}
        if envoy.PROGRAM:
            careful["Envoy"] = stack.enter_context(behind_envoy(replicas.addresses))
            careless["Envoy alone"] = stack.enter_context(behind_envoy(replicas.addresses, envoy.without_care))
        kinds = {**careful, **careless}
        for kind in kinds.values():
            measure_spread(kind, replicas)
        while True:
            with contextlib.ExitStack() as calling:
                for kind in kinds.values():
                    calling.enter_context(kind.calling())
                replicas.hurt(careful.values())
            if not FULL or sum(kind.calls for kind in careful.values()) >= _CALLS:
                break
        rows = postgres.execute("SELECT title, count(*) AS number FROM courses GROUP BY title", url.database or "")
        yield Seen(kinds, {row.title: row.number for row in rows})


def holds(seen: Seen, name: str) -> None:
    kind = seen.kinds[name]
    assert kind.calls > 100, str(kind)
    assert not kind.failures, str(kind)
    assert {seen.stored.get(title) for title, _ in kind.created} == {1}
    assert kind.is_even, str(kind)


def test_clients_with_the_service_config_lose_no_call(seen: Seen) -> None:
    claim = "three replicas by the service config lose no call to restarts, a kill and a freeze"
    record("A2", claim, str(seen.kinds["round_robin"]))
    holds(seen, "round_robin")


@pytest.mark.skipif(not envoy.PROGRAM, reason=envoy.MISSING)
def test_plain_clients_behind_envoy_lose_no_call(seen: Seen) -> None:
    control = f"no retries, health checks and outlier detection: {seen.kinds['Envoy alone']}"
    claim = "three replicas behind Envoy lose no call to restarts, a kill and a freeze"
    record("A2", claim, str(seen.kinds["Envoy"]), control)
    holds(seen, "Envoy")
    with pytest.raises(AssertionError, match="UNAVAILABLE"):
        holds(seen, "Envoy alone")
