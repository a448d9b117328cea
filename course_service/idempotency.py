"""Writes that are safe to retry: done once per request_id, with what they returned kept in the same transaction."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Generic, Protocol, TypeVar

from course_service import call
from course_service.course import Course
from course_service.errors import RequestIdReused
from course_service.store.database import Database, Repositories
from course_service.store.idempotency_records import IdempotencyRecord, RecordKey

RETENTION = timedelta(hours=24)
"""How long an idempotency record is kept."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Result(Generic[_T]):
    """What a kind of write returns, as the courses of an idempotency record, and back."""

    to_courses: Callable[[_T], Sequence[Course]]
    from_courses: Callable[[list[Course]], _T]


ONE_COURSE: Result[Course] = Result(lambda course: [course], lambda courses: courses[0])
ONE_COURSE_OR_NONE: Result[Course | None] = Result(
    lambda course: [course] if course else [], lambda courses: courses[0] if courses else None
)
SEVERAL_COURSES: Result[list[Course]] = Result(lambda courses: courses, lambda courses: courses)


class _Write(Protocol):
    @property
    def request_id(self) -> str: ...
    @property
    def validate_only(self) -> bool: ...
    @property
    def fingerprint(self) -> str: ...


def write_once(
    database: Database,
    method: str,
    request: _Write,
    work: Callable[[Repositories], _T],
    result: Result[_T],
    *,
    known: _T | None = None,
) -> _T:
    """Do the work of a request in one transaction: once per request_id, and not at all with validate_only.

    Raises what the work raises, and `RequestIdReused`.

    `known` is what the work will return if that is known before, as when courses are created. Such work can be retried
    even without a request_id: it finds its own courses.
    """
    this_call = call.current()
    this_call.request_id = request.request_id
    key = RecordKey(this_call.caller, method, request.request_id)

    def recorded(repositories: Repositories) -> _T:
        courses = None if known is None else result.to_courses(known)
        while not repositories.records.claim(key, request.fingerprint, datetime.now(UTC), courses):
            if record := repositories.records.find(key):  # unless it has just been purged
                return result.from_courses(_courses_of(record, request))
        done = work(repositories)
        if known is None:
            repositories.records.complete(key, result.to_courses(done))
        return done

    def tried(repositories: Repositories) -> _T:
        record = repositories.records.find(key) if request.request_id else None
        return result.from_courses(_courses_of(record, request)) if record else work(repositories)

    if request.validate_only:
        return database.try_out(tried)
    if request.request_id:
        return database.write(recorded, repeatable=True)
    return database.write(work, repeatable=known is not None)


def _courses_of(record: IdempotencyRecord, request: _Write) -> list[Course]:
    if record.fingerprint != request.fingerprint:
        raise RequestIdReused(request.request_id)
    return record.courses
