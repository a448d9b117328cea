"""Why a request can fail: one class for each reason, free of any library of transport or storage.

`guard/status.py` gives each class its status code.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing wrong with one field of a request."""

    field: str
    """Path of the field in the request, such as `course.labels["x"]`."""
    reason: str
    """Stable name of the rule, such as `FIELD_TOO_LONG`."""
    description: str
    """A sentence for people, with the limit."""


class CourseError(Exception):
    """A request failed for a reason that its caller can act on.

    `reason` names it for programs, the message for people, and `metadata` (its keys in lowerCamelCase) holds every part
    of the message that varies. `violations` are the faults in single fields: where there are any, callers get them as
    the message. `resource_name` is the course that the error is about. `cause` is for the log alone. A caller that
    waits `retry_after_seconds` and tries again may succeed; 0 says nothing about that.
    """

    reason: str
    violations: Sequence[Violation] = ()
    resource_name: str = ""
    cause: str = ""
    retry_after_seconds: int = 0

    def __init__(self, message: str, **metadata: str) -> None:
        super().__init__(message)
        self.message = message
        self.metadata: Mapping[str, str] = metadata


# What is wrong with the request itself.


class RequestMalformed(CourseError):
    """The request's bytes are not a message or document of the expected kind."""

    reason = "REQUEST_MALFORMED"


class RequestInvalid(CourseError):
    """Fields of the request break rules; `violations` has all of them."""

    reason = "REQUEST_INVALID"

    def __init__(self, violations: Sequence[Violation]) -> None:
        super().__init__("The request breaks rules.", violationCount=str(len(violations)))
        self.violations = violations


class FieldMaskInvalid(RequestInvalid):
    """The update mask names what is no field, or has more than its `*`; nothing else is wrong with the request."""

    reason = "FIELD_MASK_INVALID"


class RequestTooLarge(CourseError):
    """The request has more bytes than the service reads."""

    reason = "REQUEST_TOO_LARGE"

    def __init__(self, limit: int) -> None:
        super().__init__(f"A request has at most {limit} bytes.", limit=str(limit))


class HeadersTooLarge(CourseError):
    """The headers of an HTTP request have more bytes than the service reads."""

    reason = "HEADERS_TOO_LARGE"

    def __init__(self, limit: int) -> None:
        super().__init__(f"The headers of a request have at most {limit} bytes.", limit=str(limit))


class MethodUnknown(CourseError):
    """The service has no gRPC method of this name."""

    reason = "METHOD_UNKNOWN"

    def __init__(self, method: str) -> None:
        super().__init__(f"There is no method {method[:200]}.", method=method[:200])


class ServiceUnknown(CourseError):
    """The health of a service was asked for that is not one of this process."""

    reason = "SERVICE_UNKNOWN"

    def __init__(self, service: str) -> None:
        super().__init__(f"There is no service {service[:200]}.", service=service[:200])


class RouteNotFound(CourseError):
    """There is nothing at this HTTP path."""

    reason = "ROUTE_NOT_FOUND"

    def __init__(self, path: str) -> None:
        super().__init__(f"There is nothing at {path[:200]}.", path=path[:200])


class MethodNotAllowed(CourseError):
    """The HTTP path exists, but not for this method."""

    reason = "METHOD_NOT_ALLOWED"

    def __init__(self, method: str, allowed: Sequence[str]) -> None:
        allow = ", ".join(allowed)
        super().__init__(f"This path takes {allow}, not {method[:20]}.", method=method[:20], allow=allow)


class _FieldError(CourseError):
    """One field is invalid; the error has a reason of its own and one violation of the same reason."""

    field: str

    def __init__(self, description: str, **metadata: str) -> None:
        super().__init__(description, **metadata)
        self.violations = [Violation(self.field, self.reason, description)]


class PageSizeNegative(_FieldError):
    """A page cannot have fewer courses than none."""

    reason = "PAGE_SIZE_NEGATIVE"
    field = "page_size"

    def __init__(self, page_size: int) -> None:
        super().__init__(f"Must not be negative; is {page_size}.", pageSize=str(page_size))


class PageTokenInvalid(_FieldError):
    """The page token was not made by this service, or has been changed."""

    reason = "PAGE_TOKEN_INVALID"
    field = "page_token"

    def __init__(self) -> None:
        super().__init__("Must be a next_page_token, unchanged.")


class PageTokenMismatch(_FieldError):
    """The page token belongs to another list."""

    reason = "PAGE_TOKEN_MISMATCH"
    field = "page_token"

    def __init__(self) -> None:
        super().__init__("Belongs to a list with another filter, order_by, show_deleted or view.")


class FilterInvalid(_FieldError):
    """The filter cannot be understood; `position` counts characters from 0."""

    reason = "FILTER_INVALID"
    field = "filter"

    def __init__(self, problem: str, position: int) -> None:
        super().__init__(f"{problem} (at position {position}).", position=str(position))


class OrderByInvalid(_FieldError):
    """The order cannot be understood; `position` counts characters from 0."""

    reason = "ORDER_BY_INVALID"
    field = "order_by"

    def __init__(self, problem: str, position: int) -> None:
        super().__init__(f"{problem} (at position {position}).", position=str(position))


class RequestIdReused(_FieldError):
    """Another request has been made under this request_id."""

    reason = "REQUEST_ID_REUSED"
    field = "request_id"

    def __init__(self, request_id: str) -> None:
        super().__init__("Was used for another request; make a new one.", requestId=request_id)


# What is wrong with the request, seen what is stored.


class CourseNotFound(CourseError):
    """There is no course of this name, or of several names."""

    reason = "COURSE_NOT_FOUND"

    def __init__(self, name: str) -> None:
        super().__init__(f"There is no course {name}.", name=name)
        self.resource_name = name


class CoursesNotFound(CourseNotFound):
    """Some of several courses do not exist."""

    def __init__(self, names: Sequence[str], missing: Sequence[int]) -> None:
        super().__init__(names[missing[0]])
        self.message = f"{len(missing)} of {len(names)} courses do not exist; the first is {names[missing[0]]}."
        listed = ""
        for index in missing:
            if len(listed) + len(names[index]) > 2_000:  # the indexes name the rest
                break
            listed += ("," if listed else "") + names[index]
        self.metadata = {"missingCount": str(len(missing)), "indexes": ",".join(map(str, missing)), "names": listed}


class CourseAlreadyExists(CourseError):
    """The name is taken by another course."""

    reason = "COURSE_ALREADY_EXISTS"

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} exists; choose another course_id.", name=name)
        self.resource_name = name


class CourseIdHeldByDeletedCourse(CourseError):
    """The name belongs to a deleted course until that is purged."""

    reason = "COURSE_ID_HELD_BY_DELETED_COURSE"

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} is deleted and not yet purged; undelete it, or choose another course_id.", name=name)
        self.resource_name = name


class ExternalIdInUse(CourseError):
    """Another course, perhaps a deleted one, has this external id."""

    reason = "EXTERNAL_ID_IN_USE"

    def __init__(self, key: str, value: str) -> None:
        super().__init__(f"Another course has the external id {key} = {value}.", key=key, value=value)
        self.violations = [Violation(f'course.external_ids["{key}"]', self.reason, self.message)]


class CoursesConflict(CourseAlreadyExists):
    """Courses of a batch cannot be stored; has the reason of the first one, and a violation for each."""

    def __init__(self, conflicts: Mapping[int, CourseError]) -> None:
        first = next(iter(conflicts.values()))
        super().__init__(first.resource_name)
        self.reason = first.reason
        self.message = first.message
        self.metadata = {**first.metadata, "violationCount": str(len(conflicts))}
        self.violations = [
            Violation(
                f"requests[{index}].{conflict.violations[0].field if conflict.violations else 'course_id'}",
                conflict.reason,
                conflict.message,
            )
            for index, conflict in conflicts.items()
        ]


class CourseNotDeleted(CourseError):
    """Only a deleted course can be undeleted."""

    reason = "COURSE_NOT_DELETED"

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} is not deleted.", name=name)
        self.resource_name = name


class EtagMismatch(CourseError):
    """The course has changed since the caller read it."""

    reason = "ETAG_MISMATCH"

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} has changed since this etag was read; read it again, then decide.", name=name)
        self.resource_name = name


class InvalidStateTransition(CourseError):
    """The course's state does not allow this step."""

    reason = "INVALID_STATE_TRANSITION"

    def __init__(self, name: str, origin: str, target: str) -> None:
        super().__init__(f"{name} is {origin} and cannot become {target}.", name=name, **{"from": origin, "to": target})
        self.resource_name = name


class CourseArchived(CourseError):
    """An archived course is read-only."""

    reason = "COURSE_ARCHIVED"

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} is archived; publish it to change it.", name=name)
        self.resource_name = name


class CourseDeleted(CourseError):
    """A deleted course is read-only."""

    reason = "COURSE_DELETED"

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} is deleted; undelete it to change it.", name=name)
        self.resource_name = name


class ResponseTooLarge(CourseError):
    """The courses asked for are more than one response may hold."""

    reason = "RESPONSE_TOO_LARGE"

    def __init__(self) -> None:
        super().__init__("The courses are too large for one response; ask for fewer, or for view BASIC.")


# What is wrong with the service.


class DatabaseUnavailable(CourseError):
    """The database does not respond, or cannot take the work now. A write that was cut off may have been stored."""

    reason = "DATABASE_UNAVAILABLE"
    retry_after_seconds = 1

    def __init__(self, cause: str = "") -> None:
        super().__init__("The database is not available; try again.")
        self.cause = cause


class Overloaded(CourseError):
    """More calls come in than the service can work on in time. This one has not been worked on."""

    reason = "OVERLOADED"
    retry_after_seconds = 1

    def __init__(self) -> None:
        super().__init__("The service has more calls than it can work on; try again later.")


class DeadlineExceeded(CourseError):
    """The call took longer than its caller waits, or than the service allows. Nothing was stored."""

    reason = "DEADLINE_EXCEEDED"

    def __init__(self) -> None:
        super().__init__("The call took too long; ask for less, or allow it more time.")


class InternalError(CourseError):
    """A bug in the service. Callers get an id only; the log has the rest under that id."""

    reason = "INTERNAL"

    def __init__(self, error_id: str) -> None:
        super().__init__(f"Internal error; its id in the service's log is {error_id}.", errorId=error_id)
