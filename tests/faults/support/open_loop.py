"""A load that does not wait: calls are sent at fixed times, whatever has become of those before.

`python -m tests.faults.support.open_loop ADDRESS CORE MIX RATE SECONDS` runs in a process of its own, pinned to a core,
and prints what its callers saw as JSON. With a rate of 0 it keeps a few calls under way instead, to find the capacity.
"""

from __future__ import annotations

import collections
import json
import os
import random
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from typing import Any

import grpc
from course.v1 import course_pb2, course_pb2_grpc

from tests.conftest import ROOT
from tests.faults.support.callers import CHANNEL_OPTIONS

DEADLINE_SECONDS = 0.5
MIXES = {"GetCourse": {"get": 1}, "List(50), Get, Create": {"get": 4, "list_courses": 3, "create": 3}}
"""How often a call is of each kind."""
_IN_FLIGHT = 16
_CHANNELS = 24
COURSES = 100


@dataclass(frozen=True)
class Load:
    """What became of a load."""

    offered: float
    """Calls per second that were sent."""
    good: float
    """Calls per second that succeeded before their deadline."""
    succeeded: int
    codes: dict[str, int]


def run_load(address: str, core: int, mix: str, rate: float, seconds: float) -> Load:
    """Run a load in a process of its own."""
    output = subprocess.run(
        [sys.executable, "-m", __name__, address, str(core), mix, str(rate), str(seconds)],
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
    ).stdout
    return Load(**json.loads(output))


class _Sender:
    """Sends calls of a mix and counts how they end."""

    def __init__(self, stubs: list[course_pb2_grpc.CourseServiceStub], mix: str) -> None:
        self._stubs = stubs
        self._kinds, self._weights = zip(*MIXES[mix].items(), strict=True)
        self._room = threading.Semaphore(_IN_FLIGHT)
        self._codes: collections.Counter[grpc.StatusCode] = collections.Counter()
        self._sent = 0
        course = course_pb2.Course(title="Biology")
        self._names = [
            stubs[0].CreateCourse(course_pb2.CreateCourseRequest(course=course), timeout=20).name
            for _ in range(COURSES)
        ]

    def run(self, rate: float, seconds: float) -> Load:
        """Send for some seconds, and wait for what is under way."""
        start = time.monotonic()
        while (now := time.monotonic()) < start + seconds:
            if not rate:
                self._room.acquire()
            elif (early := start + self._sent / rate - now) > 0:
                time.sleep(early)
            self._send()
        took = time.monotonic() - start
        time.sleep(DEADLINE_SECONDS + 0.5)
        good = self._codes[grpc.StatusCode.OK]
        codes = {code.name: number for code, number in self._codes.items()}
        return Load(self._sent / took, good / took, good, codes)

    def _send(self) -> None:
        stub = self._stubs[self._sent % len(self._stubs)]
        self._sent += 1
        getattr(self, random.choices(self._kinds, self._weights)[0])(stub).add_done_callback(self._count)

    def _count(self, call: Any) -> None:
        self._codes[call.code()] += 1  # all callbacks come one after the other: there is one thread that reads
        self._room.release()

    def get(self, stub: course_pb2_grpc.CourseServiceStub) -> Any:
        request = course_pb2.GetCourseRequest(name=random.choice(self._names))
        return stub.GetCourse.future(request, timeout=DEADLINE_SECONDS)

    def list_courses(self, stub: course_pb2_grpc.CourseServiceStub) -> Any:
        return stub.ListCourses.future(course_pb2.ListCoursesRequest(page_size=50), timeout=DEADLINE_SECONDS)

    def create(self, stub: course_pb2_grpc.CourseServiceStub) -> Any:
        request = course_pb2.CreateCourseRequest(course=course_pb2.Course(title="Biology"))
        return stub.CreateCourse.future(request, timeout=DEADLINE_SECONDS)


def main(address: str, core: str, mix: str, rate: str, seconds: str) -> None:
    """Run a load and print what became of it."""
    os.sched_setaffinity(0, {int(core)})
    channels = [grpc.insecure_channel(address, options=CHANNEL_OPTIONS) for _ in range(_CHANNELS)]
    sender = _Sender([course_pb2_grpc.CourseServiceStub(channel) for channel in channels], mix)
    json.dump(asdict(sender.run(float(rate), float(seconds))), sys.stdout)
    sys.stdout.flush()
    os._exit(0)  # what is still under way does not matter


if __name__ == "__main__":
    main(*sys.argv[1:])
