"""`python -m benchmarks.replicas`: calls per second, CPU and spread with 1, 2 and 3 replicas; writes REPLICAS.md."""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import grpc
from course.v1 import course_pb2_grpc

from benchmarks.calls import Kind, get, prepared
from benchmarks.measuring import fill
from benchmarks.servers import CONNECTIONS, ROOT, Server
from tests.faults.support.linux import exact_cpu_seconds
from tests.faults.support.postgres import Postgres
from tests.faults.support.service import Service
from tests.support import envoy

_CALLS = 600
"""In one turn."""
_CONFIG = (ROOT / "protos/course/v1/course_grpc_service_config.json").read_text()
_GET = Kind("GetCourse", "GetCourse", get, 32, _CALLS)
_HEAD = ("replicas", "way", "calls/s", "CPU of a call: service µs", "Envoy µs", "callers µs", "spread")


@dataclass(frozen=True)
class Way:
    """One way to reach some replicas."""

    name: str
    server: Server
    replicas: list[Service]
    envoy: envoy.Envoy | None


@dataclass(frozen=True)
class Turn:
    """What one turn cost; microseconds of CPU per call."""

    per_second: float
    service: float
    envoy: float
    callers: float


def main() -> None:
    """Measure, print the table and write it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replicas", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    postgres = Postgres()
    try:
        with contextlib.ExitStack() as stack:
            replicas = [stack.enter_context(contextlib.closing(_replica(postgres))) for _ in range(3)]
            ways = [stack.enter_context(_way(name, replicas[:number])) for number in (1, 2, 3) for name in _ways()]
            fill([way.server for way in ways], 1000)
            turns = _measure(ways, rounds)
            lines = [_line(way, turns[number]) for number, way in enumerate(ways)]
    finally:
        postgres.close()
    table = "\n".join("| " + " | ".join(line) + " |" for line in (_HEAD, ["---"] * len(_HEAD), *lines))
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    cores = len(os.sched_getaffinity(0))
    about = (
        f"Measured {datetime.now(UTC):%F} at commit {commit.stdout.strip()}: GetCourse of random ids, {_GET.in_flight} "
        f"in flight, {rounds} rounds of {_CALLS} calls by turns; medians. By round_robin there is one channel, with a "
        f"connection to each replica; Envoy is reached over {CONNECTIONS} connections. Callers, replicas, Envoy and "
        f"PostgreSQL share {cores} cores with all else on a noisy machine. Where cores are fewer than processes, "
        "calls/s say nothing of what a further replica adds with a core of its own; look at the CPU of a call, and at "
        "the spread. Reads that come to one replica at once share a query, so the fewer, the more each costs."
    )
    (ROOT / "benchmarks" / "REPLICAS.md").write_text(
        f"# What replicas cost and how calls spread\n\n{about}\n\n{table}\n"
    )
    print(table)


def _ways() -> tuple[str, ...]:
    if envoy.PROGRAM:
        return ("round_robin", "Envoy")
    print(envoy.MISSING, file=sys.stderr)
    return ("round_robin",)


def _replica(postgres: Postgres) -> Service:
    """A replica with what is on by default."""
    return Service(postgres.url, None, COURSE_HTTP_ADDRESS="", COURSE_METRICS_ADDRESS="127.0.0.1:0")


@contextlib.contextmanager
def _way(name: str, replicas: list[Service]) -> Iterator[Way]:
    addresses = [replica.grpc_address for replica in replicas]
    with contextlib.ExitStack() as stack:
        if name == "Envoy":
            running = stack.enter_context(envoy.running(addresses))
            targets, config = [running.address] * CONNECTIONS, "{}"
        else:
            running = None
            targets, config = ["ipv4:" + ",".join(addresses)], _CONFIG
        options = [("grpc.service_config", config), ("grpc.use_local_subchannel_pool", 1)]
        channels = [stack.enter_context(grpc.insecure_channel(target, options)) for target in targets]
        stubs = tuple(map(course_pb2_grpc.CourseServiceStub, channels))
        yield Way(name, Server(name, replicas[0].pid, stubs, http_port=0, token=""), replicas, running)


def _measure(ways: list[Way], rounds: int) -> dict[int, list[Turn]]:
    """All ways by turns, there and back, after one turn that warms up."""
    turns: dict[int, list[Turn]] = defaultdict(list)
    for number in range(rounds + 1):
        order = list(enumerate(ways))
        for which, way in order if number % 2 else reversed(order):
            turn = _turn(way)
            if number:
                turns[which].append(turn)
        sys.stderr.write(".")
        sys.stderr.flush()
    sys.stderr.write("\n")
    return turns


def _turn(way: Way) -> Turn:
    def used() -> tuple[float, float, float]:
        service = sum(exact_cpu_seconds(replica.pid) for replica in way.replicas)
        return service, exact_cpu_seconds(way.envoy.pid) if way.envoy else 0.0, time.process_time()

    with prepared(way.server, _GET, _CALLS) as make:
        before, start = used(), time.perf_counter()
        make()
        seconds = time.perf_counter() - start
        costs = [(after - earlier) / _CALLS * 1e6 for after, earlier in zip(used(), before, strict=True)]
    return Turn(_CALLS / seconds, *costs)


def _line(way: Way, turns: list[Turn]) -> list[str]:
    def median(field: str) -> str:
        return f"{statistics.median(getattr(turn, field) for turn in turns):,.0f}"

    shares = ", ".join(f"{share:.0%}" for share in _spread(way))
    envoys = median("envoy") if way.envoy else "-"
    return [
        str(len(way.replicas)),
        way.name,
        median("per_second"),
        median("service"),
        envoys,
        median("callers"),
        shares,
    ]


def _spread(way: Way) -> list[float]:
    """The shares of the replicas in the calls of a turn, by their logs."""

    def counts() -> list[int]:
        time.sleep(0.3)  # lines are written late
        return [len(replica.calls()) for replica in way.replicas]

    before = counts()
    with prepared(way.server, _GET, _CALLS) as make:
        make()
    return [(after - earlier) / _CALLS for after, earlier in zip(counts(), before, strict=True)]


main()
