"""Writes that are safe to retry: done once per request_id, with what they returned kept in the same transaction."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Generic, Protocol, TypeVar

from course_service import call
from course_service.course import Course
from course_service.errors import RequestIdReused
from course_service.store.database import Database, Repositories
from course_service.store.idempotency_records import IdempotencyRecord, Outcome, RecordKey

RETENTION = timedelta(hours=24)
"""How long an idempotency record is kept."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Result(Generic[_T]):
    """How what a kind of write returns is kept in an idempotency record, and read back."""

    to_outcome: Callable[[_T], Outcome]
    from_outcome: Callable[[Outcome], _T]


ONE_COURSE: Result[Course] = Result(lambda course: Outcome([course]), lambda outcome: outcome.courses[0])
ONE_COURSE_OR_NONE: Result[Course | None] = Result(
    lambda course: Outcome([course] if course else []), lambda outcome: outcome.courses[0] if outcome.courses else None
)
SEVERAL_COURSES: Result[list[Course]] = Result(Outcome, lambda outcome: list(outcome.courses))


class _Write(Protocol):
    @property
    def request_id(self) -> str: ...
    @property
    def course_name(self) -> str: ...
    @property
    def validate_only(self) -> bool: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def fingerprints(self) -> Collection[str]: ...


def write_once(
    database: Database,
    method: str,
    request: _Write,
    work: Callable[[Repositories], _T],
    result: Result[_T],
    *,
    known: _T | None = None,
    only: Course | None = None,
) -> _T:
    """Do the work of a request in one transaction: once per request_id, and not at all with validate_only.

    Raises what the work raises, and `RequestIdReused`.

    `known` is the result, if it is determined before the work. Such work can be retried even without a request_id,
    because it recognises its own courses. `only` is the new course that is all that such work adds, by its first
    statement alone: so it needs no transaction of several statements, and is one round trip.
    """
    this_call = call.current()
    this_call.request_id = request.request_id
    this_call.course = request.course_name
    key = RecordKey(this_call.caller, method, request.request_id)

    def recorded(repositories: Repositories) -> _T:
        outcome = None if known is None else result.to_outcome(known)
        while not repositories.records.claim(key, request.fingerprint, datetime.now(UTC), outcome):
            if record := repositories.records.find(key):  # unless it has just been purged
                return result.from_outcome(_outcome_of(record, request))
        done = work(repositories)
        if known is None:
            repositories.records.complete(key, result.to_outcome(done))
        return done

    def tried(repositories: Repositories) -> _T:
        record = repositories.records.find(key) if request.request_id else None
        return result.from_outcome(_outcome_of(record, request)) if record else work(repositories)

    if request.validate_only:
        done = database.try_out(tried)
    elif request.request_id and only and known and _is_added_at_once(database, key, request.fingerprint, only):
        done = known
    elif request.request_id:
        done = database.write(recorded, repeatable=True)
    elif only:
        done = database.write_at_once(work)
    else:
        done = database.write(work, repeatable=known is not None)
    this_call.course = ",".join(course.name for course in result.to_outcome(done).courses) or this_call.course
    return done


def _is_added_at_once(database: Database, key: RecordKey, fingerprint: str, course: Course) -> bool:
    """Add a course with its record in one round trip; False if either is there, or may be."""
    if course.course_id != course.uid:  # somebody has chosen it: it may be taken, and its record must not be kept then
        return False
    return database.write_at_once(
        lambda repositories: repositories.records.add_with_course(key, fingerprint, datetime.now(UTC), course)
    )


def _outcome_of(record: IdempotencyRecord, request: _Write) -> Outcome:
    if record.fingerprint not in request.fingerprints:
        raise RequestIdReused(request.request_id)
    return record.outcome
