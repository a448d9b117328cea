"""The queries on courses. Whether they are in a transaction is decided by who calls."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeAlias

from sqlalchemy import (
    Column,
    Connection,
    Integer,
    Select,
    Text,
    any_,
    bindparam,
    delete,
    literal,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY

from course_service.course import Course, State
from course_service.errors import (
    CourseAlreadyExists,
    CourseError,
    CourseIdHeldByDeletedCourse,
    CoursesConflict,
    DatabaseUnavailable,
    EtagMismatch,
    ExternalIdInUse,
)
from course_service.filters import Condition
from course_service.paging import Order, Place
from course_service.store.conditions import Conditions
from course_service.store.inserts import Inserts
from course_service.store.keyset import in_order, place_parameters
from course_service.store.models import COURSES, EXTERNAL_IDS
from course_service.store.statements import WriteStatement

_Conflict: TypeAlias = Callable[[], CourseError]
"""Makes the error of a course that cannot be stored. Errors are made where they are raised, so that none is kept."""

# Statements are built once where they can be: building one costs more than running it.
_FIELDS = [field.name for field in dataclasses.fields(Course)]
_FULL = [COURSES.c[field] for field in _FIELDS]
_BASIC = [literal("").label(field) if field == "description" else COURSES.c[field] for field in _FIELDS]
_WITH_COURSE_ID = COURSES.c.course_id == bindparam("course_id")
_GET = select(*_FULL).where(_WITH_COURSE_ID)
_GET_LOCKED = _GET.with_for_update()
_WITH_ONE_OF_COURSE_IDS = {
    # One parameter, and so one statement, however many there are: IN costs twice as much.
    "postgresql": COURSES.c.course_id == any_(bindparam("course_ids", type_=ARRAY(Text))),
    "sqlite": COURSES.c.course_id.in_(bindparam("course_ids", expanding=True)),
}
_GET_MANY = {
    (dialect, full): select(*(_FULL if full else _BASIC)).where(is_one)
    for dialect, is_one in _WITH_ONE_OF_COURSE_IDS.items()
    for full in (True, False)
}
_REPLACE = WriteStatement(
    update(COURSES)
    .where(COURSES.c.uid == bindparam("old_uid"), COURSES.c.revision == bindparam("old_revision"))
    .values({field: bindparam(field) for field in [*_FIELDS, "search_text"] if field not in {"uid", "course_id"}})
)
_COURSES = Inserts(COURSES)
_EXTERNAL_IDS = Inserts(EXTERNAL_IDS)
_HOLDERS = (
    select(EXTERNAL_IDS.c.key, EXTERNAL_IDS.c.value, EXTERNAL_IDS.c.course_uid)
    .where(tuple_(EXTERNAL_IDS.c.key, EXTERNAL_IDS.c.value).in_(bindparam("pairs", expanding=True)))
    .order_by(EXTERNAL_IDS.c.key)
)
_MAX_TRIES = 3


class CourseRepository:
    """The courses of the database behind one connection."""

    def __init__(self, connection: Connection, *, has_search_index: bool = False) -> None:
        self._connection = connection
        self._dialect = connection.dialect.name
        self._has_search_index = has_search_index

    def get(self, course_id: str, *, lock: bool = False) -> Course | None:
        """Return the course of an id, deleted or not, or None; `lock` keeps other writers out until the end."""
        statement = _GET_LOCKED if lock else _GET
        row = self._connection.execute(statement, {"course_id": course_id}).one_or_none()
        return None if row is None else Course(*row)

    def get_many(self, course_ids: Iterable[str], *, full: bool) -> dict[str, Course]:
        """Return the courses of those ids that exist, by id; without description unless `full`."""
        rows = self._connection.execute(_GET_MANY[self._dialect, full], {"course_ids": list(course_ids)}).all()
        courses = (Course(*row) for row in rows)
        return {course.course_id: course for course in courses}

    def page(
        self,
        condition: Condition | None,
        orders: Sequence[Order],
        after: Place | None,
        *,
        limit: int,
        show_deleted: bool,
        full: bool,
    ) -> list[Course]:
        """Return the first `limit` courses in an order that come after a place in it."""
        statement = _page(
            self._dialect, tuple(orders), after_place=after is not None, show_deleted=show_deleted, full=full
        )
        if condition is not None:
            conditions = Conditions(self._dialect, has_search_index=self._has_search_index)
            statement = statement.where(conditions.sql(condition))
        rows = self._connection.execute(statement, {"limit": limit, **place_parameters(after or ())}).all()
        return [Course(*row) for row in rows]

    def add(self, course: Course) -> None:
        """Store a new course; one that an earlier, cut-off try of the same call has stored is left as it is.

        Raises `CourseAlreadyExists`, `CourseIdHeldByDeletedCourse`, `ExternalIdInUse`; a transaction must not be
        committed then. Without external ids it is one statement, which without a transaction has written nothing then.
        """
        for conflict in self._add([course]).values():
            raise conflict()

    def add_all(self, courses: Sequence[Course]) -> None:
        """Store new courses as `add` does; raises `CoursesConflict` with every course that cannot be stored."""
        if conflicts := self._add(courses):
            raise CoursesConflict({index: conflict() for index, conflict in conflicts.items()})

    def _add(self, courses: Sequence[Course]) -> dict[int, _Conflict]:
        # In one order everywhere, so that two transactions cannot wait for each other.
        rows = [course_row(course) for course in sorted(courses, key=lambda course: course.course_id)]
        inserted = self._insert(_COURSES, rows, COURSES.c.uid)
        conflicts: dict[int, _Conflict] = {}
        if len(inserted) < len(courses):
            holders = self.get_many({course.course_id for course in courses}, full=False)
            for index, course in enumerate(courses):
                if course.uid not in inserted and (conflict := _conflict(course, holders.get(course.course_id))):
                    conflicts[index] = conflict
        for index, course in enumerate(courses):
            # What an earlier try has stored, it has stored with its external ids; they may have been removed since.
            if course.uid in inserted and (conflict := self._take_external_ids(course.uid, course.external_ids)):
                conflicts[index] = conflict
        return dict(sorted(conflicts.items()))

    def replace(self, old: Course, new: Course) -> None:
        """Store a new version of a course.

        Raises `EtagMismatch` if the old version is no longer the newest, and `ExternalIdInUse`.
        """
        parameters = {"old_uid": old.uid, "old_revision": old.revision, **course_row(new)}
        del parameters["uid"], parameters["course_id"]
        if not _REPLACE.execute(self._connection, parameters):
            raise EtagMismatch(old.name)
        if old.external_ids != new.external_ids:
            gone = old.external_ids.items() - new.external_ids.items()
            if gone:
                pair = tuple_(EXTERNAL_IDS.c.key, EXTERNAL_IDS.c.value)
                self._connection.execute(
                    delete(EXTERNAL_IDS).where(EXTERNAL_IDS.c.course_uid == old.uid, pair.in_(gone))
                )
            added = dict(new.external_ids.items() - old.external_ids.items())
            if conflict := self._take_external_ids(new.uid, added):
                raise conflict()

    def purge(self, now: datetime, limit: int) -> int:
        """Remove deleted courses whose purge_time has come, at most `limit`; returns how many."""
        due = (
            select(COURSES.c.uid)
            .where(COURSES.c.purge_time <= now)
            .order_by(COURSES.c.purge_time)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        return self._connection.execute(delete(COURSES).where(COURSES.c.uid.in_(due))).rowcount

    def _take_external_ids(self, uid: str, external_ids: Mapping[str, str]) -> _Conflict | None:
        # In one order everywhere, so that two transactions cannot wait for each other.
        rows = [{"key": key, "value": value, "course_uid": uid} for key, value in sorted(external_ids.items())]
        for _ in range(_MAX_TRIES):
            if not rows or len(self._insert(_EXTERNAL_IDS, rows, EXTERNAL_IDS.c.key)) == len(rows):
                return None
            held = self._connection.execute(_HOLDERS, {"pairs": list(external_ids.items())}).all()
            for key, value, holder in held:
                if holder != uid:
                    return functools.partial(ExternalIdInUse, key, value)
            taken = {key for key, _, _ in held}
            # The course that held one has just let it go: what is not taken yet is tried again.
            rows = [row for row in rows if row["key"] not in taken]
        raise DatabaseUnavailable("an external id changed hands too often")

    def _insert(self, inserts: Inserts, rows: Sequence[Mapping[str, Any]], returning: Column[Any]) -> set[str]:
        """Insert the rows whose unique keys are free; returns a column of what was inserted."""
        if len(rows) > 1:
            return set(inserts.many(self._connection, rows, returning))
        return {row[returning.key] for row in rows if inserts.one(self._connection, row)}


@functools.lru_cache
def _page(dialect: str, orders: Sequence[Order], *, after_place: bool, show_deleted: bool, full: bool) -> Select[Any]:
    statement = select(*(_FULL if full else _BASIC)).limit(bindparam("limit", type_=Integer))
    if not show_deleted:
        statement = statement.where(COURSES.c.state != State.DELETED)
    return in_order(statement, orders, dialect, after_place=after_place)


def _conflict(course: Course, holder: Course | None) -> _Conflict | None:
    if holder is None:
        raise DatabaseUnavailable("the course that holds the id has just been purged")
    if holder.uid == course.uid:
        return None
    error = CourseIdHeldByDeletedCourse if holder.state is State.DELETED else CourseAlreadyExists
    return functools.partial(error, course.name)


def course_row(course: Course) -> dict[str, Any]:
    """Return the columns of a course."""
    return {**{field: getattr(course, field) for field in _FIELDS}, "search_text": course.search_text}
