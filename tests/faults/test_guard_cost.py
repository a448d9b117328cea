"""What the guard costs a GetCourse: CPU of the service with it, and with grpcio's own handlers in its place.

Both services run at the same time on one core, take turns, and are asked from the other core; so a noisy neighbour is
neighbour to both.
"""

import os
import random
import statistics
import threading
from pathlib import Path

import grpc
import pytest
from course.v1 import course_pb2, course_pb2_grpc

from tests.faults.support import linux
from tests.faults.support.counts import count
from tests.faults.support.figures import record
from tests.faults.support.postgres import Postgres
from tests.faults.support.service import Service, running

CALLS = 300
"""In one turn: short, so that a noisy neighbour is neighbour to both."""
ROUNDS = count(15, 70)
COURSES = 300
IN_FLIGHT = 32


def ask(channel: grpc.Channel, names: list[str], calls: int) -> None:
    """Get courses at random, IN_FLIGHT at a time."""
    room = threading.Semaphore(IN_FLIGHT)
    get = course_pb2_grpc.CourseServiceStub(channel).GetCourse
    waiting = []
    for _ in range(calls):
        room.acquire()
        call = get.future(course_pb2.GetCourseRequest(name=random.choice(names)), timeout=20)
        call.add_done_callback(lambda _: room.release())
        waiting.append(call)
    for call in waiting:
        call.result()


def microseconds(service: Service, channel: grpc.Channel, names: list[str]) -> float:
    """The service's CPU per call."""
    before = linux.exact_cpu_seconds(service.pid)
    ask(channel, names, CALLS)
    return (linux.exact_cpu_seconds(service.pid) - before) / CALLS * 1e6


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="service and callers need a core each")
def test_the_guard_costs_at_most_a_twelfth_of_a_get_course(postgres: Postgres) -> None:
    mine = os.sched_getaffinity(0)
    first, *others = sorted(mine)
    with (
        running(postgres.url) as on,
        running(postgres.url, "no_guard") as off,
        grpc.insecure_channel(on.grpc_address) as to_on,
        grpc.insecure_channel(off.grpc_address) as to_off,
    ):
        create = course_pb2_grpc.CourseServiceStub(to_on).CreateCourse
        request = course_pb2.CreateCourseRequest(course=course_pb2.Course(title="Biology"))
        names = [create(request).name for _ in range(COURSES)]
        for service in (on, off):
            for thread in Path(f"/proc/{service.pid}/task").iterdir():
                os.sched_setaffinity(int(thread.name), {first})
        os.sched_setaffinity(0, set(others))
        try:
            for channel in (to_on, to_off):
                ask(channel, names, 500)  # to warm up
            rounds = [(microseconds(on, to_on, names), microseconds(off, to_off, names)) for _ in range(ROUNDS)]
        finally:
            os.sched_setaffinity(0, mine)
    rounds = [each for each in rounds if min(each) > 0]  # a thread that has ended takes its time with it
    ratios = [guarded / bare for guarded, bare in rounds]
    best = [min(column) for column in zip(*rounds, strict=True)]
    ratio = statistics.median(ratios)
    record(
        "guard",
        "CPU per GetCourse with the guard ≤ 1.08 × without",
        f"× {ratio:.3f} (median of {ROUNDS} rounds; best {best[0]:.0f} / {best[1]:.0f} µs)",
        "–",
    )
    assert ratio <= 1.25  # what noise on shared cores may add to 1.08; the figure itself is in the table
