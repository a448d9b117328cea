"""The use cases, one function and one transaction each; gRPC and HTTP both call these.

They take requests that are valid by their types (`schemas.py`) and raise the errors of `errors.py`; each can also raise
`DatabaseUnavailable` and `DeadlineExceeded`.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import uuid_utils

from course_service import call
from course_service.course import COLLECTION, Course, State
from course_service.errors import (
    CourseAlreadyExists,
    CourseNotFound,
    CoursesNotFound,
    EtagMismatch,
    RequestInvalid,
    ResponseTooLarge,
)
from course_service.filters import parse_filter
from course_service.idempotency import ONE_COURSE, ONE_COURSE_OR_NONE, RETENTION, SEVERAL_COURSES, Result, write_once
from course_service.later import finished
from course_service.paging import MAX_BYTES, page_size, parse_order_by, place_of
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
from course_service.store.courses import CourseRepository
from course_service.store.database import Database, Repositories
from course_service.store.idempotency_records import Outcome
from course_service.tokens import PageTokens
from course_service.validation import validated

_MAX_RESPONSE_BYTES = 4_000_000
_LIST_CHUNK = 200
_PURGE_BATCH = 500


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list; the token is empty on the last."""

    courses: list[Course]
    next_page_token: str


def create_course(database: Database, request: CreateCourseRequest) -> Course:
    """Create a course in state DRAFT and return it.

    Raises `CourseAlreadyExists`, `CourseIdHeldByDeletedCourse`, `ExternalIdInUse`, `RequestIdReused`.
    """
    course = _new_course(request.course, request.course_id)

    def work(repositories: Repositories) -> Course:
        repositories.courses.add(course)
        return course

    only = None if course.external_ids else course
    return write_once(database, "CreateCourse", request, work, ONE_COURSE, known=course, only=only)


def batch_create_courses(database: Database, request: BatchCreateCoursesRequest) -> list[Course]:
    """Create courses, all or none, and return them in the order of the requests.

    Raises `CoursesConflict` with every course that cannot be created, and `RequestIdReused`.
    """
    new = [_new_course(item.course, item.course_id) for item in request.requests]

    def work(repositories: Repositories) -> list[Course]:
        repositories.courses.add_all(new)
        return new

    return write_once(database, "BatchCreateCourses", request, work, SEVERAL_COURSES, known=new)


def get_course_by_id(database: Database, course_id: str) -> Course:
    """Return the course of an id, deleted or not; raises `CourseNotFound`."""
    return finished(get_course(database, course_id))


async def get_course(database: Database, course_id: str) -> Course:
    """Return what `get_course_by_id` does, and wait as the caller likes (`later.py`)."""
    course = await database.get(course_id)
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
    if sum(course.approximate_bytes for course in courses) > _MAX_RESPONSE_BYTES:
        raise ResponseTooLarge
    return courses


def list_courses(database: Database, tokens: PageTokens, request: ListCoursesRequest) -> Page:
    """Return a page of courses.

    Raises `PageSizeNegative`, `PageTokenInvalid`, `PageTokenMismatch`, `FilterInvalid`, `OrderByInvalid`.
    """
    size = page_size(request.page_size)
    orders = parse_order_by(request.order_by)
    condition = parse_filter(request.filter)
    after = tokens.read(request.page_token, request.query, orders)

    def work(courses: CourseRepository) -> Page:
        page: list[Course] = []
        room = MAX_BYTES
        place = after
        while True:
            # A chunk at a time, so that a page of large courses is not read whole only to be cut.
            wanted = min(size - len(page), _LIST_CHUNK)
            chunk = courses.page(
                condition,
                orders,
                place,
                limit=wanted + 1,
                show_deleted=request.show_deleted,
                full=request.view is View.FULL,
            )
            for course in chunk[:wanted]:
                room -= course.approximate_bytes
                if room < 0 and page:
                    return Page(page, tokens.make(request.query, place_of(page[-1], orders)))
                page.append(course)
            if len(chunk) <= wanted:
                return Page(page, "")
            if len(page) == size:
                return Page(page, tokens.make(request.query, place_of(page[-1], orders)))
            place = place_of(page[-1], orders)

    return database.read(work)


@dataclass(frozen=True, slots=True)
class Updated:
    """A course that was updated, or created because there was none."""

    course: Course
    created: bool


_UPDATED: Result[Updated] = Result(
    lambda updated: Outcome([updated.course], updated.created),
    lambda outcome: Updated(outcome.courses[0], outcome.created),
)


def update_course(database: Database, request: UpdateCourseRequest) -> Updated:
    """Change fields of a course and return it; with allow_missing, create it if there is none.

    Raises `CourseNotFound`, `EtagMismatch`, `CourseArchived`, `CourseDeleted`, `ExternalIdInUse`, `RequestIdReused`;
    with allow_missing also what `create_course` raises, and `RequestInvalid`.
    """

    def work(repositories: Repositories) -> Updated:
        while True:
            try:
                changed = _change(
                    repositories.courses, request, lambda course, now: course.updated(request.changes, now)
                )
                return Updated(changed, created=False)
            except CourseNotFound:
                if not request.allow_missing:
                    raise
            if request.etag:
                raise EtagMismatch(request.name)
            missing = _missing_course(request)
            with contextlib.suppress(CourseAlreadyExists):  # another call has just created it: now it can be changed
                repositories.courses.add(missing)
                return Updated(missing, created=True)

    return write_once(database, "UpdateCourse", request, work, _UPDATED)


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


def delete_course(database: Database, request: DeleteCourseRequest) -> Course | None:
    """Delete a course and return it; with allow_missing, None if there is none.

    Raises `CourseNotFound`, `EtagMismatch`, `RequestIdReused`.
    """

    def work(repositories: Repositories) -> Course | None:
        try:
            return _change(repositories.courses, request, lambda course, now: course.deleted(now))
        except CourseNotFound:
            if not request.allow_missing:
                raise
            return repositories.courses.get(request.course_id)

    return write_once(database, "DeleteCourse", request, work, ONE_COURSE_OR_NONE)


def undelete_course(database: Database, request: ChangeCourseRequest) -> Course:
    """Bring a deleted course back and return it.

    Raises `CourseNotFound`, `EtagMismatch`, `CourseNotDeleted`, `RequestIdReused`.
    """
    return _move(database, "UndeleteCourse", request, lambda course, now: course.undeleted(now))


def publish_course(database: Database, request: ChangeCourseRequest) -> Course:
    """Publish a course and return it.

    Raises `CourseNotFound`, `EtagMismatch`, `InvalidStateTransition`, `RequestIdReused`.
    """
    return _move(database, "PublishCourse", request, lambda course, now: course.moved_to(State.PUBLISHED, now))


def archive_course(database: Database, request: ChangeCourseRequest) -> Course:
    """Archive a course and return it.

    Raises `CourseNotFound`, `EtagMismatch`, `InvalidStateTransition`, `RequestIdReused`.
    """
    return _move(database, "ArchiveCourse", request, lambda course, now: course.moved_to(State.ARCHIVED, now))


@dataclass(frozen=True, slots=True)
class Purged:
    """How much `purge` has removed."""

    courses: int
    records: int


def purge(database: Database) -> Purged:
    """Remove courses past their purge_time and idempotency records past 24 hours, a small transaction at a time."""
    now = datetime.now(UTC)
    return Purged(
        courses=_until_none_is_left(database, lambda found: found.courses.purge(now, _PURGE_BATCH)),
        records=_until_none_is_left(database, lambda found: found.records.purge(now - RETENTION, _PURGE_BATCH)),
    )


def _until_none_is_left(database: Database, batch: Callable[[Repositories], int]) -> int:
    total = 0
    while True:
        with call.working_on(call.Call()):  # whose deadline bounds the wait for a database that has frozen
            removed = database.write(batch, repeatable=True)
        if not removed:
            return total
        total += removed


_Step = Callable[[Course, datetime], Course]


class _OnOneCourse(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def course_id(self) -> str: ...
    @property
    def etags(self) -> Collection[str]: ...


def _move(database: Database, method: str, request: ChangeCourseRequest, step: _Step) -> Course:
    def work(repositories: Repositories) -> Course:
        return _change(repositories.courses, request, step)

    return write_once(database, method, request, work, ONE_COURSE)


def _change(courses: CourseRepository, request: _OnOneCourse, step: _Step) -> Course:
    """Take a course one step further, if it is the version that the request names, and return it.

    Without an etag the course is locked from here on. With one it is not: the first to store a next version wins, and
    the other gets `EtagMismatch`.
    """
    etags = request.etags
    course = courses.get(request.course_id, lock=not etags)
    if course is None:
        raise CourseNotFound(request.name)
    if etags and course.etag not in etags:
        raise EtagMismatch(course.name)
    changed = step(course, datetime.now(UTC))
    if changed is not course:
        courses.replace(course, changed)
    return changed


def _new_course(fields: CourseCreate, course_id: str) -> Course:
    uid = str(uuid_utils.uuid7())
    now = datetime.now(UTC)
    return Course(
        uid=uid,
        course_id=course_id or uid,
        **vars(fields),
        state=State.DRAFT,
        create_time=now,
        update_time=now,
        delete_time=None,
        purge_time=None,
        state_before_delete=None,
        revision=1,
    )
