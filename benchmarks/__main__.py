"""`python -m benchmarks`: measure the service beside its peers, and beside another commit of itself.

The whole form writes RESULTS.md, a plot and JSON; the short form (half a minute) prints a table of GetCourse.
"""

import argparse
import json
import os
import platform
import subprocess
from datetime import UTC, datetime

from benchmarks import report
from benchmarks.calls import KINDS
from benchmarks.measuring import cores, fill, measure
from benchmarks.servers import ROOT, servers
from tests.faults.support.postgres import Postgres

_SHORT_ROUNDS = 7
_SHORT_KINDS = [kind for kind in KINDS if kind.title in {"GetCourse, 1 in flight", "GetCourse, 32 in flight"}]


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--against", default="", help="a commit to compare with")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--courses", type=int, default=1_000)
    options = parser.parse_args()
    core, others = cores()
    postgres = Postgres()
    try:
        with servers(postgres.url, core, options.against) as found:
            os.sched_setaffinity(0, others)
            names = fill(found[0], options.courses)
            if options.short:
                print(report.table(measure(found, names, _SHORT_ROUNDS, _SHORT_KINDS)))
                return
            rows = measure(found, names, options.rounds)
    finally:
        postgres.close()
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    about = (
        f"Measured {datetime.now(UTC):%F} at commit {commit.stdout.strip()} with Python {platform.python_version()}, "
        f"{options.rounds} rounds by turns, {options.courses:,} courses, servers and callers on cores of their own, "
        "random ids; the service with metrics and its log line on. The machine is shared and noisy: compare ratios, "
        "and take differences of less than a tenth for noise. `echo` answers with a constant; `by_hand` is psycopg2 "
        "with one statement a call; `textbook` is SQLAlchemy's ORM with a session a call. None of them checks, retries "
        "or bounds anything."
    )
    report.write(rows, ROOT / "benchmarks", about)
    results = ROOT / "var" / "benchmark.json"
    results.write_text(json.dumps([row.as_json() for row in rows], indent=1))
    print(report.table(rows))
    print(f"written to benchmarks/RESULTS.md and {results.relative_to(ROOT)}")


main()
