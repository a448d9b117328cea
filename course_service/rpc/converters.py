"""Between protobuf messages and the service's own types; the only place that knows both."""

from datetime import UTC, datetime

from course.v1 import course_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from course_service.course import Course, State
from course_service.schemas import CreateCourseRequest, GetCourseRequest, validated

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STATES = {State.DRAFT: course_pb2.Course.DRAFT}


def create_course_request(message: course_pb2.CreateCourseRequest) -> CreateCourseRequest:
    """Read a CreateCourseRequest; raises `RequestInvalid`."""
    request: dict[str, object] = {"course_id": message.course_id}
    if message.HasField("course"):
        request["course"] = _mutable_fields(message.course)
    return validated(CreateCourseRequest, request)


def get_course_request(message: course_pb2.GetCourseRequest) -> GetCourseRequest:
    """Read a GetCourseRequest; raises `RequestInvalid`."""
    return validated(GetCourseRequest, {"name": message.name})


def course_message(course: Course) -> course_pb2.Course:
    """Write a course."""
    return course_pb2.Course(
        name=course.name,
        uid=course.uid,
        title=course.title,
        code=course.code,
        description=course.description,
        owner=course.owner,
        language_code=course.language_code,
        subjects=course.subjects,
        labels=course.labels,
        state=_STATES[course.state],
        create_time=_timestamp(course.create_time),
        update_time=_timestamp(course.update_time),
        etag=course.etag,
    )


def _timestamp(time: datetime) -> Timestamp:
    since = time - _EPOCH
    return Timestamp(seconds=since.days * 86_400 + since.seconds, nanos=since.microseconds * 1_000)


def _mutable_fields(message: course_pb2.Course) -> dict[str, object]:
    """Read the fields that callers may set; what they must not set is not looked at."""
    return {
        "title": message.title,
        "code": message.code,
        "description": message.description,
        "owner": message.owner,
        "language_code": message.language_code,
        "subjects": list(message.subjects),
        "labels": dict(message.labels),
    }
