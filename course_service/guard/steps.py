"""The steps that a call passes around its work. Those before it can refuse it, by raising an error of `errors.py`."""

import logging
import time
from collections.abc import Callable, Iterable

from course_service.call import ANONYMOUS, Call
from course_service.errors import CourseError, Overloaded


class Credentials:
    """What a caller has shown of itself; each face reads it where it has it, if somebody asks."""

    __slots__ = ("caller", "refusal")

    def __init__(self) -> None:
        self.caller = ""
        """Who has shown them, if the guard has been asked before the call's turn."""
        self.refusal: CourseError | None = None
        """Why the call is refused, if the guard has been asked before the call's turn, and refuses it."""

    def pairs(self) -> Iterable[tuple[str, str | bytes]]:
        """Return the call's metadata (gRPC) or headers (HTTP): names in lower case, and values as often as sent."""
        raise NotImplementedError

    def certificate(self) -> bytes | None:
        """Return the certificate that the client has shown when it connected, PEM or DER."""
        raise NotImplementedError

    def values(self, name: str) -> list[str]:
        """Return every text value that was sent under a name."""
        return [value for key, value in self.pairs() if key == name and isinstance(value, str)]


Identify = Callable[[Call, Credentials], str]
"""Says who calls, or raises because it is not known."""
Authorise = Callable[[Call], None]
"""Raises unless the caller may call the method."""
Admit = Callable[[Call], None]
"""Raises unless there is room for the call."""


Begin = Callable[[Call, Credentials], None]
"""Observes a call that begins, of which it is not known yet who calls."""
Observe = Callable[[Call, float], None]
"""Observes a call that has ended, and how many seconds it took."""


def anonymous(_: Call, __: Credentials) -> str:
    """Everybody is anonymous: nobody has to say who they are."""
    return ANONYMOUS


def everybody(_: Call) -> None:
    """Every caller may call every method."""


def in_time(call: Call) -> None:
    """Let every call in whose turn comes in time. Raises `Overloaded`.

    One that has waited for its turn longer than it has time left is given up: under overload all calls wait, and who
    works on each until its last moment finishes none.
    """
    now = time.monotonic()
    is_late = now - call.waits_since > call.deadline - now > 0
    if call.is_surplus or (is_late and not call.is_about_service):
        raise Overloaded


def comes_too_late(call: Call, seconds: float) -> bool:
    """Whether a call that comes in will have to be given up when its turn comes, if it has to wait so many seconds.

    They are taken twice: who has waited longest yet has to wait on, and to refuse a call at its turn costs more than to
    refuse it at once.
    """
    return 4 * seconds > call.deadline - call.arrived and not call.is_about_service


CALLS = "course_service.calls"
"""The logger of the calls' lines."""


def log_call(call: Call, seconds: float) -> None:
    """Log the line of a call."""
    logging.getLogger(CALLS).log(level_of(call), call_line(call, seconds))


def level_of(call: Call) -> int:
    """Return the level at which a call is logged."""
    return logging.DEBUG if call.is_about_service else logging.INFO


def call_line(call: Call, seconds: float) -> str:
    """Say how a call ended, how long it took, and who called. Of the request it has names of courses and no values."""
    line = f"{call.face} {call.method} {call.code} {seconds * 1000:.1f} ms caller={call.caller}"
    for name in ("reason", "request_id", "course", "trace_id", "error_id", "cause"):
        if value := getattr(call, name):
            line += f" {name}={value}"
    return line
