"""A long run: mixed calls of every method by many callers, while the service and its database are hurt.

At the end every acknowledged write must be there, nothing else may be, lists and filters must agree with what was
written, and the service must not have grown. The last third has faults of the database only, so that one process lives
long enough to be judged.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import random
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from course.v1 import course_pb2

from tests.faults.support.faces import Face, GrpcFace, HttpFace
from tests.faults.support.faulty import FAULTS
from tests.soak.callers import Caller
from tests.soak.checks import Check, checks_of_the_run, checks_of_what_is_stored
from tests.soak.model import Counter, Course, World
from tests.soak.report import Plan, report
from tests.soak.stage import BASES, Base, Stage, stage
from tests.soak.tally import Tally

_COUNTERS = 12
_PROGRESS_SECONDS = 10.0
_SAMPLE_SECONDS = 2.0


def run(plan: Plan, path: Path) -> bool:
    """Make a long run and write its report; returns whether every check holds."""
    tally, world = Tally(), World()
    with stage(plan.database, tally, plan.fault) as (base, the_stage):
        _say(f"{plan.database}: {plan.minutes:g} minutes, seed {plan.seed}")
        _make_counters(world, the_stage)
        callers = _callers(plan, world, tally, the_stage)
        for caller in callers:
            caller.start()
        try:
            _hurt(plan, tally, world, the_stage)
        except KeyboardInterrupt:
            _say("stopped early; what was written is checked all the same")
        except Exception as exception:
            _say(traceback.format_exc())
            world.disagree(f"the run was cut short: {exception!r}")
        tally.load_ended = tally.now
        for caller in callers:
            caller.ask_to_stop()
        for caller in callers:
            caller.join()
        _say("the load has ended; a last crash of everything, and then the checks")
        the_stage.crash_all()
        checks = [*_checks_of_what_is_stored(plan, world, the_stage, base)]
    checks += checks_of_the_run(tally, warm_up=min(300.0, plan.minutes * 6))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(report(plan, tally, checks)) + "\n")
    for check in checks:
        _say(f"{'holds ' if check.holds else 'FAILED'}  {check.what}: {check.seen}")
        for text in check.against[:5]:
            _say(f"          {' '.join(text.split())[:300]}")
    _say(f"report: {path}")
    return all(check.holds for check in checks)


def _make_counters(world: World, the_stage: Stage) -> None:
    face = GrpcFace(the_stage.grpc_address, waits_for_ready=True)
    for number in range(_COUNTERS):
        new = Course(title=f"Counter {number}", code="0")
        request = course_pb2.CreateCourseRequest(course=new, course_id=f"counter-{number}")
        world.counters.append(Counter(face.call("CreateCourse", request, 10).name))
    face.close()


def _callers(plan: Plan, world: World, tally: Tally, the_stage: Stage) -> list[Caller]:
    faces: list[Face] = [
        *(GrpcFace(the_stage.grpc_address, waits_for_ready=number % 2 == 0) for number in range(plan.callers["gRPC"])),
        *(HttpFace(the_stage.http_address) for _ in range(plan.callers["HTTP"])),
    ]
    rate = plan.rate / len(faces)
    return [Caller(number, face, world, tally, rate=rate, seed=plan.seed) for number, face in enumerate(faces)]


def _hurt(plan: Plan, tally: Tally, world: World, the_stage: Stage) -> None:
    """Do something to the service or its database every minute or so, until the time is over."""
    chance = random.Random(plan.seed)
    seconds = plan.minutes * 60
    usual_pause = min(75.0, max(12.0, seconds / 40))
    next_fault = usual_pause
    kinds: list[str] = []
    next_line = next_sample = 0.0
    while (now := tally.now) < seconds:
        if now >= next_fault and now < seconds - 10:
            if not kinds:  # every kind comes before one comes again
                kinds = [*the_stage.database_acts, *the_stage.service_acts]
                chance.shuffle(kinds)
            usable = [kind for kind in kinds if now < seconds * 2 / 3 or kind in the_stage.database_acts]
            if usable:
                kinds.remove(usable[0])
                _say(f"{_clock(now)}  {usable[0]}")
                the_stage.do(usable[0], chance)
                next_fault = tally.now + usual_pause * chance.uniform(0.8, 1.2)
            else:
                kinds = []
        if now >= next_sample:
            the_stage.sample()
            next_sample = now + _SAMPLE_SECONDS
        if now >= next_line:
            _progress(tally, world)
            next_line = now + _PROGRESS_SECONDS
        time.sleep(0.1)


def _progress(tally: Tally, world: World) -> None:
    codes = ", ".join(f"{code} {number:,}" for code, number in tally.by_code().most_common())
    memory = f"{tally.samples[-1].memory / 1e6:.0f} MB" if tally.samples else "–"
    wrong = f", {len(world.disagreements)} DISAGREEMENTS" if world.disagreements else ""
    _say(f"{_clock(tally.now)}  {tally.total:,} calls: {codes}; {len(tally.faults)} faults, {memory}{wrong}")


def _checks_of_what_is_stored(plan: Plan, world: World, the_stage: Stage, base: Base) -> Sequence[Check]:
    faces = [GrpcFace(the_stage.grpc_address, waits_for_ready=True), HttpFace(the_stage.http_address)]
    with contextlib.ExitStack() as stack:
        for face in faces:
            stack.callback(face.close)
        return list(checks_of_what_is_stored(world, faces, base, random.Random(plan.seed)))


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60:3d}:{int(seconds) % 60:02d}"


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> int:
    """Run by the arguments; returns the exit code, 0 only if every check holds."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--database", choices=BASES, default="postgresql")
    parser.add_argument("--report", type=Path, default=Path("var/soak.md"))
    parser.add_argument("--rate", type=float, default=100.0, help="calls a second of all callers together")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--fault", choices=FAULTS, help="run the service with one of its promises broken: a control")
    arguments = parser.parse_args()
    logging.disable(logging.INFO)  # what libraries say of every call
    plan = Plan(
        database=arguments.database,
        minutes=arguments.minutes,
        rate=arguments.rate,
        callers={"gRPC": 12, "HTTP": 4},
        seed=arguments.seed,
        fault=arguments.fault,
    )
    return 0 if run(plan, arguments.report) else 1


if __name__ == "__main__":
    sys.exit(main())
