"""The textbook: SQLAlchemy's ORM, a session for each call, as its tutorial has it; no checks, no retries."""

import uuid
from datetime import UTC, datetime

import grpc
from course.v1 import course_pb2, course_pb2_grpc
from sqlalchemy import create_engine, select
from sqlalchemy.engine import make_url
from sqlalchemy.orm import defer, sessionmaker

from benchmarks.peers import THREADS
from benchmarks.peers.models import CourseRow
from course_service.course import State

_NOT_SEARCHED = defer(CourseRow.search_text)


class Textbook(course_pb2_grpc.CourseServiceServicer):
    """Answers GetCourse, BatchGetCourses, the first page of ListCourses, and CreateCourse."""

    def __init__(self, url: str) -> None:
        engine = create_engine(make_url(url).set(drivername="postgresql+psycopg2"), pool_size=THREADS)
        self._sessions = sessionmaker(engine)

    def GetCourse(self, request: course_pb2.GetCourseRequest, context: grpc.ServicerContext) -> course_pb2.Course:  # noqa: N802  # the contract's
        """Return a course."""
        with self._sessions() as session:
            wanted = select(CourseRow).where(CourseRow.course_id == request.name.removeprefix("courses/"))
            row = session.scalars(wanted.options(_NOT_SEARCHED)).one_or_none()
            if row is None:
                context.abort(grpc.StatusCode.NOT_FOUND, "no such course")
            return _message(row, row.description)

    def BatchGetCourses(  # noqa: N802  # the contract's
        self, request: course_pb2.BatchGetCoursesRequest, _: grpc.ServicerContext
    ) -> course_pb2.BatchGetCoursesResponse:
        """Return courses."""
        with self._sessions() as session:
            ids = [name.removeprefix("courses/") for name in request.names]
            rows = session.scalars(select(CourseRow).where(CourseRow.course_id.in_(ids)).options(_NOT_SEARCHED))
            found = {row.course_id: _message(row, row.description) for row in rows}
            return course_pb2.BatchGetCoursesResponse(courses=[found[course_id] for course_id in ids])

    def ListCourses(  # noqa: N802  # the contract's
        self, request: course_pb2.ListCoursesRequest, _: grpc.ServicerContext
    ) -> course_pb2.ListCoursesResponse:
        """Return the first page, without descriptions, as the service has it."""
        with self._sessions() as session:
            oldest = select(CourseRow).order_by(CourseRow.create_time, CourseRow.course_id).limit(request.page_size)
            rows = session.scalars(oldest.options(_NOT_SEARCHED, defer(CourseRow.description)))
            return course_pb2.ListCoursesResponse(courses=[_message(row, "") for row in rows])

    def CreateCourse(self, request: course_pb2.CreateCourseRequest, _: grpc.ServicerContext) -> course_pb2.Course:  # noqa: N802  # the contract's
        """Store a course."""
        course, uid, now = request.course, str(uuid.uuid4()), datetime.now(UTC)
        row = CourseRow(
            uid=uid,
            course_id=uid,
            title=course.title,
            code=course.code,
            description=course.description,
            owner=course.owner,
            language_code=course.language_code,
            subjects=list(course.subjects),
            labels=dict(course.labels),
            external_ids={},
            state=State.DRAFT,
            create_time=now,
            update_time=now,
            revision=1,
            search_text=course.title.lower(),
        )
        with self._sessions() as session:
            session.add(row)
            session.commit()
            return _message(row, row.description)


def _message(row: CourseRow, description: str) -> course_pb2.Course:
    message = course_pb2.Course(
        uid=row.uid,
        name=f"courses/{row.course_id}",
        title=row.title,
        code=row.code,
        description=description,
        owner=row.owner,
        language_code=row.language_code,
        subjects=row.subjects,
        labels=row.labels,
        external_ids=row.external_ids,
        state=course_pb2.Course.State.Value(row.state.name),
    )
    message.create_time.FromDatetime(row.create_time)
    message.update_time.FromDatetime(row.update_time)
    return message


def servicer(url: str) -> Textbook:
    """Make it over a database."""
    return Textbook(url)  # type: ignore[abstract]  # what it lacks, grpcio answers with UNIMPLEMENTED
