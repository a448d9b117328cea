"""Every query. Works inside a transaction that somebody else opens and ends."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import (
    Connection,
    Select,
    and_,
    bindparam,
    delete,
    literal,
    or_,
    select,
    tuple_,
    update,
)
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
from course_service.store.models import TITLE_BEGINNING, TITLE_BEGINNING_LENGTH, AnswerRow, CourseRow, ExternalIdRow

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
_HOLDERS = (
    select(ExternalIdRow.key, ExternalIdRow.value, ExternalIdRow.course_uid)
    .where(tuple_(ExternalIdRow.key, ExternalIdRow.value).in_(bindparam("pairs", expanding=True)))
    .order_by(ExternalIdRow.key)
)
_COURSES = TypeAdapter(list[Course])
_MAX_TRIES = 3


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
        rows = self._connection.execute(_in_order(statement, orders, after, self._dialect))
        return [Course(*row) for row in rows]

    def add(self, courses: Sequence[Course]) -> list[CourseError | None]:
        """Store new courses, and return what is in the way of each: nothing, or its id or an external id is taken.

        If anything is, the caller must not let the transaction be committed. A course that an earlier, cut-off try of
        the same call has stored is not in its own way.
        """
        # In one order everywhere, so that two transactions cannot wait for each other.
        rows = [_row(course) for course in sorted(courses, key=lambda course: course.course_id)]
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
                self._connection.execute(
                    delete(ExternalIdRow).where(ExternalIdRow.course_uid == old.uid, pair.in_(gone))
                )
            added = dict(new.external_ids.items() - old.external_ids.items())
            if problem := self._take_external_ids(new.uid, added):
                raise problem

    def claim(self, key: AnswerKey, fingerprint: str, now: datetime, answer: Sequence[Course] | None) -> bool:
        """Reserve a key for the answer of this transaction, and keep it if it is known; False if there is one already.

        While another transaction has reserved the key, waits for its end.
        """
        courses = None if answer is None else _as_json(answer)
        row = {
            "caller": key.caller,
            "method": key.method,
            "request_id": key.request_id,
            "fingerprint": fingerprint,
            "courses": courses,
            "create_time": now,
        }
        return bool(self._connection.execute(_INSERT[self._dialect, AnswerRow], row).rowcount)

    def keep(self, key: AnswerKey, courses: Sequence[Course]) -> None:
        """Keep the answer under a key that this transaction has reserved."""
        self._connection.execute(_KEEP_ANSWER, {**key.parameters, "answer": _as_json(courses)})

    def answer(self, key: AnswerKey) -> Answer | None:
        """Return the answer kept under a key, or None."""
        row = self._connection.execute(_GET_ANSWER, key.parameters).one_or_none()
        return row and Answer(row.fingerprint, _COURSES.validate_json(row.courses))

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
        # In one order everywhere, so that two transactions cannot wait for each other.
        rows = [{"key": key, "value": value, "course_uid": uid} for key, value in sorted(external_ids.items())]
        for _ in range(_MAX_TRIES):
            if not rows or len(self._insert(ExternalIdRow, rows, ExternalIdRow.key)) == len(rows):
                return None
            held = self._connection.execute(_HOLDERS, {"pairs": list(external_ids.items())}).all()
            for key, value, holder in held:
                if holder != uid:
                    return ExternalIdInUse(key, value)
            taken = {key for key, _, _ in held}
            # Whoever was in the way has just let go: what is not ours yet is tried again.
            rows = [row for row in rows if row["key"] not in taken]
        return DatabaseUnavailable()

    def _insert(
        self, row: type[Any], rows: Sequence[Mapping[str, object]], returning: InstrumentedAttribute[str]
    ) -> list[str]:
        """Insert what is not in the way of other rows; returns a column of what was inserted."""
        statement = _INSERT[self._dialect, row].returning(returning)
        # A single row is spared what SQLAlchemy does to send many in few statements.
        return list(self._connection.execute(statement, rows if len(rows) > 1 else rows[0]).scalars())


def _as_json(courses: Sequence[Course]) -> str:
    return _COURSES.dump_json(list(courses)).decode()


def _in_the_way(course: Course, holder: Course | None) -> CourseError | None:
    if holder is None:  # it was, but has just been purged
        return DatabaseUnavailable()
    if holder.uid == course.uid:
        return None
    return (CourseIdHeldByDeletedCourse if holder.state is State.DELETED else CourseAlreadyExists)(course.name)


def _row(course: Course) -> dict[str, Any]:
    return {**{field: getattr(course, field) for field in _FIELDS}, "search_text": course.search_text}


def _in_order(statement: Select[Any], orders: Sequence[Order], after: Key | None, dialect: str) -> Select[Any]:
    columns: list[tuple[Any, bool]] = []  # with whether it descends
    place: list[Any] = []
    for number, order in enumerate(orders):
        if order.field == "title" and dialect == "postgresql":
            # A whole title can be too large for an index there; its beginning, compared first, says the same.
            columns.append((TITLE_BEGINNING, order.descending))
            place += [after[number][:TITLE_BEGINNING_LENGTH]] if after else []  # type: ignore[index]  # a title is text
        columns.append((getattr(CourseRow, order.field), order.descending))
        place += [after[number]] if after else []
    statement = statement.order_by(*(column.desc() if descending else column for column, descending in columns))
    if after is None:
        return statement
    first, first_descending = columns[0]
    # What comes further says nothing new of the first column, but an index can use it.
    statement = statement.where(first <= place[0] if first_descending else first >= place[0])
    if len({descending for _, descending in columns}) == 1:
        here = tuple_(*(column for column, _ in columns))
        there = tuple_(*(literal(value, column.type) for (column, _), value in zip(columns, place, strict=True)))
        return statement.where(here < there if first_descending else here > there)
    further = []
    for index, (column, descending) in enumerate(columns):
        same = [columns[before][0] == place[before] for before in range(index)]
        further.append(and_(*same, column < place[index] if descending else column > place[index]))
    return statement.where(or_(*further))
