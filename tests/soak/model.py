"""What may be stored: every course that somebody has written, with what was acknowledged and what is unknown.

Each course is written by one caller at a time, so that its model is a state and at most one write of which nobody
knows whether it was done. Counters are the exception: everybody writes them, under their etags.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from course.v1 import course_pb2

Course = course_pb2.Course

SERVICE_MADE = ("uid", "create_time", "update_time", "delete_time", "purge_time", "etag")
"""The fields that only the service can set; no caller can foretell them."""


def content(course: Course) -> Course:
    """Return what a caller can foretell of a course."""
    known = Course()
    known.CopyFrom(course)
    for name in SERVICE_MADE:
        known.ClearField(name)  # type: ignore[arg-type]  # a field
    return known


@dataclass
class Entry:
    """One course."""

    course: Course | None = None
    """The newest acknowledged state; None before the create is acknowledged."""
    maybe: Course | None = None
    """The content after a write of which nobody knows whether it was done."""
    before_delete: int = Course.DRAFT
    """The state that undeleting leads to."""
    former_etag: str = ""
    batch: int = 0
    """Of entries whose create is unknown, those of one batch have one number: they exist all or none. 0: no batch."""

    @property
    def is_sure(self) -> bool:
        """Whether it is known what is stored."""
        return self.maybe is None

    @property
    def name(self) -> str:
        """The course's name; empty if the service makes it and has not said it."""
        return self.course.name if self.course else self.maybe.name if self.maybe else ""

    @property
    def title(self) -> str:
        """The title that it is stored under, if it is stored."""
        known = self.course or self.maybe
        assert known
        return known.title

    def acknowledge(self, course: Course) -> None:
        """Take a state that the service has returned."""
        if self.course and self.course.etag != course.etag:
            self.former_etag = self.course.etag
        if course.state != Course.DELETED:
            self.before_delete = course.state
        self.course, self.maybe = course, None

    def disagreement(self, stored: Course | None) -> str:
        """Say why what is stored cannot be, or nothing; what was unknown is known then."""
        if stored is None:
            return f"{self.title!r} ({self.name}): is missing, though acknowledged" if self.course else ""
        if self.course == stored:
            return ""
        if self.maybe and self._is_maybe(stored):
            self.acknowledge(stored)
            return ""
        acknowledged = f"acknowledged: {_short(self.course)}" if self.course else "nothing acknowledged"
        unknown = f"; perhaps: {_short(self.maybe)}" if self.maybe else ""
        differ = _differing(stored, self.course) if self.course else []
        return f"{self.name}: {', '.join(differ)} differ; stored: {_short(stored)}; {acknowledged}{unknown}"

    def _is_maybe(self, stored: Course) -> bool:
        assert self.maybe
        expected = content(stored)
        if not self.maybe.name:
            expected.ClearField("name")
        same_course = self.course is None or self.course.uid == stored.uid
        return same_course and expected == self.maybe


def _differing(one: Course, other: Course) -> list[str]:
    """The names of the fields that differ."""
    return [field.name for field in Course.DESCRIPTOR.fields if getattr(one, field.name) != getattr(other, field.name)]


def _short(course: Course | None) -> str:
    """The fields that soak changes, in one line."""
    if course is None:
        return "nothing"
    state = Course.State.Name(course.state)
    return f"{state} {course.title[:40]!r} {course.code!r} {dict(course.labels)} etag {course.etag}"


@dataclass
class Counter:
    """A course whose code is a number that everybody counts up, under its etag."""

    name: str
    counted: dict[int, int] = field(default_factory=dict)
    """How often each number was acknowledged."""
    unknown: int = 0

    def disagreement(self, stored: Course | None) -> str:
        """Say why what is stored cannot be, or nothing."""
        if stored is None:
            return f"{self.name}: is missing"
        value = int(stored.code)
        twice = [number for number, times in self.counted.items() if times > 1]
        if twice:
            return f"{self.name}: {len(twice)} numbers were acknowledged twice, such as {twice[0]}: updates were lost"
        if not len(self.counted) <= value <= len(self.counted) + self.unknown:
            return f"{self.name}: is {value} after {len(self.counted)} counts and {self.unknown} unknown ones"
        return ""


class World:
    """Everything that was written."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.entries: list[Entry] = []
        self.counters: list[Counter] = []
        self.answers: list[tuple[str, object, object]] = []
        """Method, request and response of some writes with a request_id."""
        self.disagreements: list[str] = []
        self._batches = 0

    def new_batch(self) -> int:
        """Return a number for the entries of a batch."""
        with self._lock:
            self._batches += 1
            return self._batches

    def add(self, entries: Iterable[Entry]) -> None:
        """Take courses that somebody has tried to create."""
        with self._lock:
            self.entries.extend(entries)

    def remember(self, method: str, request: object, response: object) -> None:
        """Take a write that is to be answered the same for 24 hours."""
        with self._lock:
            self.answers.append((method, request, response))

    def count(self, counter: Counter, number: int | None) -> None:
        """Take a number that was acknowledged, or an update of unknown outcome."""
        with self._lock:
            if number is None:
                counter.unknown += 1
            else:
                counter.counted[number] = counter.counted.get(number, 0) + 1

    def disagree(self, text: str) -> None:
        """Take something that should not be."""
        if text:
            with self._lock:
                self.disagreements.append(text)


def lost_or_invented(world: World, stored: Sequence[Course]) -> tuple[list[str], list[str]]:
    """Compare all that is stored with all that may be: what is lost or wrong, and what nobody can have created."""
    by_name = {course.name: course for course in stored}
    by_title: dict[str, list[Course]] = {}
    for course in stored:
        by_title.setdefault(course.title, []).append(course)
    explained: set[str] = set()
    lost = [f"{len(stored) - len(by_name)} names come twice in the list"] * (len(stored) != len(by_name))
    batches: dict[int, set[bool]] = {}
    for entry in world.entries:
        if entry.name:
            found = by_name.get(entry.name)
        else:
            same_title = by_title.get(entry.title, [])
            found = same_title[0] if same_title else None
        if entry.batch and entry.course is None:
            batches.setdefault(entry.batch, set()).add(found is not None)
        lost += filter(None, [entry.disagreement(found)])
        explained |= {found.name} if found else set()
    for counter in world.counters:
        lost += filter(None, [counter.disagreement(by_name.get(counter.name))])
        explained.add(counter.name)
    lost += [f"batch {number} is stored in part" for number, presences in batches.items() if len(presences) > 1]
    invented = [f"{course.name}: {_short(course)}" for course in stored if course.name not in explained]
    return lost, invented
