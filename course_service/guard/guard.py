"""The way around every call, written once for unary gRPC calls, gRPC streams and HTTP requests.

A face makes a `Call` of what comes in and passes these steps, in this order:

1. `observed`: from here on the call is the current one; when it has ended, however it ended, it is observed once (the
   log has one line of it).
2. `enter`: who calls (identify), may they (authorise), is there room (admit), is there time (deadline). None of these
   looks at the request's message or body. HTTP's probes alone do not enter.
3. The work, which `call.remaining()` bounds by the call's deadline.
4. `failed`: whatever was raised becomes the error's status.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from google.rpc import code_pb2, status_pb2

from course_service.call import Call, begin, end
from course_service.errors import CourseError, DeadlineExceeded, Overloaded
from course_service.guard.internal import report
from course_service.guard.status import to_status
from course_service.guard.steps import (
    Admit,
    Authorise,
    Begin,
    Credentials,
    Identify,
    Observe,
    anonymous,
    everybody,
    in_time,
    log_call,
)


class Guard:
    """The steps around a call."""

    def __init__(
        self,
        *,
        identify: Identify = anonymous,
        authorise: Authorise = everybody,
        admit: Admit = in_time,
        begin: Begin | None = None,
        observe: Observe = log_call,
    ) -> None:
        self._identify = identify
        self._authorise = authorise
        self._admit = admit
        self._begin = begin
        self._observe = observe

    def observed(self, call: Call, credentials: Credentials) -> AbstractContextManager[None]:
        """Make a call the current one; when it has ended, however it ended, observe it."""
        if self._begin:
            self._begin(call, credentials)
        return _Observed(call, self._observe)

    def identified(self, call: Call, credentials: Credentials) -> None:
        """Find out who calls before the call's turn comes, so that callers can take turns; raises nothing.

        It is not asked again when the call enters. If the call is refused, `enter` says so, and it need not wait for
        its message.
        """
        try:
            credentials.caller = call.caller = self._identify(call, credentials)
            self._authorise(call)
        except CourseError as error:
            credentials.refusal = error
        except Exception as exception:  # grpcio's own thread would end with it
            credentials.refusal = report(exception)

    def enter(self, call: Call, credentials: Credentials) -> None:
        """Let a call in. Raises what the steps raise."""
        if credentials.refusal:
            raise credentials.refusal
        call.caller = credentials.caller or self._identify(call, credentials)
        self._authorise(call)
        self._admit(call)
        if call.deadline <= time.monotonic():
            raise DeadlineExceeded

    def failed(self, call: Call, exception: BaseException, name_of: Callable[[str], str] = str) -> status_pb2.Status:
        """Make the status of a call whose work has raised; to be called where the exception is caught.

        Afterwards the exception has no traceback. A traceback in a reference cycle, as SQLAlchemy's errors have one,
        keeps the gRPC call open until the garbage collector runs.
        """
        error = exception if isinstance(exception, CourseError) else report(exception)
        is_often = isinstance(error, Overloaded) and not call.trace_id
        status = _OVERLOADED if is_often else to_status(error, name_of, call.trace_id)
        call.code = code_pb2.Code.Name(status.code)
        call.reason = error.reason
        call.error_id = error.metadata.get("errorId", "")
        call.cause = error.cause
        forget_frames(exception)
        return status


# Made once: when there is too much to do, this is what is done most often.
_OVERLOADED = to_status(Overloaded())


class _Observed(AbstractContextManager[None]):
    # A class, because a generator costs every call twice as much.
    __slots__ = ("_before", "_call", "_observe", "_start")

    def __init__(self, call: Call, observe: Observe) -> None:
        self._call = call
        self._observe = observe

    def __enter__(self) -> None:
        self._start = time.perf_counter()
        self._before = begin(self._call)

    def __exit__(self, *_: object) -> None:
        end(self._before)
        self._observe(self._call, time.perf_counter() - self._start)


def forget_frames(exception: BaseException) -> None:
    """Take the traceback from an exception, and from those that led to it."""
    seen: set[BaseException] = set()
    waiting: list[BaseException | None] = [exception]
    while waiting:
        found = waiting.pop()
        if found is not None and found not in seen:
            seen.add(found)
            found.__traceback__ = None
            waiting += (found.__cause__, found.__context__)
