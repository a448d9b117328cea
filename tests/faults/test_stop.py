"""SIGTERM at bad moments: while the service starts, twice, and while the database is frozen."""

from __future__ import annotations

import collections
import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import grpc
import pytest
from course.v1 import course_pb2
from sqlalchemy.engine import URL

from tests.conftest import ROOT
from tests.faults.support.counts import count
from tests.faults.support.figures import record
from tests.faults.support.load import courses
from tests.faults.support.postgres import Postgres
from tests.faults.support.service import FAULT, running
from tests.support.processes import environment_of
from tests.support.repeating import repeating

_CLAIM_OF_START = "SIGTERM during start-up ends it in time"
_STARTING_SECONDS = 3.0
"""From the signal to the end, while the service starts: to the point where it looks at it, and the stop itself."""
_TWICE_SECONDS = 2.0
"""From the second signal to the end, when no call is under way."""
_FROZEN_SECONDS = 10.5
"""From the signal to the end, without a lame duck: the calls under way take 10 s at most."""


def seconds_of_a_start(url: URL) -> float:
    """Return how long a start takes, now and here."""
    start = time.monotonic()
    with running(url):
        return time.monotonic() - start


def end_of_a_start(url: URL, moment: float, fault: str | None = None) -> tuple[float, int]:
    """Return how long a service takes to end that gets SIGTERM at a moment of its start, and its exit code."""
    environment = environment_of(
        COURSE_DATABASE_URL=url.render_as_string(hide_password=False), COURSE_DRAIN_SECONDS="0"
    )
    with subprocess.Popen(
        [sys.executable, "-m", "tests.faults.support.faulty"],
        cwd=ROOT,
        env={**environment, **({FAULT: fault} if fault else {})},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            time.sleep(moment)
            start = time.monotonic()
            process.send_signal(signal.SIGTERM)
            exit_code = process.wait(timeout=_STARTING_SECONDS + 2)
            return time.monotonic() - start, exit_code
        finally:
            process.kill()


@pytest.mark.parametrize("is_frozen", [False, True], ids=["", "frozen"])
def test_sigterm_ends_a_start_at_any_moment(postgres: Postgres, is_frozen: bool) -> None:  # noqa: FBT001  # a parameter of pytest's
    number = count(4, 30)
    whole = seconds_of_a_start(postgres.url)
    with postgres.frozen() if is_frozen else contextlib.nullcontext():
        ends = [end_of_a_start(postgres.url, 1.2 * whole * (index + 1) / number) for index in range(number)]
    slowest = max(seconds for seconds, _ in ends)
    codes = collections.Counter(exit_code for _, exit_code in ends)
    told = ", ".join(f"{times} x {code}" for code, times in sorted(codes.items()))
    claim = _CLAIM_OF_START + (", the database frozen" if is_frozen else "")
    record("stop", claim, f"{slowest:.1f} s, promised {_STARTING_SECONDS:.0f} s; exit codes {told}")
    assert slowest <= _STARTING_SECONDS
    # By the signal itself before Python has got to where the service takes it; 1: it has found the database frozen.
    assert set(codes) <= {0, -signal.SIGTERM} | ({1} if is_frozen else set())


def test_control_who_is_deaf_to_sigterm_does_not_end(postgres: Postgres) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        end_of_a_start(postgres.url, 5.0, fault="deaf_to_sigterm")
    record("stop", _CLAIM_OF_START, control="deaf to SIGTERM: goes on")


def seconds_from_second_sigterm(url: URL, drain_seconds: int, fault: str | None = None) -> float:
    """Return how long a service takes to end that gets SIGTERM twice."""
    with running(url, fault, COURSE_DRAIN_SECONDS=str(drain_seconds)) as service:
        service.signal(signal.SIGTERM)
        service.wait_for("stopping")
        start = time.monotonic()
        assert service.stop() == 0
        return time.monotonic() - start


def test_a_second_sigterm_ends_the_lame_duck(postgres: Postgres) -> None:
    seconds = seconds_from_second_sigterm(postgres.url, drain_seconds=60)
    record("stop", "a second SIGTERM ends the lame duck", f"{seconds:.1f} s, promised {_TWICE_SECONDS:.0f} s")
    assert seconds <= _TWICE_SECONDS


def test_control_who_heeds_the_first_sigterm_only_takes_the_whole_lame_duck(postgres: Postgres) -> None:
    seconds = seconds_from_second_sigterm(postgres.url, drain_seconds=4, fault="deaf_to_the_second_sigterm")
    record("stop", "a second SIGTERM ends the lame duck", control=f"first one heeded only: {seconds:.1f} s of 4 s")
    assert seconds > _TWICE_SECONDS


@contextlib.contextmanager
def stuck_calls(address: str) -> Iterator[None]:
    """Make calls without a deadline; they end as the service ends them."""
    with courses(address) as stub:
        name = stub.CreateCourse(course_pb2.CreateCourseRequest(course=course_pb2.Course(title="Biology"))).name

        def get() -> None:
            with contextlib.suppress(grpc.RpcError):
                stub.GetCourse(course_pb2.GetCourseRequest(name=name))

        def create() -> None:
            with contextlib.suppress(grpc.RpcError):
                stub.CreateCourse(course_pb2.CreateCourseRequest(course=course_pb2.Course(title="Biology")))

        with repeating(get, get, get, create, create, create):
            yield


def seconds_to_stop_while_frozen(postgres: Postgres, fault: str | None = None) -> float:
    """Return how long a service takes to end whose calls wait for a frozen database."""
    with (
        postgres.new_database() as url,
        running(url, fault) as service,
        stuck_calls(service.grpc_address),
        postgres.frozen(),
    ):
        time.sleep(1)
        start = time.monotonic()
        exit_code = service.stop(seconds=40)
        assert exit_code == 0
        return time.monotonic() - start


def test_sigterm_ends_the_service_while_the_database_is_frozen(postgres: Postgres) -> None:
    seconds = seconds_to_stop_while_frozen(postgres)
    record("stop", "SIGTERM while the database is frozen", f"{seconds:.1f} s, promised {_FROZEN_SECONDS:.1f} s")
    assert seconds <= _FROZEN_SECONDS


def test_control_who_waits_in_the_driver_does_not_end_in_time(postgres: Postgres) -> None:
    seconds = seconds_to_stop_while_frozen(postgres, fault="no_wait_callback")
    record("stop", "SIGTERM while the database is frozen", control=f"waiting in the driver: {seconds:.1f} s")
    assert seconds > _FROZEN_SECONDS
