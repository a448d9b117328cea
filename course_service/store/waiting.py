"""How the driver waits for PostgreSQL: until the call's deadline, and no longer.

Nothing in libpq or PostgreSQL bounds the wait for a server that has frozen: each time limit of theirs is one that the
server itself, or its kernel, would have to keep. psycopg2 takes a function that waits in its place, for every
connection of the process: https://www.psycopg.org/docs/extensions.html#psycopg2.extensions.set_wait_callback
"""

import contextlib
import select
import time
from collections.abc import Iterator
from contextvars import ContextVar

import psycopg2
from psycopg2.extensions import POLL_OK, POLL_READ, set_wait_callback

from course_service import call

_connect_deadline: ContextVar[float] = ContextVar("connect_deadline", default=float("inf"))


class NoResponse(psycopg2.OperationalError):
    """The server has not responded in time. The connection is closed, and what it did is rolled back."""


@contextlib.contextmanager
def connecting(seconds: float) -> Iterator[None]:
    """Give up what is waited for after some seconds, whatever time the current call has left."""
    token = _connect_deadline.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _connect_deadline.reset(token)


def wait(connection: psycopg2.extensions.connection) -> None:
    """Wait until the server has responded, outside of a call for ever.

    Raises `NoResponse`, which has psycopg2 close the connection. Not bounded is how long the system takes to look up
    the name of a host: psycopg2 does that before it waits.
    """
    while (state := connection.poll()) != POLL_OK:
        seconds = _connect_deadline.get() - time.monotonic()
        if call.is_working():
            seconds = min(seconds, call.remaining())
        poll = select.poll()  # not select(), which takes no file number over 1,023
        poll.register(connection.fileno(), select.POLLIN if state == POLL_READ else select.POLLOUT)
        milliseconds = None if seconds == float("inf") else max(0.0, seconds * 1000)
        with call.idle():
            has_responded = seconds > 0 and poll.poll(milliseconds)
        if not has_responded:
            raise NoResponse("no response in time")


set_wait_callback(wait)
