"""`python -m benchmarks`: measure the service beside its peers, and beside another commit of itself.

The whole form writes RESULTS.md, a plot and JSON; the short form (a minute) prints a table of GetCourse. `--size`
measures the service on few courses beside many instead, and writes SIZE.md.
"""

import argparse
import json
import os
import platform
import subprocess
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime

from benchmarks import report, size
from benchmarks.calls import KINDS
from benchmarks.footprint import STARTS, median_start
from benchmarks.measuring import cores, fill, measure
from benchmarks.servers import ROOT, access, servers
from tests.faults.support.linux import memory_bytes
from tests.faults.support.postgres import Postgres

_SHORT_ROUNDS = 7
_SHORT_KINDS = [kind for kind in KINDS if kind.title in {"GetCourse, 1 in flight", "GetCourse, 32 in flight"}]
_SHORT_PEERS = ("echo", "by_hand", "textbook")


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--against", default="", help="a commit to compare with")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--courses", type=int, default=1_000)
    parser.add_argument("--size", type=int, nargs="?", const=1_000_000, help="how many are many (1,000,000)")
    options = parser.parse_args()
    if options.size:
        size.compare(options.courses, options.size, _head())
    elif options.short:
        _short(options.courses, options.against)
    else:
        _whole(options.rounds, options.courses, options.against)


def _short(courses: int, against: str) -> None:
    core, others = cores()
    with closing(Postgres()) as postgres, servers(postgres.url, core, against, _SHORT_PEERS) as found:
        os.sched_setaffinity(0, others)
        fill(found, courses)
        print(report.table(measure(found, _SHORT_ROUNDS, _SHORT_KINDS, postgres)))


def _whole(rounds: int, courses: int, against: str) -> None:
    core, others = cores()
    with closing(Postgres()) as postgres:
        with servers(postgres.url, core, against) as found:
            os.sched_setaffinity(0, others)
            fill(found, courses)
            rows = measure(found, rounds, KINDS, postgres)
            megabytes = memory_bytes(found[0].pid) / 1e6
        with access() as granted:
            start = median_start(postgres.url, core, granted)
    about = (
        f"{_head()}, {rounds} rounds by turns, {courses:,} courses, servers and callers on cores of their own, random "
        "ids; the service with everything on: guard, tokens and a policy (in plaintext, on loopback), metrics, a log "
        "line for each call, gRPC and HTTP. The machine is shared and noisy: compare ratios, and take differences of "
        "less than a tenth for noise. `echo` answers with a constant; `by_hand` is psycopg2 with one statement a call; "
        "`textbook` is SQLAlchemy's ORM with a session a call; `go` is grpc-go with pgx; `fastapi` is FastAPI with "
        "SQLAlchemy's asyncio and asyncpg. Each has 8 connections to the database. None of them asks who calls, "
        "retries, writes a log or bounds anything, and only `fastapi` checks what is sent: its types. A row named by a "
        "commit is the service as it was then. A ratio is the median of the rounds' ratios, so it is not quite that of "
        "the medians."
    )
    echo = next(row.cpu_median for row in rows if (row.kind, row.server) == ("GetCourse, 32 in flight", "echo"))
    footprint = (
        f"With everything on, the service holds {megabytes:.0f} MB after the run, and takes {start.seconds:.2f} s, "
        f"{start.cpu_seconds:.2f} s of them CPU, from the start of its process to SERVING by gRPC's health (median of "
        f"{STARTS} starts). That is the CPU of {start.cpu_seconds * 1e6 / echo:,.0f} calls of `echo` with 32 in flight."
    )
    report.write(rows, ROOT / "benchmarks", about, footprint)
    results = ROOT / "var" / "benchmark.json"
    kinds = [row.as_json() for row in rows]
    results.write_text(json.dumps({"megabytes": megabytes, "start": asdict(start), "kinds": kinds}, indent=1))
    print(report.table(rows))
    print(report.paragraph(footprint))
    print(f"written to benchmarks/RESULTS.md and {results.relative_to(ROOT)}")


def _head() -> str:
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return f"Measured {datetime.now(UTC):%F} at commit {commit.stdout.strip()} with Python {platform.python_version()}"


main()
