"""Every query. Works inside a transaction that somebody else opens and ends."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import Connection, Select, and_, bindparam, delete, literal, or_, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import InstrumentedAttribute

from course_service.course import Course, State
from course_service.errors import (
    CourseAlreadyExists,
    CourseError,
    CourseIdHeldByDeletedCourse,
    DatabaseUnavailable,
    EtagMismatch,
    ExternalIdInUse,
)
from course_service.filters import Condition
from course_service.paging import Key, Order
from course_service.store.conditions import Conditions
from course_service.store.models import AnswerRow, CourseRow, ExternalIdRow

# Statements are built once where they can be: building one costs more than running it.
_FIELDS = [field.name for field in dataclasses.fields(Course)]
_FULL = [getattr(CourseRow, field) for field in _FIELDS]
_BASIC = [literal("").label(field) if field == "description" else getattr(CourseRow, field) for field in _FIELDS]
_WITH_COURSE_ID = CourseRow.course_id == bindparam("course_id")
_GET = select(*_FULL).where(_WITH_COURSE_ID)
_GET_LOCKED = _GET.with_for_update()
_GET_MANY = {
    full: select(*(_FULL if full else _BASIC)).where(CourseRow.course_id.in_(bindparam("course_ids", expanding=True)))
    for full in (True, False)
}
_REPLACE = (
    update(CourseRow)
    .where(CourseRow.uid == bindparam("old_uid"), CourseRow.revision == bindparam("old_revision"))
    .values({field: bindparam(field) for field in [*_FIELDS, "search_text"] if field not in {"uid", "course_id"}})
)
_INSERT = {
    # The same words on both databases, but of two dialects for SQLAlchemy.
    (dialect.__name__.rpartition(".")[2], row): dialect.insert(row).on_conflict_do_nothing()
    for dialect in (postgresql, sqlite)
    for row in (CourseRow, ExternalIdRow, AnswerRow)
}
_ANSWER_KEY = and_(
    AnswerRow.caller == bindparam("its_caller"),
    AnswerRow.method == bindparam("its_method"),
    AnswerRow.request_id == bindparam("its_request_id"),
)
_GET_ANSWER = select(AnswerRow.fingerprint, AnswerRow.courses).where(_ANSWER_KEY)
_KEEP_ANSWER = update(AnswerRow).where(_ANSWER_KEY).values(courses=bindparam("answer"))
_COURSES = TypeAdapter(list[Course])


@dataclass(frozen=True, slots=True)
class AnswerKey:
    """What an answer is kept under."""

    caller: str
    method: str
    request_id: str

    @property
    def parameters(self) -> dict[str, str]:
        """As the statements call them."""
        return {"its_caller": self.caller, "its_method": self.method, "its_request_id": self.request_id}


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that was kept, with the fingerprint of its request."""

    fingerprint: str
    courses: list[Course]


class CourseRepository:
    """The courses of the database behind one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._dialect = connection.dialect.name

    def get(self, course_id: str, *, lock: bool = False) -> Course | None:
        """Return the course of an id, deleted or not, or None; `lock` keeps other writers out until the end."""
        statement = _GET_LOCKED if lock else _GET
        row = self._connection.execute(statement, {"course_id": course_id}).one_or_none()
        return None if row is None else Course(*row)

    def get_many(self, course_ids: Iterable[str], *, full: bool) -> dict[str, Course]:
        """Return the courses of those ids that there are, by id; without description unless `full`."""
        rows = self._connection.execute(_GET_MANY[full], {"course_ids": list(course_ids)})
        courses = (Course(*row) for row in rows)
        return {course.course_id: course for course in courses}

    def page(
        self,
        condition: Condition | None,
        orders: Sequence[Order],
        after: Key | None,
        *,
        limit: int,
        show_deleted: bool,
        full: bool,
    ) -> list[Course]:
        """Return the first `limit` courses in an order that come after a place in it."""
        statement = select(*(_FULL if full else _BASIC)).limit(limit)
        if condition is not None:
            statement = statement.where(Conditions(self._dialect).sql(condition))
        if not show_deleted:
            statement = statement.where(CourseRow.state != State.DELETED)
        rows = self._connection.execute(_in_order(statement, orders, after))
        return [Course(*row) for row in rows]

    def add(self, courses: Sequence[Course]) -> list[CourseError | None]:
        """Store new courses, and return what is in the way of each: nothing, or its id or an external id is taken.

        If anything is, the caller must not let the transaction be committed. A course that an earlier, cut-off try of
        the same call has stored is not in its own way.
        """
        rows = [_row(course) for course in courses]
        problems: list[CourseError | None] = [None] * len(courses)
        inserted = set(self._insert(CourseRow, rows, CourseRow.uid))
        if len(inserted) < len(courses):
            holders = self.get_many({course.course_id for course in courses}, full=False)
            for index, course in enumerate(courses):
                if course.uid not in inserted:
                    problems[index] = _in_the_way(course, holders.get(course.course_id))
        for index, course in enumerate(courses):
            if problems[index] is None and course.external_ids:
                problems[index] = self._take_external_ids(course.uid, course.external_ids)
        return problems

    def replace(self, old: Course, new: Course) -> None:
        """Store a new version of a course.

        Raises `EtagMismatch` if the old version is not the newest any more, and `ExternalIdInUse`.
        """
        parameters = {"old_uid": old.uid, "old_revision": old.revision, **_row(new)}
        del parameters["uid"], parameters["course_id"]
        if self._connection.execute(_REPLACE, parameters).rowcount == 0:
            raise EtagMismatch(old.name)
        if old.external_ids != new.external_ids:
            gone = old.external_ids.items() - new.external_ids.items()
            if gone:
                pair = tuple_(ExternalIdRow.key, ExternalIdRow.value)
                self._connection.execute(delete(ExternalIdRow).where(pair.in_(gone)))
            added = dict(new.external_ids.items() - old.external_ids.items())
            if problem := self._take_external_ids(new.uid, added):
                raise problem

    def claim(self, key: AnswerKey, fingerprint: str, now: datetime) -> bool:
        """Reserve a key for the answer of this transaction; False if there is an answer already.

        While another transaction has reserved the key, waits for its end.
        """
        row = {**dataclasses.asdict(key), "fingerprint": fingerprint, "courses": None, "create_time": now}
        return bool(self._connection.execute(_INSERT[self._dialect, AnswerRow], row).rowcount)

    def keep(self, key: AnswerKey, courses: Sequence[Course]) -> None:
        """Keep the answer under a key that this transaction has reserved."""
        answer = _COURSES.dump_json(list(courses)).decode()
        self._connection.execute(_KEEP_ANSWER, {**key.parameters, "answer": answer})

    def answer(self, key: AnswerKey) -> Answer:
        """Return the answer kept under a key."""
        fingerprint, courses = self._connection.execute(_GET_ANSWER, key.parameters).one()
        assert courses  # only the transaction that claims the key sees it without
        return Answer(fingerprint, _COURSES.validate_json(courses))

    def purge_courses(self, now: datetime, limit: int) -> int:
        """Remove deleted courses whose time is up, at most `limit`; returns how many."""
        due = (
            select(CourseRow.uid)
            .where(CourseRow.purge_time <= now)
            .order_by(CourseRow.purge_time)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        return self._connection.execute(delete(CourseRow).where(CourseRow.uid.in_(due))).rowcount

    def purge_answers(self, before: datetime, limit: int) -> int:
        """Remove answers kept before a time, at most `limit`; returns how many."""
        key = (AnswerRow.caller, AnswerRow.method, AnswerRow.request_id)
        due = (
            select(*key)
            .where(AnswerRow.create_time < before)
            .order_by(AnswerRow.create_time)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        return self._connection.execute(delete(AnswerRow).where(tuple_(*key).in_(due))).rowcount

    def _take_external_ids(self, uid: str, external_ids: Mapping[str, str]) -> CourseError | None:
        if not external_ids:
            return None
        # In one order everywhere, so that two transactions cannot wait for each other.
        rows = [{"key": key, "value": value, "course_uid": uid} for key, value in sorted(external_ids.items())]
        taken = self._insert(ExternalIdRow, rows, ExternalIdRow.key)
        if len(taken) < len(rows):
            pairs = tuple_(ExternalIdRow.key, ExternalIdRow.value)
            held = self._connection.execute(
                select(ExternalIdRow.key, ExternalIdRow.value)
                .where(pairs.in_(list(external_ids.items())), ExternalIdRow.course_uid != uid)
                .order_by(ExternalIdRow.key)
                .limit(1)
            ).one_or_none()
            if held:
                return ExternalIdInUse(*held)
        return None

    def _insert(
        self, row: type[Any], rows: Sequence[Mapping[str, object]], returning: InstrumentedAttribute[str]
    ) -> list[str]:
        """Insert what is not in the way of other rows; returns a column of what was inserted."""
        statement = _INSERT[self._dialect, row].returning(returning)
        return list(self._connection.execute(statement, rows).scalars())


def _in_the_way(course: Course, holder: Course | None) -> CourseError | None:
    if holder is None:  # it was, but has just been purged
        return DatabaseUnavailable()
    if holder.uid == course.uid:
        return None
    return (CourseIdHeldByDeletedCourse if holder.state is State.DELETED else CourseAlreadyExists)(course.name)


def _row(course: Course) -> dict[str, Any]:
    return {**{field: getattr(course, field) for field in _FIELDS}, "search_text": course.search_text}


def _in_order(statement: Select[Any], orders: Sequence[Order], after: Key | None) -> Select[Any]:
    columns = [getattr(CourseRow, order.field) for order in orders]
    statement = statement.order_by(
        *(column.desc() if order.descending else column for column, order in zip(columns, orders, strict=True))
    )
    if after is None:
        return statement
    if len({order.descending for order in orders}) == 1:
        # As rows, an index serves the comparison.
        here = tuple_(*columns)
        there = tuple_(*(literal(value, column.type) for column, value in zip(columns, after, strict=True)))
        return statement.where(here < there if orders[0].descending else here > there)
    further = []
    for index, (order, column) in enumerate(zip(orders, columns, strict=True)):
        same = [columns[before] == after[before] for before in range(index)]
        further.append(and_(*same, column < after[index] if order.descending else column > after[index]))
    first, value = columns[0], after[0]
    # The first field's bound says nothing new, but an index can use it.
    return statement.where(first <= value if orders[0].descending else first >= value, or_(*further))
