"""Between protobuf messages and the service's own types; the only place that knows both."""

from collections.abc import Callable, Iterable, Mapping, MutableMapping
from datetime import UTC, datetime
from typing import TypeAlias, TypeVar

from course.v1 import course_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from course_service import schemas
from course_service.course import Course, State
from course_service.schemas import View
from course_service.services import Page
from course_service.validation import validated

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STATES = {state: course_pb2.Course.State.Value(state.name) for state in State}
_VIEWS: dict[int, View] = {course_pb2.COURSE_VIEW_BASIC: View.BASIC, course_pb2.COURSE_VIEW_FULL: View.FULL}
_MUTABLE = tuple(schemas.CourseCreate.model_fields)
_LISTS = {"subjects"}
_MAPS = {"labels", "external_ids"}
_PATHS = {"*", *course_pb2.Course.DESCRIPTOR.fields_by_name}

_Change: TypeAlias = (
    course_pb2.DeleteCourseRequest
    | course_pb2.UndeleteCourseRequest
    | course_pb2.PublishCourseRequest
    | course_pb2.ArchiveCourseRequest
)
_Make: TypeAlias = Callable[..., course_pb2.Course]
_ChangeT = TypeVar("_ChangeT", bound=schemas.ChangeCourseRequest)


# From messages. Each raises `RequestInvalid` with everything that is wrong.


def create_course_request(message: course_pb2.CreateCourseRequest) -> schemas.CreateCourseRequest:
    """Read a CreateCourseRequest."""
    return validated(schemas.CreateCourseRequest, _create_fields(message))


def get_course_request(message: course_pb2.GetCourseRequest) -> schemas.GetCourseRequest:
    """Read a GetCourseRequest."""
    return validated(schemas.GetCourseRequest, {"name": message.name})


def list_courses_request(message: course_pb2.ListCoursesRequest) -> schemas.ListCoursesRequest:
    """Read a ListCoursesRequest."""
    return validated(
        schemas.ListCoursesRequest,
        {
            "page_size": message.page_size,
            "page_token": message.page_token,
            "filter": message.filter,
            "order_by": message.order_by,
            "show_deleted": message.show_deleted,
            **_view(message.view),
        },
    )


def update_course_request(message: course_pb2.UpdateCourseRequest) -> schemas.UpdateCourseRequest:
    """Read an UpdateCourseRequest; raises `FieldMaskInvalid` if nothing but the mask is wrong."""
    mask = set(message.update_mask.paths)
    fields = set(_MUTABLE) if "*" in mask else mask & set(_MUTABLE)
    # What is not to be changed need not be right, unless the course may have to be created of it, or the mask is wrong
    # and does not say what is to be changed.
    if not mask or message.allow_missing or not mask <= _PATHS:
        fields |= {descriptor.name for descriptor, _ in message.course.ListFields()} & set(_MUTABLE)
    return validated(
        schemas.UpdateCourseRequest,
        {
            "course": {
                "name": message.course.name,
                "etag": message.course.etag,
                **_course_fields(message.course, fields),
            },
            "update_mask": list(message.update_mask.paths) or None,
            "allow_missing": message.allow_missing,
            "request_id": message.request_id,
            "validate_only": message.validate_only,
        },
    )


def delete_course_request(message: course_pb2.DeleteCourseRequest) -> schemas.DeleteCourseRequest:
    """Read a DeleteCourseRequest."""
    return _change_request(schemas.DeleteCourseRequest, message, allow_missing=message.allow_missing)


def change_course_request(
    message: course_pb2.UndeleteCourseRequest | course_pb2.PublishCourseRequest | course_pb2.ArchiveCourseRequest,
) -> schemas.ChangeCourseRequest:
    """Read an UndeleteCourseRequest, PublishCourseRequest or ArchiveCourseRequest."""
    return _change_request(schemas.ChangeCourseRequest, message)


def batch_get_courses_request(message: course_pb2.BatchGetCoursesRequest) -> schemas.BatchGetCoursesRequest:
    """Read a BatchGetCoursesRequest."""
    return validated(schemas.BatchGetCoursesRequest, {"names": list(message.names), **_view(message.view)})


def batch_create_courses_request(message: course_pb2.BatchCreateCoursesRequest) -> schemas.BatchCreateCoursesRequest:
    """Read a BatchCreateCoursesRequest."""
    # Of too many it is enough to know that they are.
    items = message.requests[: schemas.MAX_BATCH + 1]
    return validated(
        schemas.BatchCreateCoursesRequest,
        {
            "requests": [_create_fields(item) for item in items],
            "request_id": message.request_id,
            "validate_only": message.validate_only,
        },
    )


# To messages.


def course_message(course: Course, make: _Make = course_pb2.Course) -> course_pb2.Course:
    """Write a course, as a message of its own or in the place where `make` makes one."""
    message = make(
        name=course.name,
        uid=course.uid,
        title=course.title,
        code=course.code,
        description=course.description,
        owner=course.owner,
        language_code=course.language_code,
        subjects=course.subjects,
        state=_STATES[course.state],
        etag=course.etag,
    )
    # Maps and times are set in place, which costs half.
    if course.labels:
        _fill(message.labels, course.labels)
    if course.external_ids:
        _fill(message.external_ids, course.external_ids)
    _set(message.create_time, course.create_time)
    _set(message.update_time, course.update_time)
    if course.delete_time:
        _set(message.delete_time, course.delete_time)
    if course.purge_time:
        _set(message.purge_time, course.purge_time)
    return message


def page_message(page: Page) -> course_pb2.ListCoursesResponse:
    """Write a page."""
    message = course_pb2.ListCoursesResponse(next_page_token=page.next_page_token)
    _add_all(page.courses, message.courses.add)
    return message


def batch_get_message(courses: Iterable[Course]) -> course_pb2.BatchGetCoursesResponse:
    """Write the response of BatchGetCourses."""
    message = course_pb2.BatchGetCoursesResponse()
    _add_all(courses, message.courses.add)
    return message


def batch_create_message(courses: Iterable[Course]) -> course_pb2.BatchCreateCoursesResponse:
    """Write the response of BatchCreateCourses."""
    message = course_pb2.BatchCreateCoursesResponse()
    _add_all(courses, message.courses.add)
    return message


def _add_all(courses: Iterable[Course], add: _Make) -> None:
    # In place: to make each message first and have it copied costs a quarter more.
    for course in courses:
        course_message(course, add)


def _fill(field: MutableMapping[str, str], values: Mapping[str, str]) -> None:
    for key, value in values.items():
        field[key] = value


def _set(timestamp: Timestamp, time: datetime) -> None:
    since = time - _EPOCH
    timestamp.seconds = since.days * 86_400 + since.seconds
    timestamp.nanos = since.microseconds * 1_000


def _create_fields(message: course_pb2.CreateCourseRequest) -> dict[str, object]:
    course = {"course": _course_fields(message.course, _MUTABLE)} if message.HasField("course") else {}
    return {
        **course,
        "course_id": message.course_id,
        "request_id": message.request_id,
        "validate_only": message.validate_only,
    }


def _change_request(model: type[_ChangeT], message: _Change, **others: object) -> _ChangeT:
    return validated(
        model,
        {
            "name": message.name,
            "etag": message.etag,
            "request_id": message.request_id,
            "validate_only": message.validate_only,
            **others,
        },
    )


def _course_fields(message: course_pb2.Course, fields: Iterable[str]) -> dict[str, object]:
    """Read some of the fields that callers may set, in Python's types."""
    return {
        field: (list if field in _LISTS else dict if field in _MAPS else str)(getattr(message, field))
        for field in fields
    }


def _view(view: int) -> dict[str, object]:
    """Read a view: nothing if it is not set; an unknown one is left for the schema to refuse."""
    return {} if view == course_pb2.COURSE_VIEW_UNSPECIFIED else {"view": _VIEWS.get(view, view)}
