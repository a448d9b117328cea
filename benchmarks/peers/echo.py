"""The least that there can be: a constant answer, and no database."""

import grpc
from course.v1 import course_pb2, course_pb2_grpc

_COURSE = course_pb2.Course(
    name="courses/echo",
    title="Course 7",
    code="C 7",
    description="x" * 300,
    owner="users/7",
    subjects=["biology", "chemistry"],
    labels={"team": "7"},
)


class Echo(course_pb2_grpc.CourseServiceServicer):
    """Answers GetCourse."""

    def GetCourse(self, _: course_pb2.GetCourseRequest, __: grpc.ServicerContext) -> course_pb2.Course:  # noqa: N802  # the contract's
        """Return the one course there is."""
        return _COURSE


def servicer(_: str) -> Echo:
    """Make it."""
    return Echo()  # type: ignore[abstract]  # what it lacks, grpcio answers with UNIMPLEMENTED
