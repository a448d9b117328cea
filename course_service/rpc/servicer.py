"""`course.v1.CourseService`: each method converts, calls its use case, and converts back.

Errors pass through: the interceptor answers them.
"""

import grpc
from course.v1 import course_pb2, course_pb2_grpc

from course_service import services
from course_service.rpc import converters
from course_service.store.database import Database


class CourseServicer(course_pb2_grpc.CourseServiceServicer):
    """The methods of the contract, over one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def CreateCourse(  # noqa: N802  # gRPC's name
        self, request: course_pb2.CreateCourseRequest, context: grpc.ServicerContext
    ) -> course_pb2.Course:
        """Create a course."""
        course = services.create_course(self._database, converters.create_course_request(request))
        return converters.course_message(course)

    def GetCourse(  # noqa: N802  # gRPC's name
        self, request: course_pb2.GetCourseRequest, context: grpc.ServicerContext
    ) -> course_pb2.Course:
        """Return a course."""
        course_id = converters.get_course_request(request).course_id
        return converters.course_message(services.get_course_by_id(self._database, course_id))
