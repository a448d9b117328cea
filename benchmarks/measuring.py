"""Turns of all servers, one after the other, and what each cost."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from course.v1 import course_pb2

from benchmarks.calls import KINDS, Kind, course, run
from benchmarks.servers import PEERS, Server
from tests.faults.support.linux import exact_cpu_seconds

_WARM_UP = 3
"""How many turns warm a server up."""


@dataclass(frozen=True)
class Turn:
    """What one turn of a server cost."""

    cpu: float
    """Microseconds of the server's CPU, per call."""
    database_cpu: float
    """The same of PostgreSQL."""
    per_second: float


@dataclass(frozen=True)
class Row:
    """One server's results for one kind of call."""

    kind: str
    server: str
    cpu_minimum: float
    cpu_median: float
    ratio: float
    """The median of the rounds' ratios to the service, each of one round."""
    database_cpu: float
    per_second: float
    p50: float
    p99: float
    p999: float

    def as_json(self) -> dict[str, object]:
        """Return it as JSON has it."""
        return asdict(self)


def measure(servers: list[Server], names: list[str], rounds: int, kinds: Iterable[Kind] = KINDS) -> list[Row]:
    """Measure each kind of call, with all servers by turns, there and back."""
    rows: list[Row] = []
    for kind in kinds:
        asked = [server for server in servers if server.name not in PEERS or server.name in kind.peers]
        _say(f"{kind.title}: ")
        for server in asked:
            run(server, kind, names, kind.calls * _WARM_UP)
        turns: dict[str, list[Turn]] = defaultdict(list)
        taken: dict[str, list[float]] = defaultdict(list)
        for number in range(rounds):
            for server in asked if number % 2 else reversed(asked):
                turn, milliseconds = _turn(server, kind, names)
                turns[server.name].append(turn)
                taken[server.name] += milliseconds
            _say(".")
        _say("\n")
        rows += [_row(kind, server.name, turns, taken[server.name]) for server in asked]
    return rows


def fill(server: Server, courses: int) -> list[str]:
    """Create courses; returns their names."""
    names: list[str] = []
    while len(names) < courses:
        requests = [course_pb2.CreateCourseRequest(course=course()) for _ in range(100)]
        created = server.courses[0].BatchCreateCourses(
            course_pb2.BatchCreateCoursesRequest(requests=requests), timeout=30
        )
        names += [each.name for each in created.courses]
    return names


def _turn(server: Server, kind: Kind, names: list[str]) -> tuple[Turn, list[float]]:
    database, cpu, start = _database_cpu(), exact_cpu_seconds(server.pid), time.perf_counter()
    milliseconds = run(server, kind, names, kind.calls)
    seconds = time.perf_counter() - start
    pieces = kind.calls * kind.per
    used = exact_cpu_seconds(server.pid) - cpu
    return (
        Turn(used / pieces * 1e6, (_database_cpu() - database) / pieces * 1e6, kind.calls / seconds),
        milliseconds,
    )


def _row(kind: Kind, name: str, turns: dict[str, list[Turn]], milliseconds: list[float]) -> Row:
    mine, base = turns[name], turns["service"]
    # A thread that has ended takes its time with it, and makes nonsense of its turn.
    pairs = [(turn, other) for turn, other in zip(mine, base, strict=True) if min(turn.cpu, other.cpu) > 0]
    ordered = sorted(milliseconds)
    return Row(
        kind=kind.title,
        server=name,
        cpu_minimum=round(min(turn.cpu for turn, _ in pairs), 1),
        cpu_median=round(statistics.median(turn.cpu for turn, _ in pairs), 1),
        ratio=round(statistics.median(turn.cpu / other.cpu for turn, other in pairs), 3),
        database_cpu=round(statistics.median(turn.database_cpu for turn, _ in pairs), 1),
        per_second=round(statistics.median(turn.per_second for turn, _ in pairs)),
        p50=round(_quantile(ordered, 0.5), 2),
        p99=round(_quantile(ordered, 0.99), 2),
        p999=round(_quantile(ordered, 0.999), 2),
    )


def _quantile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def _database_cpu() -> float:
    """The CPU of every PostgreSQL of this machine: the benchmark's own is the only one that has work."""
    seconds = 0.0
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                if (process / "comm").read_text().startswith("postgres"):
                    seconds += exact_cpu_seconds(int(process.name))
            except OSError:  # it has just ended
                continue
    return seconds


def _say(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


def cores() -> tuple[int, set[int]]:
    """Return the core of the servers, and those of the load."""
    first, *others = sorted(os.sched_getaffinity(0))
    return first, set(others) or {first}
