"""Every query on courses. Works inside a transaction that somebody else opens and ends."""

import dataclasses
import sqlite3

from sqlalchemy import Connection, bindparam, insert, select
from sqlalchemy.exc import IntegrityError

from course_service.course import Course
from course_service.errors import CourseAlreadyExists
from course_service.store.models import CourseRow

# Built once: building a statement costs more than running it.
_FIELDS = [field.name for field in dataclasses.fields(Course)]
_INSERT = insert(CourseRow)
_SELECT_BY_COURSE_ID = select(*(getattr(CourseRow, field) for field in _FIELDS)).where(
    CourseRow.course_id == bindparam("course_id")
)


class CourseRepository:
    """The courses of the database behind one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, course: Course) -> None:
        """Store a new course; raises `CourseAlreadyExists` if its name is taken."""
        try:
            self._connection.execute(_INSERT, {field: getattr(course, field) for field in _FIELDS})
        except IntegrityError as error:
            if _violated_constraint(error) == "uq_courses_course_id":
                raise CourseAlreadyExists(course.name) from error
            raise

    def get(self, course_id: str) -> Course | None:
        """Return the course of an id, or None."""
        row = self._connection.execute(_SELECT_BY_COURSE_ID, {"course_id": course_id}).one_or_none()
        return None if row is None else Course(*row)


def _violated_constraint(error: IntegrityError) -> str | None:
    """Name the constraint that refused a row."""
    if isinstance(error.orig, sqlite3.IntegrityError):
        # SQLite names the columns of a unique constraint instead: "UNIQUE constraint failed: courses.course_id".
        kind, _, rest = str(error.orig).partition(" constraint failed: ")
        return "uq_" + rest.replace(".", "_") if kind == "UNIQUE" else rest
    name: str | None = getattr(getattr(error.orig, "diag", None), "constraint_name", None)
    return name
