"""Bounds what a caller can keep waiting: grpcio itself waits without limit for a message, and for a reader."""

from __future__ import annotations

import threading
import time

import grpc

from course_service import call
from course_service.guard.internal import report
from course_service.rpc.task import Task

_MAX_RECEIVING = 200
"""How many calls may wait for their messages at once. For one more, the one that has waited longest is cancelled."""
LARGE_BYTES = 1 << 16
"""From what size on a response is watched: what is smaller, callers take in by themselves."""
READ_SECONDS = 10.0
"""How long a caller may take to read a large response."""
MAX_UNREAD_BYTES = 64 << 20
"""What all large responses that have not been read may hold together. If it is more, those that wait longest go."""
_PAUSE_SECONDS = 0.05
"""How late a call is cancelled at most."""


class Watchdog:
    """Cancels calls whose time is up, from a thread of its own."""

    def __init__(self) -> None:
        self._receiving: dict[Task, None] = {}
        """Calls whose messages have not come; the first has waited longest."""
        self._others: set[Watched] = set()
        """Streams and large responses."""
        self._begun = threading.Event()
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    def receives(self, task: Task) -> None:
        """Watch over a call whose message has not come, until it `has_received`."""
        if len(self._receiving) >= _MAX_RECEIVING:
            longest = next(iter(self._receiving.copy()), None)
            if longest:
                self.has_received(longest)
                longest.cancel()
        self._receiving[task] = None
        if not self._begun.is_set():
            self._begun.set()

    def has_received(self, task: Task) -> None:
        """Watch no longer."""
        self._receiving.pop(task, None)

    def stream(self, context: grpc.ServicerContext, seconds: float) -> Watched:
        """Watch over a stream, or over what is sent on it, that may take some seconds."""
        return Watched(self, context, seconds)

    def response(self, context: grpc.ServicerContext, size: int) -> None:
        """Watch over a large response until its call has ended."""
        watched = Watched(self, context, READ_SECONDS, size=size)
        self.begin(watched)
        if not context.add_callback(lambda: self.end(watched)):
            self.end(watched)
            return
        unread = sorted((other for other in tuple(self._others) if other.size), key=lambda other: other.deadline)
        held = sum(other.size for other in unread)
        for other in unread:
            if held <= MAX_UNREAD_BYTES:
                return
            held -= other.size
            self.end(other)
            other.cancel()

    def begin(self, watched: Watched) -> None:
        """Begin to watch."""
        self._others.add(watched)
        if not self._begun.is_set():
            self._begun.set()

    def end(self, watched: Watched) -> None:
        """End to watch."""
        self._others.discard(watched)

    def _run(self) -> None:
        while True:
            if not (self._receiving or self._others):
                self._begun.wait()
            self._begun.clear()
            time.sleep(_PAUSE_SECONDS)  # at every turn: most messages are there at once, and not worth a look each
            self._look_safely()

    def _look_safely(self) -> None:
        try:
            self._look()
        except Exception as exception:  # or nobody would be watched any more
            report(exception)

    def _look(self) -> None:
        now = time.monotonic()
        for task in self._receiving.copy():
            if task.arrived + call.BODY_SECONDS <= now:
                task.cancel()
        for watched in tuple(self._others):
            if watched.deadline <= now:
                watched.cancel()


class Watched:
    """What is watched for as long as the context lasts, or from `begin` to `end`."""

    __slots__ = ("_context", "_watchdog", "deadline", "size")

    def __init__(self, watchdog: Watchdog, context: grpc.ServicerContext, seconds: float, *, size: int = 0) -> None:
        self._watchdog = watchdog
        self._context = context
        self.deadline = time.monotonic() + seconds
        self.size = size

    def cancel(self) -> None:
        """End the call."""
        self._context.cancel()

    def __enter__(self) -> None:
        """Begin."""
        self._watchdog.begin(self)

    def __exit__(self, *_: object) -> None:
        """End."""
        self._watchdog.end(self)
