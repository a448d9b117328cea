"""A new course and the record of its request, stored in one round trip."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, and_, bindparam, exists, select

from course_service.store.inserts import insert
from course_service.store.models import COURSES, IDEMPOTENCY_RECORDS
from course_service.store.statements import StatementsAtOnce, WriteStatement

_PREFIX = "record_"
"""Of the record's parameters; the course has a create_time too."""
_COURSE_COLUMNS = COURSES.c
_RECORD = {column: bindparam(_PREFIX + column.key, type_=column.type) for column in IDEMPOTENCY_RECORDS.c}
# The course is in what its record says was returned, so a record of another request, or of another try, is another one.
_RECORD_IS_THERE = exists().where(
    and_(*(column == value for column, value in _RECORD.items() if column.primary_key or column.key == "courses"))
)
_COURSE = select(*(bindparam(column.key, type_=column.type) for column in _COURSE_COLUMNS)).where(_RECORD_IS_THERE)


def _add_record(dialect: str) -> Any:  # noqa: ANN401  # each database has an insert of its own
    return insert(IDEMPOTENCY_RECORDS, dialect).values(_RECORD).on_conflict_do_nothing()


def _add_course(dialect: str) -> Any:  # noqa: ANN401  # as above
    added = insert(COURSES, dialect).from_select([column.key for column in _COURSE_COLUMNS], _COURSE)
    return added.on_conflict_do_nothing()


_ADD = StatementsAtOnce(WriteStatement(_add_record), WriteStatement(_add_course))


def add_recorded(connection: Connection, course: Mapping[str, Any], record: Mapping[str, Any]) -> bool:
    """Insert a record and, if it was not there, its course; False if anything was: then the record may be, or not.

    It is right only for a course whose keys nobody else can have taken: its record would be there without it.
    """
    return _ADD.execute(connection, {**course, **{_PREFIX + name: value for name, value in record.items()}}) == 1
