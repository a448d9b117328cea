"""How long the call that is being worked on may still take; set where a call comes in, asked wherever it could wait."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

MAX_SECONDS = 10.0
"""What a call may take that has no deadline of its own, or a later one."""

_deadline: ContextVar[float | None] = ContextVar("deadline", default=None)


@contextmanager
def within(seconds: float | None) -> Iterator[None]:
    """Work on a call whose caller waits for this long; None: for ever."""
    token = _deadline.set(time.monotonic() + min(MAX_SECONDS, MAX_SECONDS if seconds is None else seconds))
    try:
        yield
    finally:
        _deadline.reset(token)


def remaining() -> float:
    """Return the seconds left; MAX_SECONDS outside of any call."""
    deadline = _deadline.get()
    return MAX_SECONDS if deadline is None else deadline - time.monotonic()
