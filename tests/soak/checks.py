"""What must hold at the end of a run."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from course.v1 import course_pb2

from tests.faults.support.faces import Face, Failed
from tests.soak.lists import FILTERS, ORDERS, in_order
from tests.soak.model import Course, World, lost_or_invented
from tests.soak.stage import Base
from tests.soak.tally import Tally, trend

RECOVERY_SECONDS = 2.0
MEMORY_GROWTH = 0.05
JUDGED_SECONDS = 480.0
"""How long a process must have lived, its warm-up left out, for its growth to say anything."""
_SECONDS = 30.0


@dataclass(frozen=True)
class Check:
    """Something that must hold, what was seen of it, and what spoke against it."""

    what: str
    seen: str
    against: Sequence[str] = ()

    @property
    def holds(self) -> bool:
        """Whether nothing spoke against it."""
        return not self.against


def _ask(face: Face, method: str, request: Any) -> Any:
    """Make a call, and make it again if the machine is too busy for it."""
    until = time.monotonic() + 2 * _SECONDS
    while True:
        try:
            return face.call(method, request, _SECONDS)
        except Failed as failed:
            if not failed.is_passing or time.monotonic() > until:
                raise
        time.sleep(0.2)


def all_courses(face: Face, **fields: Any) -> list[Course]:
    """Walk a whole list."""
    request = course_pb2.ListCoursesRequest(**fields)
    found: list[Course] = []
    while True:
        page = _ask(face, "ListCourses", request)
        found += page.courses
        request.page_token = page.next_page_token
        if not request.page_token:
            return found


def checks_of_what_is_stored(world: World, faces: Sequence[Face], base: Base, chance: random.Random) -> Iterator[Check]:
    """Compare what is stored, in the service's answers, with the model; nobody may be calling."""
    grpc = faces[0]
    full = course_pb2.COURSE_VIEW_FULL
    stored = all_courses(grpc, page_size=331, show_deleted=True, view=full)
    unknown = sum(not entry.is_sure for entry in world.entries)
    lost, invented = lost_or_invented(world, stored)
    of_all = f"{len(stored):,} courses stored, {len(world.entries):,} creates sent, {unknown} outcomes were unknown"
    yield Check("every acknowledged write is there", of_all, lost)
    yield Check("nothing else is there", of_all, invented)
    counted = sum(len(counter.counted) for counter in world.counters)
    counts = [text for counter in world.counters if (text := counter.disagreement(_named(stored, counter.name)))]
    yield Check("no update under an etag is lost", f"{counted:,} counts in {len(world.counters)} courses", counts)
    yield Check("what callers saw was what they had been told", "every response of the run", world.disagreements)
    yield _lists(faces, stored, chance)
    yield _filters(faces, stored)
    yield _gets(faces, stored, chance)
    yield _answers(faces, world, chance)
    yield Check("the database finds no fault in itself", "integrity, and nothing twice", base.problems())


def _named(stored: Sequence[Course], name: str) -> Course | None:
    return next((course for course in stored if course.name == name), None)


def _titles(courses: Sequence[Course]) -> list[str]:
    return [course.title for course in courses]


def _lists(faces: Sequence[Face], stored: Sequence[Course], chance: random.Random) -> Check:
    """Every order, by pages of odd sizes, with and without deleted courses."""
    against = []
    walks = 0
    for order_by in ORDERS:
        for show_deleted in (True, False):
            face = faces[walks % len(faces)]
            size = chance.choice((97, 211, 499, 997, 1000))
            walks += 1
            shown = [course for course in stored if show_deleted or course.state != Course.DELETED]
            found = all_courses(face, page_size=size, order_by=order_by, show_deleted=show_deleted)
            if _names(found) != _names(in_order(shown, order_by)):
                against.append(
                    f"order {order_by!r}, pages of {size}, deleted {show_deleted}: {len(found)} of {len(shown)}"
                    f" courses, or in another order: {_first_difference(found, in_order(shown, order_by))}"
                )
    return Check("lists agree in every order", f"{walks} walks of {len(stored):,} courses", against)


def _names(courses: Sequence[Course]) -> list[str]:
    return [course.name for course in courses]


def _first_difference(found: Sequence[Course], expected: Sequence[Course]) -> str:
    for place, (a, b) in enumerate(zip(found, expected, strict=False)):
        if a.name != b.name:
            return f"at {place} {a.name}, not {b.name}"
    return "one ends early"


def _filters(faces: Sequence[Face], stored: Sequence[Course]) -> Check:
    against = []
    matches = 0
    for number, (text, is_meant) in enumerate(FILTERS.items()):
        face = faces[number % len(faces)]
        found = all_courses(face, page_size=173, filter=text, show_deleted=True)
        expected = in_order(filter(is_meant, stored), "")
        matches += len(expected)
        if _names(found) != _names(expected):
            against.append(f"{text}: {len(found)} courses, not {len(expected)}: {_first_difference(found, expected)}")
    return Check("filters agree", f"{len(FILTERS)} filters, {matches:,} courses found", against)


def _gets(faces: Sequence[Face], stored: Sequence[Course], chance: random.Random) -> Check:
    sample = chance.sample(stored, min(200, len(stored)))
    against = []
    for face in faces:
        for place in range(0, len(sample), 50):
            some = sample[place : place + 50]
            request = course_pb2.BatchGetCoursesRequest(names=_names(some))
            if list(_ask(face, "BatchGetCourses", request).courses) != some:
                against.append(f"BatchGetCourses by {face.name} disagrees with the list: {_titles(some)}")
        against += [
            f"GetCourse by {face.name} disagrees with the list: {course.name}"
            for course in sample[:50]
            if _ask(face, "GetCourse", course_pb2.GetCourseRequest(name=course.name)) != course
        ]
    return Check("single courses agree on both faces", f"{len(sample)} courses", against)


def _answers(faces: Sequence[Face], world: World, chance: random.Random) -> Check:
    """Writes sent again after all that has happened are answered as they were."""
    sample = chance.sample(world.answers, min(500, len(world.answers)))
    against = []
    for number, (method, request, answer) in enumerate(sample):
        face = faces[number % len(faces)]
        try:
            again: object = _ask(face, method, request)
        except Failed as failed:
            again = failed
        if again != answer:
            against.append(f"{method} by {face.name}: {again}, not {answer}")
    return Check("one request_id has one answer", f"{len(sample)} writes sent again", against)


def checks_of_the_run(tally: Tally, warm_up: float) -> Iterator[Check]:
    """What must hold of the service's behaviour."""
    late = [
        f"{fault.kind} at {fault.start:.0f} s: {'never' if fault.recovery is None else f'{fault.recovery:.2f} s'}"
        for fault in tally.faults
        if fault.recovery is None or fault.recovery > RECOVERY_SECONDS
    ]
    recoveries = [fault.recovery for fault in tally.faults if fault.recovery is not None]
    slowest = f"{len(tally.faults)} faults, the slowest {max(recoveries, default=0.0):.2f} s"
    yield Check(f"reads and writes succeed within {RECOVERY_SECONDS:g} s of the end of a fault", slowest, late)
    yield Check("no error in the service's log, and exit code 0 after SIGTERM", "every line", tally.errors_in_log)
    seen = trend(tally.samples, warm_up)
    if seen is None:
        yield Check("memory, threads and descriptors are flat", "not judged: the run is too short")
        return
    is_judged = seen.end - seen.begin >= JUDGED_SECONDS
    stretch = f"from {seen.begin / 60:.1f} to {seen.end / 60:.1f} min, one process"
    if not is_judged:
        stretch += "; too short to be judged"

    def flat(what: str, unit: float, ends: tuple[float, float], allowed: float, form: Callable[[float], str]) -> Check:
        first, last = ends
        text = f"{form(first / unit)} → {form(last / unit)}, {stretch}"
        grew = last - first
        return Check(f"{what} flat", text, [f"grew by {form(grew / unit)}"] if is_judged and grew > allowed else [])

    growth = MEMORY_GROWTH * seen.memory[0]
    yield flat(f"memory is (+ at most {MEMORY_GROWTH:.0%})", 1e6, seen.memory, growth, lambda n: f"{n:.1f} MB")
    yield flat("threads are (+ at most 2)", 1, seen.threads, 2, lambda n: f"{n:.0f}")
    yield flat("descriptors are (+ at most 3)", 1, seen.descriptors, 3, lambda n: f"{n:.0f}")
