"""The way around every call, written once for unary gRPC calls, gRPC streams and HTTP requests.

A face makes a `Call` of what comes in and passes these steps, in this order:

1. `observed`: from here on the call is the current one; when it has ended, however it ended, its line is logged.
2. `entered`: who calls (identify), may they (authorise), is there room (admit). None of these reads the request's body.
3. The work, which `call.remaining()` bounds by the call's deadline.
4. `failed`: whatever was raised becomes the error's status.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from google.rpc import code_pb2, status_pb2

from course_service.call import Call, working_on
from course_service.errors import CourseError
from course_service.guard.internal import report
from course_service.guard.status import to_status
from course_service.guard.steps import Admit, Authorise, Credentials, Identify, always, anonymous, everybody

_log = logging.getLogger("course_service.calls")


class Guard:
    """The steps around a call."""

    def __init__(
        self, *, identify: Identify = anonymous, authorise: Authorise = everybody, admit: Admit = always
    ) -> None:
        self._identify = identify
        self._authorise = authorise
        self._admit = admit

    @contextmanager
    def observed(self, call: Call) -> Iterator[None]:
        """Make a call the current one, and log its line when it has ended."""
        start = time.perf_counter()
        try:
            with working_on(call):
                yield
        finally:
            log_call(call, time.perf_counter() - start)

    @contextmanager
    def entered(self, call: Call, credentials: Credentials) -> Iterator[None]:
        """Let a call in, until its work is done. Raises what the steps raise."""
        call.caller = self._identify(credentials)
        self._authorise(call)
        with self._admit(call):
            yield

    def failed(self, call: Call, exception: BaseException, name_of: Callable[[str], str] = str) -> status_pb2.Status:
        """Make the status of a call whose work has raised; to be called where the exception is caught.

        Afterwards the exception refers to no frame any more. One that does (and is referred to by one, as SQLAlchemy's
        are) keeps everything that the call used, gRPC's own part of it too, until the garbage collector runs.
        """
        error = exception if isinstance(exception, CourseError) else report(exception)
        status = to_status(error, name_of)
        call.code = code_pb2.Code.Name(status.code)
        call.reason = error.reason
        call.error_id = error.metadata.get("errorId", "")
        call.cause = error.cause
        _forget_frames(exception)
        return status


def log_call(call: Call, seconds: float) -> None:
    """Log the line of a call that has ended: how it ended, how long it took, who called. It has no values of fields."""
    level = logging.DEBUG if call.is_plumbing else logging.INFO
    if not _log.isEnabledFor(level):
        return
    parts = [f"{call.face} {call.method} {call.code}"]
    if call.reason:
        parts.append(call.reason)
    parts.append(f"{seconds * 1000:.1f} ms caller={call.caller}")
    if call.request_id:
        parts.append(f"request_id={call.request_id}")
    if call.error_id:
        parts.append(f"error_id={call.error_id}")
    if call.cause:
        parts.append(f"cause={call.cause}")
    _log.log(level, " ".join(parts))


def _forget_frames(exception: BaseException | None) -> None:
    while exception is not None:
        exception.__traceback__ = None
        exception = exception.__cause__ or exception.__context__
