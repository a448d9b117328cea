"""Callers: each makes one call after the other, of every method, and knows what the service has to say to it."""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from course.v1 import course_pb2
from google.protobuf.field_mask_pb2 import FieldMask

from tests.faults.support.faces import OK, Face, Failed
from tests.soak.lists import ORDERS, in_order
from tests.soak.model import Counter, Course, Entry, World, content
from tests.soak.tally import Tally

_WORKING_SET = 30
_SET_SIZE = 20
"""How many courses that a caller creates after each other have the same label, by which it lists them."""
_WORDS = (
    "Algebra",
    "biology",
    "Çeviri",
    "Dynamics",
    "éthique",
    "Физика",
    "geometry",
    "歴史",
    "Ökologie",
    "🧪 lab",
    "x_%",
)
_CODES = ("", "BIO 1", "CS 101", "CS 102", "MATH_7", "Ω 9")
_LANGUAGES = ("", "en", "pt-BR", "de", "zh-Hant")
_SUBJECTS = ("biology", "chemistry", "history", "law", "music")
_STATE_METHODS = {
    "PublishCourse": (
        {Course.DRAFT, Course.ARCHIVED},
        Course.PUBLISHED,
        "FAILED_PRECONDITION INVALID_STATE_TRANSITION",
    ),
    "ArchiveCourse": ({Course.PUBLISHED}, Course.ARCHIVED, "FAILED_PRECONDITION INVALID_STATE_TRANSITION"),
    "DeleteCourse": (
        {Course.DRAFT, Course.PUBLISHED, Course.ARCHIVED},
        Course.DELETED,
        "NOT_FOUND COURSE_NOT_FOUND",
    ),
    "UndeleteCourse": ({Course.DELETED}, None, "ALREADY_EXISTS COURSE_NOT_DELETED"),
}


class Caller:
    """Calls by one face, from a thread of its own, about `rate` times a second."""

    def __init__(self, number: int, face: Face, world: World, tally: Tally, *, rate: float, seed: int) -> None:
        self._id = f"c{number}"
        self._face = face
        self._world = world
        self._tally = tally
        self._rate = rate
        self._chance = random.Random(f"{seed} {number}")
        self._created = 0
        self._entries: list[Entry] = []
        """All courses of this caller, in the order of their creation."""
        self._sets: dict[str, list[Entry]] = {}
        """The same by their label."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=self._id, daemon=True)

    def start(self) -> None:
        """Begin to call."""
        self._thread.start()

    def ask_to_stop(self) -> None:
        """Make the call under way the last."""
        self._stop.set()

    def join(self) -> None:
        """Wait for the last call."""
        self._thread.join(timeout=60)
        if self._thread.is_alive():
            self._world.disagree(f"{self._id}: a call does not end")
        self._face.close()

    def _run(self) -> None:
        actions: dict[Callable[[], None], int] = {
            self._get: 30,
            self._get_another: 6,
            self._batch_get: 6,
            self._walk: 3,
            self._list: 5,
            self._update: 18,
            self._change_state: 16,
            self._create: 7,
            self._create_at_once: 1,
            self._batch_create: 1,
            self._count: 5,
            self._try_out: 3,
            self._break_rules: 7,
            self._repeat: 3,
        }
        names, weights = list(actions), list(actions.values())
        while not self._stop.wait(self._chance.expovariate(self._rate)):
            try:
                self._chance.choices(names, weights)[0]()
            except Exception as exception:  # it would be a mistake of soak's own, and must not pass unseen
                self._world.disagree(f"{self._id}: {exception!r}")
                raise

    # Calls.

    def _call(self, method: str, request: Any) -> Any:
        """Make one call."""
        started = self._tally.now
        try:
            response = self._face.call(method, request, self._chance.choice((1.0, 2.0, 5.0, 15.0)))
        except Failed as failed:
            self._took(method, failed, started)
            raise
        self._tally.called(method, self._face.name, OK, "", started)
        return response

    def _took(self, method: str, failed: Failed, started: float) -> None:
        self._tally.called(method, self._face.name, failed.code, failed.reason, started)
        if failed.code in {"INTERNAL", "UNKNOWN"}:
            self._world.disagree(f"{method} by {self._face.name}: {failed}")

    def _persistent_call(self, method: str, request: Any) -> Any:
        """Make a call that is safe to retry, and retry it for half a minute."""
        until = self._tally.now + 30
        pause = 0.05
        unknown: Failed | None = None
        while True:
            try:
                return self._call(method, request)
            except Failed as failed:
                if failed.may_be_done:
                    unknown = failed
                if not failed.is_passing:
                    raise
                if self._tally.now > until:
                    raise (unknown or failed) from None  # that the last try was refused says nothing of the others
            time.sleep(pause * self._chance.uniform(0.5, 1.0))
            pause = min(1.0, pause * 2)

    def _write(self, method: str, request: Any) -> Any:
        """Make a write: half of them once and as it comes, half with a request_id and retries."""
        if self._chance.random() < 0.5:
            return self._call(method, request)
        request.request_id = str(uuid.UUID(int=self._chance.getrandbits(128), version=4))
        response = self._persistent_call(method, request)
        if self._chance.random() < 0.1:
            self._world.remember(method, request, response)
        return response

    def _expect(self, expected: str, method: str, request: Any, *, call: Callable[[str, Any], Any]) -> None:
        """Make a call that must end so, whatever the fault may be: passing failures are never wrong."""
        try:
            call(method, request)
            ended = OK
        except Failed as failed:
            if failed.is_passing:
                return
            ended = str(failed)
        if ended != expected:
            self._world.disagree(f"{method} by {self._face.name} ended in {ended}, not {expected}: {request}")

    def _change(self, method: str, request: Any, entry: Entry, expected: Course) -> None:
        """Make a write of a course of this caller, which must make of it what is expected."""
        try:
            changed = self._write(method, request)
        except Failed as failed:
            if failed.may_be_done:
                entry.maybe = expected
            elif not failed.is_passing:
                self._world.disagree(f"{method} by {self._face.name} of {entry.name} ended in {failed}")
            return
        foretold = content(changed)
        if not expected.name:
            foretold.ClearField("name")
        if foretold != expected:
            self._world.disagree(f"{method} by {self._face.name} returned {changed}, not {expected}")
        entry.acknowledge(changed)

    # What to write.

    def _new_course(self) -> Course:
        self._created += 1
        chance = self._chance
        course = Course(
            title=f"{chance.choice(_WORDS)} {self._id}-{self._created}",
            code=chance.choice(_CODES),
            description="word " * chance.choice((0, 0, 5, 50, 400)),
            owner=chance.choice(("", f"users/{self._id}")),
            language_code=chance.choice(_LANGUAGES),
            subjects=chance.sample(_SUBJECTS, chance.randrange(4)),
            labels={"set": self._set(), "level": str(chance.randrange(4))},
        )
        if chance.random() < 0.3:
            course.external_ids["soak"] = f"{self._id}-{self._created}"
        return course

    def _set(self) -> str:
        return f"{self._id}-{self._created // _SET_SIZE}"

    def _new_entry(self, course: Course, course_id: str) -> Entry:
        expected = Course(state=Course.DRAFT)
        expected.MergeFrom(course)
        expected.name = f"courses/{course_id}" if course_id else ""
        entry = Entry(maybe=expected)
        self._entries.append(entry)
        self._sets.setdefault(course.labels["set"], []).append(entry)
        self._world.add([entry])
        return entry

    def _course_id(self) -> str:
        return f"{self._id}-{self._created}" if self._chance.random() < 0.6 else ""

    def _create(self) -> None:
        course, course_id = self._new_course(), self._course_id()
        entry = self._new_entry(course, course_id)
        assert entry.maybe
        request: Any = course_pb2.CreateCourseRequest(course=course, course_id=course_id)
        method = "CreateCourse"
        if course_id and self._chance.random() < 0.2:
            course.name = f"courses/{course_id}"
            method, request = "UpdateCourse", course_pb2.UpdateCourseRequest(course=course, allow_missing=True)
        self._change(method, request, entry, entry.maybe)

    def _create_at_once(self) -> None:
        """Send one create several times at once, under one request_id: one answer."""
        course = self._new_course()
        request = course_pb2.CreateCourseRequest(course=course, request_id=str(uuid.uuid4()))
        entry = self._new_entry(course, "")
        started = self._tally.now
        answers = self._face.call_at_once("CreateCourse", request, 3, 5.0)
        for answer in answers:
            if isinstance(answer, Failed):
                self._took("CreateCourse", answer, started)
                if not answer.is_passing:
                    self._world.disagree(f"CreateCourse three times at once ended in {answer}")
            else:
                self._tally.called("CreateCourse", self._face.name, OK, "", started)
        courses = [answer for answer in answers if not isinstance(answer, Failed)]
        if any(course != courses[0] for course in courses):
            self._world.disagree(f"one request_id has several answers: {courses}")
        if courses:
            entry.acknowledge(courses[0])
            self._world.remember("CreateCourse", request, courses[0])

    def _batch_create(self) -> None:
        requests = []
        for _ in range(self._chance.randint(1, 5)):
            course = self._new_course()
            requests.append(course_pb2.CreateCourseRequest(course=course, course_id=self._course_id()))
        entries = [self._new_entry(request.course, request.course_id) for request in requests]
        batch = self._world.new_batch()
        for entry in entries:
            entry.batch = batch
        try:
            response = self._write("BatchCreateCourses", course_pb2.BatchCreateCoursesRequest(requests=requests))
        except Failed as failed:
            if not failed.is_passing:
                self._world.disagree(f"BatchCreateCourses by {self._face.name} ended in {failed}")
            return
        for entry, course in zip(entries, response.courses, strict=True):
            entry.acknowledge(course)

    def _own(self) -> Entry | None:
        """A course of this caller, rather a new one, of which it is known what is stored."""
        recent = self._entries[-_WORKING_SET:] if self._chance.random() < 0.8 else self._entries
        sure = [entry for entry in recent if entry.course and entry.is_sure]
        return self._chance.choice(sure) if sure else None

    def _update(self) -> None:
        entry = self._own()
        if not entry:
            return
        assert entry.course
        chance = self._chance
        values = Course(
            title=f"{chance.choice(_WORDS)} {_number(entry.title)}",
            code=chance.choice(_CODES),
            description="words " * chance.choice((0, 3, 100)),
            subjects=chance.sample(_SUBJECTS, chance.randrange(4)),
            language_code=chance.choice(_LANGUAGES),
        )
        fields = ("title", "code", "description", "subjects", "language_code")
        paths = chance.sample(fields, chance.randint(1, 3))
        for field in set(fields) - set(paths):
            values.ClearField(field)  # type: ignore[arg-type]  # one of these fields
        expected = content(entry.course)
        for field in paths:
            expected.ClearField(field)  # type: ignore[arg-type]  # one of these fields
        expected.MergeFrom(values)
        values.name = entry.name
        request = course_pb2.UpdateCourseRequest(course=values, update_mask=FieldMask(paths=paths))
        if entry.course.state in {Course.ARCHIVED, Course.DELETED}:
            reason = f"COURSE_{Course.State.Name(entry.course.state)}"
            self._expect(f"FAILED_PRECONDITION {reason}", "UpdateCourse", request, call=self._call)
        elif entry.former_etag and chance.random() < 0.1:
            request.course.etag = entry.former_etag
            self._expect("ABORTED ETAG_MISMATCH", "UpdateCourse", request, call=self._call)
        else:
            if chance.random() < 0.5:
                request.course.etag = entry.course.etag
            self._change("UpdateCourse", request, entry, expected)

    def _change_state(self) -> None:
        entry = self._own()
        if not entry:
            return
        assert entry.course
        possible = [name for name, (origins, _, _) in _STATE_METHODS.items() if entry.course.state in origins]
        method = self._chance.choice(possible if self._chance.random() < 0.9 else list(_STATE_METHODS))
        origins, target, refusal = _STATE_METHODS[method]
        request = getattr(course_pb2, f"{method}Request")(name=entry.name)
        if entry.course.state not in origins:
            self._expect(refusal, method, request, call=self._call)
            return
        if entry.former_etag and self._chance.random() < 0.1:
            request.etag = entry.former_etag
            self._expect("ABORTED ETAG_MISMATCH", method, request, call=self._call)
            return
        if self._chance.random() < 0.3:
            request.etag = entry.course.etag
        expected = content(entry.course)
        expected.state = entry.before_delete if target is None else target  # type: ignore[assignment]  # a state
        self._change(method, request, entry, expected)

    def _count(self) -> None:
        """Count a course up that everybody counts up."""
        counter: Counter = self._chance.choice(self._world.counters)
        try:
            course = self._call("GetCourse", course_pb2.GetCourseRequest(name=counter.name))
        except Failed:
            return
        number = int(course.code) + 1
        changed = Course(name=counter.name, code=str(number), etag=course.etag)
        try:
            self._write("UpdateCourse", course_pb2.UpdateCourseRequest(course=changed))
        except Failed as failed:
            if failed.may_be_done:
                self._world.count(counter, None)
            elif not failed.is_passing and failed.reason != "ETAG_MISMATCH":
                self._world.disagree(f"counting {counter.name} up ended in {failed}")
            return
        self._world.count(counter, number)

    def _try_out(self) -> None:
        """Try out a create: nothing is stored, which the end of the run shows."""
        course = self._new_course()
        course.title = f"never {course.title}"
        request = course_pb2.CreateCourseRequest(course=course, validate_only=True)
        self._expect(OK, "CreateCourse", request, call=self._call)

    def _repeat(self) -> None:
        """Send a write again that was answered long ago: the same answer."""
        if not self._world.answers:
            return
        method, request, answer = self._chance.choice(self._world.answers)
        try:
            again = self._call(method, request)
        except Failed as failed:
            if not failed.is_passing:
                self._world.disagree(f"{method} sent again ended in {failed}")
            return
        if again != answer:
            self._world.disagree(f"{method} sent again returned {again}, not {answer}")

    # What to read.

    def _get(self) -> None:
        named = [entry for entry in self._entries[-2 * _WORKING_SET :] if entry.name]
        if not named:
            return
        entry = self._chance.choice(named)
        try:
            stored = self._call("GetCourse", course_pb2.GetCourseRequest(name=entry.name))
        except Failed as failed:
            if failed.code == "NOT_FOUND":
                self._world.disagree(entry.disagreement(None))
            elif not failed.is_passing:
                self._world.disagree(f"GetCourse of {entry.name} ended in {failed}")
            return
        self._world.disagree(entry.disagreement(stored))

    def _get_another(self) -> None:
        """Get a course that another caller may be writing."""
        entry = self._chance.choice(self._world.entries) if self._world.entries else None
        if not entry or not entry.course:
            return
        try:
            stored = self._call("GetCourse", course_pb2.GetCourseRequest(name=entry.course.name))
        except Failed as failed:
            if not failed.is_passing:
                self._world.disagree(f"GetCourse of {entry.name} ended in {failed}")
            return
        if stored.uid != entry.course.uid or _number(stored.title) != _number(entry.title):
            self._world.disagree(f"GetCourse of {entry.name} returned {stored}")

    def _batch_get(self) -> None:
        entries = [entry for entry in self._entries if entry.course and entry.is_sure]
        if not entries:
            return
        entries = self._chance.choices(entries, k=self._chance.choice((1, 3, 10, 30)))
        names = [entry.name for entry in entries]
        if self._chance.random() < 0.1:
            request = course_pb2.BatchGetCoursesRequest(names=[*names, "courses/nobody-has-created-this"])
            self._expect("NOT_FOUND COURSE_NOT_FOUND", "BatchGetCourses", request, call=self._call)
            return
        try:
            response = self._call("BatchGetCourses", course_pb2.BatchGetCoursesRequest(names=names))
        except Failed as failed:
            if not failed.is_passing:
                self._world.disagree(f"BatchGetCourses ended in {failed}")
            return
        for entry, stored in zip(entries, response.courses, strict=True):
            self._world.disagree(entry.disagreement(stored))

    def _list(self) -> None:
        """List a page or two of everything, in any order."""
        order_by = self._chance.choice(ORDERS)
        request = course_pb2.ListCoursesRequest(
            order_by=order_by,
            page_size=self._chance.choice((0, 1, 7, 33, 101)),
            show_deleted=self._chance.random() < 0.5,
            filter=self._chance.choice(("", "state = PUBLISHED", 'labels.level = "2"', "biology", 'code = "CS 101"')),
        )
        try:
            pages = self._pages(request, most=2)
        except Failed as failed:
            if not failed.is_passing:
                self._world.disagree(f"ListCourses ended in {failed}: {request}")
            return
        for page in pages:
            if list(page) != in_order(page, order_by):
                self._world.disagree(f"a page is not in order: {request}")

    def _walk(self) -> None:
        """List the courses of this caller that have one label, in any order and pages of any size."""
        if not self._entries:
            return
        label = self._chance.choice(list(self._sets)[-10:])
        entries = self._sets[label]
        order_by = self._chance.choice(ORDERS)
        request = course_pb2.ListCoursesRequest(
            filter=f'labels.set = "{label}"',
            order_by=order_by,
            page_size=self._chance.randint(1, 9),
            show_deleted=self._chance.random() < 0.7,
            view=course_pb2.COURSE_VIEW_FULL,
        )
        try:
            found = [course for page in self._pages(request, most=1000) for course in page]
        except Failed as failed:
            if not failed.is_passing:
                self._world.disagree(f"ListCourses ended in {failed}: {request}")
            return
        unsure = {_number(entry.title) for entry in entries if not entry.is_sure}
        sure = [entry.course for entry in entries if entry.course and entry.is_sure]
        shown = [course for course in sure if request.show_deleted or course.state != Course.DELETED]
        expected = in_order(shown, order_by)
        if [course for course in found if _number(course.title) not in unsure] != expected:
            self._world.disagree(f"{request} returned {_titles(found)}, not {_titles(expected)} and perhaps {unsure}")

    def _pages(self, request: Any, *, most: int) -> Sequence[Sequence[Course]]:
        pages: list[Sequence[Course]] = []
        while len(pages) < most:
            page = self._persistent_call("ListCourses", request)
            pages.append(page.courses)
            request.page_token = page.next_page_token
            if not request.page_token:
                break
        request.page_token = ""
        return pages

    def _break_rules(self) -> None:
        """Make a call that breaks a rule."""
        method, request, expected = self._chance.choice(list(_broken_rules(self._chance)))
        self._expect(expected, method, request, call=self._call)


def _number(title: str) -> str:
    """The last word of a title, which stays when the course is updated."""
    return title.rpartition(" ")[2]


def _titles(courses: Sequence[Course]) -> list[str]:
    return [course.title for course in courses]


def _broken_rules(chance: random.Random) -> Iterator[tuple[str, Any, str]]:
    good = Course(title="never stored")
    invalid = "INVALID_ARGUMENT REQUEST_INVALID"
    name = "courses/nobody-has-created-this"
    yield "CreateCourse", course_pb2.CreateCourseRequest(course=Course(title=" never")), invalid
    yield "CreateCourse", course_pb2.CreateCourseRequest(course=Course(title="never \0")), invalid
    yield "CreateCourse", course_pb2.CreateCourseRequest(course=Course(title="x" * chance.choice((751, 5000)))), invalid
    yield "CreateCourse", course_pb2.CreateCourseRequest(course=good, course_id="No"), invalid
    yield "CreateCourse", course_pb2.CreateCourseRequest(course=good, request_id="no"), invalid
    batch = [course_pb2.CreateCourseRequest(course=good), course_pb2.CreateCourseRequest(course=Course())]
    yield "BatchCreateCourses", course_pb2.BatchCreateCoursesRequest(requests=batch), invalid
    yield "GetCourse", course_pb2.GetCourseRequest(name=name), "NOT_FOUND COURSE_NOT_FOUND"
    yield "PublishCourse", course_pb2.PublishCourseRequest(name=name), "NOT_FOUND COURSE_NOT_FOUND"
    yield "DeleteCourse", course_pb2.DeleteCourseRequest(name=name), "NOT_FOUND COURSE_NOT_FOUND"
    update = course_pb2.UpdateCourseRequest(course=Course(name=name, title="never stored"))
    yield "UpdateCourse", update, "NOT_FOUND COURSE_NOT_FOUND"
    for fields, reason in (
        ({"page_size": -1}, "PAGE_SIZE_NEGATIVE"),
        ({"page_token": "no"}, "PAGE_TOKEN_INVALID"),
        ({"filter": "state ="}, "FILTER_INVALID"),
        ({"order_by": "owner"}, "ORDER_BY_INVALID"),
    ):
        yield "ListCourses", course_pb2.ListCoursesRequest(**fields), f"INVALID_ARGUMENT {reason}"
