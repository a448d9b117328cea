"""Calling the service by gRPC in few words."""

from typing import Any

from course.v1 import course_pb2

from tests.conftest import Service
from tests.support.failures import Failure, grpc_failure


def call(service: Service, method: str, **fields: Any) -> Any:
    """Call a method with the fields of its request, messages as dictionaries."""
    return getattr(service.courses, method)(getattr(course_pb2, f"{method}Request")(**fields), timeout=30)


def failed(service: Service, method: str, **fields: Any) -> Failure:
    """Make a call that must fail, and read its status."""
    return grpc_failure(call, service, method, **fields)


def create(service: Service, course_id: str = "", **fields: Any) -> course_pb2.Course:
    course: course_pb2.Course = call(
        service, "CreateCourse", course={"title": "Biology", **fields}, course_id=course_id
    )
    return course


def get(service: Service, name: str) -> course_pb2.Course:
    course: course_pb2.Course = call(service, "GetCourse", name=name)
    return course


def names(service: Service, **fields: Any) -> list[str]:
    """The ids of all courses of a list, page after page."""
    found: list[str] = []
    token = ""
    while True:
        page = call(service, "ListCourses", page_token=token, **fields)
        found += [course.name.removeprefix("courses/") for course in page.courses]
        token = page.next_page_token
        if not token:
            return found
