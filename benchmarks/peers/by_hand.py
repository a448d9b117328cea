"""psycopg2 by hand: held connections, autocommit, one statement a call, no checks, no retries, no deadlines."""

import json
import uuid
from datetime import UTC, datetime
from queue import SimpleQueue
from typing import Any

import grpc
import psycopg2
import psycopg2.extensions
from course.v1 import course_pb2, course_pb2_grpc

from benchmarks.peers import THREADS

_COLUMNS = (
    "uid, course_id, title, code, description, owner, language_code, subjects, labels, external_ids, state,"
    " create_time, update_time, revision"
)
_GET = f"SELECT {_COLUMNS} FROM courses WHERE course_id = %s"  # noqa: S608  # constants
_CREATE = f"INSERT INTO courses ({_COLUMNS}) VALUES ({', '.join(['%s'] * 14)})"  # noqa: S608  # constants


class ByHand(course_pb2_grpc.CourseServiceServicer):
    """Answers GetCourse and CreateCourse."""

    def __init__(self, url: str) -> None:
        self._connections: SimpleQueue[psycopg2.extensions.connection] = SimpleQueue()
        for _ in range(THREADS):
            connection = psycopg2.connect(url)
            connection.autocommit = True
            self._connections.put(connection)

    def GetCourse(self, request: course_pb2.GetCourseRequest, context: grpc.ServicerContext) -> course_pb2.Course:  # noqa: N802  # the contract's
        """Return a course."""
        row = self._execute(_GET, (request.name.removeprefix("courses/"),))
        if row is None:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such course")
        return _message(row)

    def CreateCourse(self, request: course_pb2.CreateCourseRequest, _: grpc.ServicerContext) -> course_pb2.Course:  # noqa: N802  # the contract's
        """Store a course."""
        course, uid, now = request.course, str(uuid.uuid4()), datetime.now(UTC)
        lists = json.dumps(list(course.subjects)), json.dumps(dict(course.labels)), "{}"
        row = (uid, uid, course.title, course.code, course.description, course.owner, "", *lists, "DRAFT", now, now, 1)
        self._execute(_CREATE, row)
        course.name = f"courses/{uid}"
        course.uid = uid
        return course

    def _execute(self, statement: str, parameters: tuple[object, ...]) -> Any:  # noqa: ANN401  # a row
        connection = self._connections.get()
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement, parameters)
                return cursor.fetchone() if cursor.description else None
        finally:
            self._connections.put(connection)


def _message(row: Any) -> course_pb2.Course:  # noqa: ANN401  # a row
    message = course_pb2.Course(
        uid=row[0],
        name=f"courses/{row[1]}",
        title=row[2],
        code=row[3],
        description=row[4],
        owner=row[5],
        language_code=row[6],
        subjects=row[7],
        labels=row[8],
        external_ids=row[9],
        state=row[10],
    )
    message.create_time.FromDatetime(row[11])
    message.update_time.FromDatetime(row[12])
    return message


def servicer(url: str) -> ByHand:
    """Make it over a database."""
    return ByHand(url)  # type: ignore[abstract]  # what it lacks, grpcio answers with UNIMPLEMENTED
