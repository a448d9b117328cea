"""Turns of all servers, one after the other, and what each cost."""

from __future__ import annotations

import contextlib
import os
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from course.v1 import course_pb2

from benchmarks.calls import Kind, course, prepared
from benchmarks.servers import PEERS, Server
from tests.faults.support.linux import ended_children_cpu_seconds, exact_cpu_seconds
from tests.faults.support.postgres import Postgres


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
    """The median of the rounds' ratios to the first server, each of one round."""
    database_cpu: float
    per_second: float
    p50: float
    p99: float
    p999: float

    def as_json(self) -> dict[str, object]:
        """Return it as JSON has it."""
        return asdict(self)


_AFTERWARDS_SECONDS = 0.1
"""How long a server may still have to do with the calls: the service writes their lines in the log 50 ms later."""


def measure(servers: Sequence[Server], rounds: int, kinds: Sequence[Kind], postgres: Postgres) -> list[Row]:
    """Measure each kind of call; see `measure_kind`."""
    rows: list[Row] = []
    for number, kind in enumerate(kinds, 1):
        say(f"{number}/{len(kinds)} ")
        rows += measure_kind(servers, rounds, kind, postgres)
    return rows


def measure_kind(servers: Sequence[Server], rounds: int, kind: Kind, postgres: Postgres, warm_up: int = 3) -> list[Row]:
    """Measure a kind of call, with all servers by turns, there and back; `warm_up` turns warm each up.

    The ratios are to the first server. Raises `grpc.RpcError` if a call by gRPC fails.
    """
    asked = [server for server in servers if server.name not in PEERS or server.name in kind.peers]
    say(f"{kind.title}: ")
    for server in asked:
        with prepared(server, kind, kind.calls * warm_up) as make:
            make()
    turns: dict[str, list[Turn]] = defaultdict(list)
    taken: dict[str, list[float]] = defaultdict(list)
    for number in range(rounds):
        for server in asked if number % 2 else reversed(asked):
            turn, milliseconds = _turn(server, kind, postgres)
            turns[server.name].append(turn)
            taken[server.name] += milliseconds
        say(".")
    say("\n")
    base = turns[asked[0].name]
    return [_row(kind, server.name, turns[server.name], base, taken[server.name]) for server in asked]


def fill(servers: Sequence[Server], courses: int) -> None:
    """Create courses, by the first server, for all of them."""
    first, *_ = servers
    names: list[str] = []
    while len(names) < courses:
        requests = [course_pb2.CreateCourseRequest(course=course()) for _ in range(100)]
        batch = course_pb2.BatchCreateCoursesRequest(requests=requests)
        created = first.courses[0].BatchCreateCourses(batch, timeout=30, metadata=first.metadata)
        names += [each.name for each in created.courses]
    for server in servers:
        server.names[:] = names


def _turn(server: Server, kind: Kind, postgres: Postgres) -> tuple[Turn, list[float]]:
    with prepared(server, kind, kind.calls) as make:
        database, cpu, start = _database_cpu(postgres), exact_cpu_seconds(server.pid), time.perf_counter()
        milliseconds = make()
        seconds = time.perf_counter() - start
        time.sleep(_AFTERWARDS_SECONDS)
        used, database_used = exact_cpu_seconds(server.pid) - cpu, _database_cpu(postgres) - database
    pieces = kind.calls * kind.per
    return Turn(used / pieces * 1e6, database_used / pieces * 1e6, kind.calls / seconds), milliseconds


def _row(kind: Kind, name: str, mine: list[Turn], base: list[Turn], milliseconds: list[float]) -> Row:
    ordered = sorted(milliseconds)
    return Row(
        kind=kind.title,
        server=name,
        cpu_minimum=round(min(turn.cpu for turn in mine), 1),
        cpu_median=round(statistics.median(turn.cpu for turn in mine), 1),
        ratio=round(statistics.median(turn.cpu / other.cpu for turn, other in zip(mine, base, strict=True)), 3),
        database_cpu=round(statistics.median(turn.database_cpu for turn in mine), 1),
        per_second=round(statistics.median(turn.per_second for turn in mine)),
        p50=round(_quantile(ordered, 0.5), 2),
        p99=round(_quantile(ordered, 0.99), 2),
        p999=round(_quantile(ordered, 0.999), 2),
    )


def _quantile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def _database_cpu(postgres: Postgres) -> float:
    pids = postgres.pids()
    seconds = ended_children_cpu_seconds(pids[0])  # such as the workers of a parallel query
    for pid in pids:
        with contextlib.suppress(OSError):  # it has just ended
            seconds += exact_cpu_seconds(pid)
    return seconds


def say(text: str) -> None:
    """Show progress."""
    sys.stderr.write(text)
    sys.stderr.flush()


def cores() -> tuple[int, set[int]]:
    """Return the core of the servers, and those of the load."""
    first, *others = sorted(os.sched_getaffinity(0))
    return first, set(others) or {first}
