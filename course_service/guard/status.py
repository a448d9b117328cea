"""From an error of `errors.py` to what its caller gets: the one table of status codes, and google.rpc.Status (AIP-193).

gRPC sends the Status as it is, HTTP sends it as JSON.
"""

from collections.abc import Callable, Sequence
from urllib.parse import quote

from google.protobuf import any_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from course_service import errors
from course_service.auth import errors as auth

DOMAIN = "course.v1.CourseService"
RESOURCE_TYPE = "course.example.com/Course"

# A status travels in trailers, which clients bound at 8 KB: with more, they lose the status itself. The message travels
# twice: percent-encoded by itself, and in the status, which with its details may travel as base64 (a third more).
MAX_VIOLATIONS = 25
MAX_DETAILS_BYTES = 4096
MAX_MESSAGE_BYTES = 1024
"""Of the message, percent-encoded."""
_MAX_TEXT_LENGTH = 256
_PACKING_BYTES = 64
"""At least what the name of a detail's type takes."""

CODES: dict[type[errors.CourseError], int] = {
    errors.RequestMalformed: code_pb2.INVALID_ARGUMENT,
    errors.RequestInvalid: code_pb2.INVALID_ARGUMENT,
    errors.RequestTooLarge: code_pb2.RESOURCE_EXHAUSTED,
    errors.HeadersTooLarge: code_pb2.RESOURCE_EXHAUSTED,
    errors.RouteNotFound: code_pb2.NOT_FOUND,
    errors.MethodNotAllowed: code_pb2.UNIMPLEMENTED,
    errors.MethodUnknown: code_pb2.UNIMPLEMENTED,
    errors.ServiceUnknown: code_pb2.NOT_FOUND,
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
    errors.CoursesConflict: code_pb2.ALREADY_EXISTS,
    errors.CourseIdHeldByDeletedCourse: code_pb2.ALREADY_EXISTS,
    errors.ExternalIdInUse: code_pb2.ALREADY_EXISTS,
    errors.CourseNotDeleted: code_pb2.ALREADY_EXISTS,
    errors.EtagMismatch: code_pb2.ABORTED,
    errors.InvalidStateTransition: code_pb2.FAILED_PRECONDITION,
    errors.CourseArchived: code_pb2.FAILED_PRECONDITION,
    errors.CourseDeleted: code_pb2.FAILED_PRECONDITION,
    errors.ResponseTooLarge: code_pb2.RESOURCE_EXHAUSTED,
    errors.DatabaseUnavailable: code_pb2.UNAVAILABLE,
    errors.Overloaded: code_pb2.RESOURCE_EXHAUSTED,
    errors.DeadlineExceeded: code_pb2.DEADLINE_EXCEEDED,
    errors.InternalError: code_pb2.INTERNAL,
    auth.CredentialsMissing: code_pb2.UNAUTHENTICATED,
    auth.CredentialsAmbiguous: code_pb2.UNAUTHENTICATED,
    auth.CertificateInvalid: code_pb2.UNAUTHENTICATED,
    auth.TokenMalformed: code_pb2.UNAUTHENTICATED,
    auth.TokenKeyUnknown: code_pb2.UNAUTHENTICATED,
    auth.TokenExpired: code_pb2.UNAUTHENTICATED,
    auth.TokenInvalid: code_pb2.UNAUTHENTICATED,
    auth.PermissionDenied: code_pb2.PERMISSION_DENIED,
}


def to_status(error: errors.CourseError, name_of: Callable[[str], str] = str, trace_id: str = "") -> status_pb2.Status:
    """Make the Status of an error: its code, its message, one ErrorInfo, and the details that fit its kind.

    `name_of` gives the name that a field of a violation has where the caller has sent it. The ErrorInfo says `traceId`
    if the call has one.
    """
    violations = [
        errors.Violation(name_of(violation.field), violation.reason, violation.description)
        for violation in error.violations
    ]
    message = _summary(violations) if violations else error.message
    code = CODES[type(error)]
    status = status_pb2.Status(code=code, message=_short(message, MAX_MESSAGE_BYTES))
    metadata = {**error.metadata, "traceId": trace_id} if trace_id else error.metadata
    status.details.append(_packed(error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)))
    if code == code_pb2.FAILED_PRECONDITION:
        failure = error_details_pb2.PreconditionFailure.Violation(
            type=error.reason, subject=error.resource_name, description=error.message
        )
        status.details.append(_packed(error_details_pb2.PreconditionFailure(violations=[failure])))
    elif error.resource_name:
        status.details.append(
            _packed(
                error_details_pb2.ResourceInfo(
                    resource_type=RESOURCE_TYPE, resource_name=error.resource_name, description=error.message
                )
            )
        )
    if error.retry_after_seconds:
        delay = Duration(seconds=error.retry_after_seconds)
        status.details.append(_packed(error_details_pb2.RetryInfo(retry_delay=delay)))
    if violations:
        room = MAX_DETAILS_BYTES - sum(detail.ByteSize() for detail in status.details)
        status.details.insert(1, _packed(_bad_request(violations, room - _PACKING_BYTES)))
    return status


def _summary(violations: Sequence[errors.Violation]) -> str:
    """Say the first violation, and how many more there are."""
    first, more = violations[0], len(violations) - 1
    sentence = first.description[0].lower() + first.description[1:].removesuffix(".")
    return f"{first.field}: {sentence}" + (f"; and {more} more" if more else "")


def _packed(detail: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed


def _bad_request(violations: Sequence[errors.Violation], room: int) -> error_details_pb2.BadRequest:
    """Put in as many violations as fit; the ErrorInfo's metadata counts them all."""
    bad_request = error_details_pb2.BadRequest()
    for violation in violations[:MAX_VIOLATIONS]:
        field_violation = error_details_pb2.BadRequest.FieldViolation(
            field=_short(violation.field),
            reason=violation.reason,
            description=_short(violation.description),
        )
        room -= field_violation.ByteSize() + 4
        if room < 0:
            break
        bad_request.field_violations.append(field_violation)
    return bad_request


def _short(text: str, max_encoded_bytes: int | None = None) -> str:
    """Cut a text to what a caller can use, and a message also to what its percent-encoded form may take."""
    cut = text if len(text) <= _MAX_TEXT_LENGTH else text[: _MAX_TEXT_LENGTH - 1] + "…"
    while max_encoded_bytes and len(quote(cut, safe=_SAFE)) > max_encoded_bytes:
        cut = cut.removesuffix("…")[:-8] + "…"
    return cut


# What gRPC leaves as it is in grpc-message: printable ASCII but the percent sign.
_SAFE = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")
