"""Why a request can fail: one class for each reason, free of any library of transport or storage.

`status.py` gives each class its status code.
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


class StartupError(Exception):
    """The service cannot start; the message says in one line why and what to do."""


class PortTaken(StartupError):
    """The address to listen on is in use, or is not this machine's."""

    def __init__(self, address: str, setting: str) -> None:
        super().__init__(f"cannot listen on {address}: it is in use or not an address of this machine; set {setting}")


class CourseError(Exception):
    """A request failed for a reason that its caller can act on.

    `reason` names it for programs, the message tells people, and `metadata` holds every part of the message that
    varies.
    """

    reason: str

    def __init__(self, message: str, **metadata: str) -> None:
        super().__init__(message)
        self.message = message
        self.metadata: Mapping[str, str] = metadata


class RequestMalformed(CourseError):
    """The request's bytes are not a message or document of the expected kind."""

    reason = "REQUEST_MALFORMED"


class RequestInvalid(CourseError):
    """Fields of the request break rules; `violations` has all of them."""

    reason = "REQUEST_INVALID"

    def __init__(self, violations: Sequence[Violation]) -> None:
        count = len(violations)
        fields = [*dict.fromkeys(violation.field for violation in violations[:5]), *(["…"] if count > 5 else [])]
        super().__init__(
            f"The request breaks {count} rule(s); see the violations of: {', '.join(fields)}",
            violationCount=str(count),
        )
        self.violations = violations


class RequestTooLarge(CourseError):
    """The request has more bytes than the service reads."""

    reason = "REQUEST_TOO_LARGE"

    def __init__(self, limit: int) -> None:
        super().__init__(f"A request has at most {limit} bytes.", limit=str(limit))


class CourseNotFound(CourseError):
    """There is no course of this name."""

    reason = "COURSE_NOT_FOUND"

    def __init__(self, name: str) -> None:
        super().__init__(f"There is no course {name}.", name=name)
        self.resource_name = name


class CourseAlreadyExists(CourseError):
    """The name is taken by another course."""

    reason = "COURSE_ALREADY_EXISTS"

    def __init__(self, name: str) -> None:
        super().__init__(f"There is already a course {name}; choose another course_id.", name=name)
        self.resource_name = name


class RouteNotFound(CourseError):
    """There is nothing at this HTTP path."""

    reason = "ROUTE_NOT_FOUND"


class MethodNotAllowed(CourseError):
    """The HTTP path is there, but not for this method."""

    reason = "METHOD_NOT_ALLOWED"


class DatabaseUnavailable(CourseError):
    """The database does not answer, or cannot take the work now; nothing was stored as far as the service knows."""

    reason = "DATABASE_UNAVAILABLE"
    retry_after_seconds = 1

    def __init__(self) -> None:
        super().__init__("The database is not available; try again.")


class InternalError(CourseError):
    """A bug in the service. Callers get an id only; the log has the rest under that id."""

    reason = "INTERNAL"

    def __init__(self, error_id: str) -> None:
        super().__init__(f"Internal error; its id in the service's log is {error_id}.", error_id=error_id)
