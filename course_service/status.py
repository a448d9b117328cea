"""How an error of `errors.py` is told to callers: the one table of status codes, and google.rpc.Status (AIP-193).

gRPC sends the Status as it is; HTTP sends the same as JSON.
"""

from google.protobuf import any_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from course_service import errors

DOMAIN = "course.v1.CourseService"
RESOURCE_TYPE = "course.example.com/Course"

MAX_VIOLATIONS = 25
MAX_DETAILS_BYTES = 4096
"""More than this, and the status itself is lost on its way: it travels in trailers, which clients bound at 8 KB."""
_MAX_TEXT_LENGTH = 256
_PACKING_BYTES = 64
"""What the name of a detail's type takes, and more."""

CODES: dict[type[errors.CourseError], int] = {
    errors.RequestMalformed: code_pb2.INVALID_ARGUMENT,
    errors.RequestInvalid: code_pb2.INVALID_ARGUMENT,
    errors.RequestTooLarge: code_pb2.RESOURCE_EXHAUSTED,
    errors.RouteNotFound: code_pb2.NOT_FOUND,
    errors.MethodNotAllowed: code_pb2.UNIMPLEMENTED,
    errors.FieldMaskInvalid: code_pb2.INVALID_ARGUMENT,
    errors.PageSizeNegative: code_pb2.INVALID_ARGUMENT,
    errors.PageTokenInvalid: code_pb2.INVALID_ARGUMENT,
    errors.PageTokenMismatch: code_pb2.INVALID_ARGUMENT,
    errors.FilterInvalid: code_pb2.INVALID_ARGUMENT,
    errors.OrderByInvalid: code_pb2.INVALID_ARGUMENT,
    errors.RequestIdReused: code_pb2.INVALID_ARGUMENT,
    errors.CourseNotFound: code_pb2.NOT_FOUND,
    errors.CoursesNotFound: code_pb2.NOT_FOUND,
    errors.CourseAlreadyExists: code_pb2.ALREADY_EXISTS,
    errors.CourseIdHeldByDeletedCourse: code_pb2.ALREADY_EXISTS,
    errors.ExternalIdInUse: code_pb2.ALREADY_EXISTS,
    errors.CourseNotDeleted: code_pb2.ALREADY_EXISTS,
    errors.EtagMismatch: code_pb2.ABORTED,
    errors.InvalidStateTransition: code_pb2.FAILED_PRECONDITION,
    errors.CourseArchived: code_pb2.FAILED_PRECONDITION,
    errors.CourseDeleted: code_pb2.FAILED_PRECONDITION,
    errors.ResponseTooLarge: code_pb2.RESOURCE_EXHAUSTED,
    errors.DatabaseUnavailable: code_pb2.UNAVAILABLE,
    errors.InternalError: code_pb2.INTERNAL,
}


def to_status(error: errors.CourseError) -> status_pb2.Status:
    """Make the Status of an error: its code, its message, one ErrorInfo, and the details that fit its kind."""
    details: list[Message] = [
        error_details_pb2.ErrorInfo(
            reason=error.reason,
            domain=DOMAIN,
            metadata=error.metadata,
        )
    ]
    code = CODES[type(error)]
    if code == code_pb2.FAILED_PRECONDITION:
        failure = error_details_pb2.PreconditionFailure.Violation(
            type=error.reason, subject=error.resource_name, description=error.message
        )
        details.append(error_details_pb2.PreconditionFailure(violations=[failure]))
    elif error.resource_name:
        details.append(
            error_details_pb2.ResourceInfo(
                resource_type=RESOURCE_TYPE,
                resource_name=error.resource_name,
                description=error.message,
            )
        )
    if isinstance(error, errors.DatabaseUnavailable):
        details.append(error_details_pb2.RetryInfo(retry_delay=Duration(seconds=error.retry_after_seconds)))
    status = status_pb2.Status(code=code, message=_short(error.message))
    for detail in details:
        status.details.append(_packed(detail))
    if error.violations:
        room = MAX_DETAILS_BYTES - sum(detail.ByteSize() for detail in status.details)
        status.details.insert(1, _packed(_bad_request(error, room - _PACKING_BYTES)))
    return status


def _packed(detail: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed


def _bad_request(error: errors.CourseError, room: int) -> error_details_pb2.BadRequest:
    """Tell as many violations as fit; the ErrorInfo's metadata tells how many there are."""
    bad_request = error_details_pb2.BadRequest()
    for violation in error.violations[:MAX_VIOLATIONS]:
        told = error_details_pb2.BadRequest.FieldViolation(
            field=_short(violation.field),
            reason=violation.reason,
            description=_short(violation.description),
        )
        room -= told.ByteSize() + 4
        if room < 0:
            break
        bad_request.field_violations.append(told)
    return bad_request


def _short(text: str) -> str:
    return text if len(text) <= _MAX_TEXT_LENGTH else text[: _MAX_TEXT_LENGTH - 1] + "…"
