"""Nobody reads the log: calls do not wait for it, and what is lost is counted."""

import contextlib
import time
import urllib.request
from collections.abc import Iterator

import grpc
import pytest
from course.v1 import course_pb2
from sqlalchemy.engine import URL

from tests.faults.support.callers import Seen, well_behaved
from tests.faults.support.counts import FULL
from tests.faults.support.figures import record
from tests.faults.support.load import courses
from tests.faults.support.noise import Noise
from tests.faults.support.service import Service, running
from tests.support.repeating import repeating

pytestmark = pytest.mark.skipif(not FULL, reason="figures for FULL=1; a short form is in tests/test_logs.py")

SECONDS = 30
CLAIM = "a log that nobody reads slows no call beyond 250 ms"


def dropped(service: Service) -> int:
    """How many lines the metrics count as dropped."""
    port = service.wait_for(r"metrics on port (\d+)")[1]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
        lines = response.read().decode().splitlines()
    return int(float(next(line for line in lines if line.startswith("course_log_lines_dropped_total ")).split()[1]))


@contextlib.contextmanager
def many_calls(service: Service) -> Iterator[None]:
    """Calls that have the log grow, beside those that are timed."""
    request = course_pb2.GetCourseRequest(name="courses/no-such")
    with courses(service.grpc_address) as stub:

        def ask() -> None:
            with contextlib.suppress(grpc.RpcError):
                stub.GetCourse(request, timeout=10)

        with repeating(*[ask] * 4):
            yield


def unread(service: Service, seconds: float) -> tuple[dict[str, Seen], int, Noise]:
    """What callers of both faces see while nobody reads the log, and how many lines are dropped."""
    with well_behaved(service) as callers, many_calls(service), Noise() as noise:
        service.log_is_read.clear()
        until = time.monotonic() + seconds
        while time.monotonic() < until or not dropped(service):
            time.sleep(0.2)  # time is what is tested, and calls until lines are dropped
            assert time.monotonic() < until + 60, "no line is dropped"
        seen = {face: caller.seen() for face, caller in callers.items()}
    return seen, dropped(service), noise


def none_is_slow(seen: dict[str, Seen], noise: Noise) -> None:
    for face, calls in seen.items():
        assert calls.failures == (), face
        assert calls.slowest < 250 + noise.allowance * 1000, face


def figure(seen: dict[str, Seen], seconds: float, noise: Noise) -> str:
    slowest = ", ".join(f"{face} {calls.slowest:.0f} ms" for face, calls in seen.items())
    return f"unread for {seconds:.0f} s: slowest {slowest} (the machine itself: {noise.longest * 1000:.0f} ms)"


def test_a_log_that_nobody_reads_slows_no_call_and_what_is_dropped_is_counted(migrated_url: URL) -> None:
    with running(migrated_url, COURSE_METRICS_ADDRESS="127.0.0.1:0") as service:
        seen, lost, noise = unread(service, SECONDS)
        service.log_is_read.set()
        said = service.wait_for(r"(\d+) lines were dropped here, because nobody read the log")
    record("log", CLAIM, f"{figure(seen, SECONDS, noise)}; {lost:,} lines dropped and counted")
    none_is_slow(seen, noise)
    assert int(said[1]) >= lost


def test_a_log_that_nobody_reads_stops_everything_if_calls_write_it(migrated_url: URL) -> None:
    with (
        running(migrated_url, "log_at_once", COURSE_METRICS_ADDRESS="127.0.0.1:0") as service,
        well_behaved(service) as callers,
        Noise() as noise,
    ):
        service.log_is_read.clear()
        time.sleep(4)
        seen = {face: caller.seen() for face, caller in callers.items()}
        service.log_is_read.set()
    record("log", CLAIM, control=f"written by the calls: {figure(seen, 4, noise)}")
    with pytest.raises(AssertionError):
        none_is_slow(seen, noise)
