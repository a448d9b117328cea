"""The use cases, one function and one transaction each; gRPC and HTTP both call these.

They take requests that are valid by their types (`schemas.py`) and raise the errors of `errors.py`; each can also raise
`DatabaseUnavailable`. `caller` is who asks, as far as that is known: request ids are each caller's own.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import uuid_utils.compat

from course_service.course import COLLECTION, Course, State
from course_service.errors import (
    CourseAlreadyExists,
    CourseError,
    CourseNotFound,
    CoursesNotFound,
    EtagMismatch,
    RequestInvalid,
    ResponseTooLarge,
    Violation,
)
from course_service.filters import parse_filter
from course_service.idempotency import ANSWERS_KEPT, write_once
from course_service.paging import MAX_BYTES, PageTokens, page_size, parse_order_by
from course_service.schemas import (
    BatchCreateCoursesRequest,
    BatchGetCoursesRequest,
    ChangeCourseRequest,
    CourseCreate,
    CreateCourseRequest,
    DeleteCourseRequest,
    ListCoursesRequest,
    UpdateCourseRequest,
    View,
)
from course_service.store.database import Database
from course_service.store.repository import CourseRepository
from course_service.violations import validated

ANONYMOUS = "anonymous"

_MAX_ANSWER_BYTES = 4_000_000
_LIST_CHUNK = 200
_PURGE_BATCH = 500


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list; the token is empty on the last."""

    courses: list[Course]
    next_page_token: str


def create_course(database: Database, request: CreateCourseRequest, caller: str = ANONYMOUS) -> Course:
    """Create a course in state DRAFT and return it.

    Raises `CourseAlreadyExists`, `CourseIdHeldByDeletedCourse`, `ExternalIdInUse`, `RequestIdReused`.
    """
    course = _new_course(request.course, request.course_id)

    def work(courses: CourseRepository) -> list[Course]:
        (problem,) = courses.add([course])
        if problem:
            raise problem
        return [course]

    return write_once(database, caller, "CreateCourse", request, work, answer=[course])[0]


def batch_create_courses(
    database: Database, request: BatchCreateCoursesRequest, caller: str = ANONYMOUS
) -> list[Course]:
    """Create courses, all or none, and return them in the order of the requests.

    Raises what `create_course` raises for the first course that cannot be created, with a violation for each.
    """
    new = [_new_course(item.course, item.course_id) for item in request.requests]

    def work(courses: CourseRepository) -> list[Course]:
        problems = {index: problem for index, problem in enumerate(courses.add(new)) if problem}
        if problems:
            first = next(iter(problems.values()))
            first.violations = [_batch_violation(index, problem) for index, problem in problems.items()]
            first.metadata = {**first.metadata, "violationCount": str(len(problems))}
            raise first
        return new

    return write_once(database, caller, "BatchCreateCourses", request, work, answer=new)


def get_course_by_id(database: Database, course_id: str) -> Course:
    """Return the course of an id, deleted or not; raises `CourseNotFound`."""
    course = database.read(lambda courses: courses.get(course_id))
    if course is None:
        raise CourseNotFound(COLLECTION + course_id)
    return course


def batch_get_courses(database: Database, request: BatchGetCoursesRequest) -> list[Course]:
    """Return the courses of several names, in their order; raises `CoursesNotFound`, `ResponseTooLarge`."""
    ids = [name.removeprefix(COLLECTION) for name in request.names]
    found = database.read(lambda courses: courses.get_many(set(ids), full=request.view is View.FULL))
    missing = [index for index, course_id in enumerate(ids) if course_id not in found]
    if missing:
        raise CoursesNotFound(request.names, missing)
    courses = [found[course_id] for course_id in ids]
    if sum(course.approximate_bytes for course in courses) > _MAX_ANSWER_BYTES:
        raise ResponseTooLarge
    return courses


def list_courses(database: Database, tokens: PageTokens, request: ListCoursesRequest) -> Page:
    """Return a page of courses.

    Raises `PageSizeNegative`, `PageTokenInvalid`, `PageTokenMismatch`, `FilterInvalid`, `OrderByInvalid`.
    """
    size = page_size(request.page_size)
    orders = parse_order_by(request.order_by)
    condition = parse_filter(request.filter)
    start = tokens.read(request, orders)

    def work(courses: CourseRepository) -> Page:
        page: list[Course] = []
        room = MAX_BYTES
        after = start
        while True:
            # A chunk at a time, so that a page of large courses is not read whole only to be cut.
            wanted = min(size - len(page), _LIST_CHUNK)
            chunk = courses.page(
                condition,
                orders,
                after,
                limit=wanted + 1,
                show_deleted=request.show_deleted,
                full=request.view is View.FULL,
            )
            for course in chunk[:wanted]:
                room -= course.approximate_bytes
                if room < 0 and page:
                    return Page(page, tokens.make(request, orders, page[-1]))
                page.append(course)
            if len(chunk) <= wanted:
                return Page(page, "")
            if len(page) == size:
                return Page(page, tokens.make(request, orders, page[-1]))
            after = tuple(getattr(page[-1], order.field) for order in orders)

    return database.read(work)


def update_course(database: Database, request: UpdateCourseRequest, caller: str = ANONYMOUS) -> Course:
    """Change fields of a course and return it.

    Raises `CourseNotFound`, `EtagMismatch`, `CourseArchived`, `CourseDeleted`, `ExternalIdInUse`, `RequestIdReused`;
    with allow_missing also what `create_course` raises, and `RequestInvalid`.
    """

    def work(courses: CourseRepository) -> list[Course]:
        while True:
            try:
                return _change(courses, request, lambda course, now: course.updated(request.changes, now))
            except CourseNotFound:
                if not request.allow_missing:
                    raise
            if request.etag:
                raise EtagMismatch(request.name)
            course = _missing_course(request)
            (problem,) = courses.add([course])
            if problem is None:
                return [course]
            if not isinstance(problem, CourseAlreadyExists):  # somebody has just created it: now it can be changed
                raise problem

    return write_once(database, caller, "UpdateCourse", request, work)[0]


def _missing_course(request: UpdateCourseRequest) -> Course:
    fields = request.course.model_dump(exclude_unset=True, exclude={"etag"})
    try:
        new = validated(CreateCourseRequest, {"course": fields, "course_id": request.course_id})
    except RequestInvalid as error:
        # An update has the id in the course's name.
        raise RequestInvalid(
            [
                dataclasses.replace(violation, field="course.name") if violation.field == "course_id" else violation
                for violation in error.violations
            ]
        ) from None
    return _new_course(new.course, new.course_id)


def delete_course(database: Database, request: DeleteCourseRequest, caller: str = ANONYMOUS) -> Course | None:
    """Delete a course and return it; with allow_missing, None if there is none.

    Raises `CourseNotFound`, `EtagMismatch`, `RequestIdReused`.
    """

    def work(courses: CourseRepository) -> list[Course]:
        try:
            return _change(courses, request, lambda course, now: course.deleted(now))
        except CourseNotFound:
            if not request.allow_missing:
                raise
            deleted = courses.get(request.course_id)
            return [deleted] if deleted else []

    return next(iter(write_once(database, caller, "DeleteCourse", request, work)), None)


def undelete_course(database: Database, request: ChangeCourseRequest, caller: str = ANONYMOUS) -> Course:
    """Bring a deleted course back and return it.

    Raises `CourseNotFound`, `EtagMismatch`, `CourseNotDeleted`, `RequestIdReused`.
    """
    return _move(database, "UndeleteCourse", request, caller, lambda course, now: course.undeleted(now))


def publish_course(database: Database, request: ChangeCourseRequest, caller: str = ANONYMOUS) -> Course:
    """Publish a course and return it.

    Raises `CourseNotFound`, `EtagMismatch`, `InvalidStateTransition`, `RequestIdReused`.
    """
    return _move(database, "PublishCourse", request, caller, lambda course, now: course.moved_to(State.PUBLISHED, now))


def archive_course(database: Database, request: ChangeCourseRequest, caller: str = ANONYMOUS) -> Course:
    """Archive a course and return it.

    Raises `CourseNotFound`, `EtagMismatch`, `InvalidStateTransition`, `RequestIdReused`.
    """
    return _move(database, "ArchiveCourse", request, caller, lambda course, now: course.moved_to(State.ARCHIVED, now))


@dataclass(frozen=True, slots=True)
class Purged:
    """How much `purge` has removed."""

    courses: int
    answers: int


def purge(database: Database) -> Purged:
    """Remove courses past their purge_time and answers past 24 hours, a small transaction at a time."""
    now = datetime.now(UTC)
    return Purged(
        courses=_until_none_is_left(database, lambda courses: courses.purge_courses(now, _PURGE_BATCH)),
        answers=_until_none_is_left(database, lambda courses: courses.purge_answers(now - ANSWERS_KEPT, _PURGE_BATCH)),
    )


def _until_none_is_left(database: Database, batch: Callable[[CourseRepository], int]) -> int:
    total = 0
    while removed := database.write(batch, repeatable=True):
        total += removed
    return total


_Step = Callable[[Course, datetime], Course]


class _OnOneCourse(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def course_id(self) -> str: ...
    @property
    def etag(self) -> str: ...


def _move(database: Database, method: str, request: ChangeCourseRequest, caller: str, step: _Step) -> Course:
    return write_once(database, caller, method, request, lambda courses: _change(courses, request, step))[0]


def _change(courses: CourseRepository, request: _OnOneCourse, step: _Step) -> list[Course]:
    """Take a course one step further, if it is the version that the request says.

    Without an etag the course is locked from here on. With one it is not: whoever is first to store a next version
    wins, and the other learns of it.
    """
    etag = "" if request.etag == "*" else request.etag  # "*" asks for any version
    course = courses.get(request.course_id, lock=not etag)
    if course is None:
        raise CourseNotFound(request.name)
    if etag and etag != course.etag:
        raise EtagMismatch(course.name)
    changed = step(course, datetime.now(UTC))
    if changed is not course:
        courses.replace(course, changed)
    return [changed]


def _new_course(fields: CourseCreate, course_id: str) -> Course:
    uid = str(uuid_utils.compat.uuid7())
    now = datetime.now(UTC)
    return Course(
        uid=uid,
        course_id=course_id or uid,
        **dict(fields),
        state=State.DRAFT,
        create_time=now,
        update_time=now,
        delete_time=None,
        purge_time=None,
        state_before_delete=None,
        revision=1,
    )


def _batch_violation(index: int, problem: CourseError) -> Violation:
    field = problem.violations[0].field if problem.violations else "course_id"
    return Violation(f"requests[{index}].{field}", problem.reason, problem.message)
