"""`course.v1.CourseService`: each method converts, calls its use case, and converts back.

Errors pass through: the interceptor makes responses of them.
"""

import grpc
from course.v1 import course_pb2, course_pb2_grpc

from course_service import services
from course_service.rpc import converters
from course_service.rpc.converters import course_message
from course_service.store.database import Database
from course_service.tokens import PageTokens


class CourseServicer(course_pb2_grpc.CourseServiceServicer):
    """The methods of the contract, over one database."""

    def __init__(self, database: Database, tokens: PageTokens) -> None:
        self._database = database
        self._tokens = tokens

    def CreateCourse(self, request: course_pb2.CreateCourseRequest, context: grpc.ServicerContext) -> course_pb2.Course:
        """Create a course."""
        asked = converters.create_course_request(request)
        return course_message(services.create_course(self._database, asked))

    async def GetCourse(self, request: course_pb2.GetCourseRequest, context: grpc.ServicerContext) -> course_pb2.Course:
        """Return a course."""
        asked = converters.get_course_request(request)
        return course_message(await services.get_course(self._database, asked.course_id))

    def ListCourses(
        self, request: course_pb2.ListCoursesRequest, context: grpc.ServicerContext
    ) -> course_pb2.ListCoursesResponse:
        """Return a page of courses."""
        asked = converters.list_courses_request(request)
        return converters.page_message(services.list_courses(self._database, self._tokens, asked))

    def UpdateCourse(self, request: course_pb2.UpdateCourseRequest, context: grpc.ServicerContext) -> course_pb2.Course:
        """Change fields of a course."""
        asked = converters.update_course_request(request)
        return course_message(services.update_course(self._database, asked).course)

    def DeleteCourse(self, request: course_pb2.DeleteCourseRequest, context: grpc.ServicerContext) -> course_pb2.Course:
        """Delete a course."""
        asked = converters.delete_course_request(request)
        deleted = services.delete_course(self._database, asked)
        return course_message(deleted) if deleted else course_pb2.Course()

    def UndeleteCourse(
        self, request: course_pb2.UndeleteCourseRequest, context: grpc.ServicerContext
    ) -> course_pb2.Course:
        """Bring a deleted course back."""
        asked = converters.change_course_request(request)
        return course_message(services.undelete_course(self._database, asked))

    def PublishCourse(
        self, request: course_pb2.PublishCourseRequest, context: grpc.ServicerContext
    ) -> course_pb2.Course:
        """Publish a course."""
        asked = converters.change_course_request(request)
        return course_message(services.publish_course(self._database, asked))

    def ArchiveCourse(
        self, request: course_pb2.ArchiveCourseRequest, context: grpc.ServicerContext
    ) -> course_pb2.Course:
        """Archive a course."""
        asked = converters.change_course_request(request)
        return course_message(services.archive_course(self._database, asked))

    def BatchGetCourses(
        self, request: course_pb2.BatchGetCoursesRequest, context: grpc.ServicerContext
    ) -> course_pb2.BatchGetCoursesResponse:
        """Return several courses."""
        asked = converters.batch_get_courses_request(request)
        return converters.batch_get_message(services.batch_get_courses(self._database, asked))

    def BatchCreateCourses(
        self, request: course_pb2.BatchCreateCoursesRequest, context: grpc.ServicerContext
    ) -> course_pb2.BatchCreateCoursesResponse:
        """Create several courses."""
        asked = converters.batch_create_courses_request(request)
        return converters.batch_create_message(services.batch_create_courses(self._database, asked))
