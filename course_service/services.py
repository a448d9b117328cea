"""The use cases, one function and one transaction each; gRPC and HTTP both call these.

They take requests that are valid by their types (`schemas.py`) and raise the errors of `errors.py`. Each can also raise
`DatabaseUnavailable`.
"""

from datetime import UTC, datetime

import uuid_utils.compat

from course_service.course import COLLECTION, Course, State
from course_service.errors import CourseNotFound
from course_service.schemas import CreateCourseRequest
from course_service.store.database import Database


def create_course(database: Database, request: CreateCourseRequest) -> Course:
    """Create a course in state DRAFT and return it; raises `CourseAlreadyExists` if its id is taken."""
    uid = str(uuid_utils.compat.uuid7())
    now = datetime.now(UTC)
    course = Course(
        uid=uid,
        course_id=request.course_id or uid,
        **dict(request.course),
        state=State.DRAFT,
        create_time=now,
        update_time=now,
        revision=1,
    )
    database.write(lambda courses: courses.add(course))
    return course


def get_course_by_id(database: Database, course_id: str) -> Course:
    """Return the course of an id; raises `CourseNotFound`."""
    course = database.read(lambda courses: courses.get(course_id))
    if course is None:
        raise CourseNotFound(COLLECTION + course_id)
    return course
