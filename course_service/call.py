"""The call that is being worked on, known wherever its work leads: who calls, what, and until when."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

ANONYMOUS = "anonymous"
"""The caller of every call, as long as nobody has to say who they are."""

UNKNOWN_METHOD = "unknown"
"""The method of a call to a method or path that does not exist."""
DOCUMENTATION = "http/documentation"
PROBE = "http/health"
"""The methods of what HTTP has beside the courses."""

READ_SECONDS = 5.0
"""The longest that a method that only reads may take."""

MAX_SECONDS = 10.0
"""The longest that a call may take, and what it may take if its caller sets no deadline."""

STREAM_SECONDS = 3600.0
"""The longest that a stream may take."""

BODY_SECONDS = 5.0
"""How long the message or body of a call may take to arrive, from the call's start."""


@dataclass(slots=True, eq=False)
class Call:
    """One call, from where it comes in to its response."""

    face: str = ""
    """How it came in: `grpc` or `http`."""
    method: str = UNKNOWN_METHOD
    """The method of the contract, such as `GetCourse`. Of another service it is named with the service, such as
    `grpc.health.v1.Health/Check`, and so is HTTP's documentation."""
    caller: str = ANONYMOUS
    """Who calls. Request ids belong to their caller."""
    arrived: float = field(default_factory=time.monotonic)
    """When it came in, by `time.monotonic()`."""
    waits_since: float = math.inf
    """Since when it has waited for its turn, by `time.monotonic()`; infinity if it has not."""
    deadline: float = field(default_factory=lambda: time.monotonic() + MAX_SECONDS)
    """When the caller stops waiting, by `time.monotonic()`."""
    request_id: str = ""
    """The call's request_id, if it has one."""
    course: str = ""
    """The name of the course that a write is about; of several, their names with commas between them."""
    trace_id: str = ""
    """The W3C trace that the call belongs to, in hexadecimal; empty while there are no traces."""
    trace: object = None
    """What the traces keep of the call until it has ended."""
    is_surplus: bool = False
    """Whether it is refused at once: too many wait, or it would come too late, or its message is too large for now."""
    code: str = "OK"
    """How it ended: the name of a gRPC status code."""
    reason: str = ""
    """Why it failed: the reason of the error."""
    error_id: str = ""
    """Finds the log's line about an internal error."""
    cause: str = ""
    """Why it failed, for the log alone."""
    is_idle: bool = False
    """Whether its thread waits for something, and needs no CPU."""
    on_idle: Callable[[Call], object] | None = None
    """Told when that changes."""

    def note_request_id(self, text: str) -> None:
        """Take the request_id of a request that may yet be refused; what is no UUID is left out."""
        if text and _UUID.fullmatch(text):
            self.request_id = text.lower()

    @property
    def is_about_service(self) -> bool:
        """Whether it is about the service itself and not about courses: health, reflection, documentation."""
        return "/" in self.method


_current: ContextVar[Call | None] = ContextVar("call", default=None)


def begin(call: Call) -> Call | None:
    """Make `call` the current one, until `end` gets what this returns: the one that was current before."""
    before = _current.get()
    _current.set(call)
    return before


def end(before: Call | None) -> None:
    """Make the call that was current before the current one again, maybe in another thread than where it began."""
    _current.set(before)


@contextmanager
def working_on(call: Call) -> Iterator[None]:
    """Make `call` the current one."""
    before = begin(call)
    try:
        yield
    finally:
        end(before)


class idle(AbstractContextManager[None]):  # noqa: N801  # used as the functions beside it; a generator costs more
    """Note that the current call's thread waits for something and needs no CPU, until the context ends."""

    __slots__ = ("_call",)

    def __enter__(self) -> None:
        """Begin, unless it is idle already."""
        call = _current.get()
        self._call = call if call and call.on_idle and not call.is_idle else None
        self._change(is_idle=True)

    def __exit__(self, *_: object) -> None:
        """End what has begun here."""
        self._change(is_idle=False)

    def _change(self, *, is_idle: bool) -> None:
        call = self._call
        if call and call.on_idle:
            call.is_idle = is_idle
            call.on_idle(call)


def current() -> Call:
    """Return the current call; outside of a call, a new one."""
    return _current.get() or Call()


_READS = frozenset({"GetCourse", "ListCourses", "BatchGetCourses"})


def is_read(method: str) -> bool:
    """Whether a method of the contract only reads."""
    return method in _READS


def most_seconds(method: str) -> float:
    """Return the longest that a call of a method may take."""
    return READ_SECONDS if method in _READS else MAX_SECONDS


def deadline_after(seconds: float) -> float:
    """Return the deadline of a call whose caller waits for `seconds` from now on."""
    return time.monotonic() + seconds


def is_working() -> bool:
    """Whether there is a current call."""
    return _current.get() is not None


def remaining() -> float:
    """Return the seconds left until the deadline of the current call; MAX_SECONDS outside of any."""
    call = _current.get()
    return MAX_SECONDS if call is None else call.deadline - time.monotonic()
