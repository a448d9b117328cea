"""Writes that are safe to repeat: once for each request_id, with the answer kept in the write's own transaction."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol

from course_service.course import Course
from course_service.errors import RequestIdReused
from course_service.store.database import Database
from course_service.store.repository import Answer, AnswerKey, CourseRepository

ANSWERS_KEPT = timedelta(hours=24)
"""How long the answer to a request_id is kept."""


class _Repeatable(Protocol):
    @property
    def request_id(self) -> str: ...
    @property
    def validate_only(self) -> bool: ...
    @property
    def fingerprint(self) -> str: ...


def write_once(
    database: Database,
    caller: str,
    method: str,
    request: _Repeatable,
    work: Callable[[CourseRepository], list[Course]],
    *,
    answer: list[Course] | None = None,
) -> list[Course]:
    """Do the work of a request in one transaction: once for each request_id, and not at all with validate_only.

    Raises what the work raises, and `RequestIdReused`.

    `answer` is what the work will answer if that is known before, as when courses are made. Such work can be repeated
    even without a request_id: it finds its own courses.
    """
    key = AnswerKey(caller, method, request.request_id)
    if request.validate_only:

        def try_out(courses: CourseRepository) -> list[Course]:
            kept = courses.answer(key) if request.request_id else None
            return _same(kept, request) if kept else work(courses)

        return database.try_out(try_out)
    if not request.request_id:
        return database.write(work, repeatable=answer is not None)

    def once(courses: CourseRepository) -> list[Course]:
        while not courses.claim(key, request.fingerprint, datetime.now(UTC), answer):
            if kept := courses.answer(key):  # unless it has just been purged
                return _same(kept, request)
        done = work(courses)
        if answer is None:
            courses.keep(key, done)
        return done

    return database.write(once, repeatable=True)


def _same(kept: Answer, request: _Repeatable) -> list[Course]:
    if kept.fingerprint != request.fingerprint:
        raise RequestIdReused(request.request_id)
    return kept.courses
