"""Bounds what a caller can keep waiting: grpcio itself waits for a message without limit, and a thread with it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import grpc

from course_service import call
from course_service.guard.internal import report
from course_service.rpc.threads import CallThreads, Worker

LEAST_SECONDS = 0.05
"""What a message may take once its call has a thread, even if the call has waited for one until its time was over."""
_PATIENCE_SECONDS = 0.01
"""How long a thread waits for a message before another takes its place."""
_MAX_REPLACED = 200
"""How many threads are replaced at once. For one more, the call that has waited longest is cancelled first."""
LARGE_BYTES = 1 << 16
"""From what size on a response is watched: what is smaller, callers take in by themselves."""
READ_SECONDS = 10.0
"""How long a caller may take to read a large response."""
MAX_UNREAD_BYTES = 64 << 20
"""What all large responses that have not been read may hold together. If it is more, those that wait longest go."""
_PAUSE_SECONDS = 0.01
_LONG_PAUSE_SECONDS = 0.1
"""How late a call is cancelled at most, if nobody waits for it."""


class Watchdog:
    """Replaces threads that wait for a message, and cancels calls whose time is up, from a thread of its own."""

    def __init__(self) -> None:
        self._waiting: dict[grpc.ServicerContext, tuple[Worker, float]] = {}
        """By call: the thread that waits for its message, and since when."""
        self._replaced: dict[grpc.ServicerContext, Watched] = {}
        """By call: what has waited so long that another thread is in its thread's place."""
        self._others: set[Watched] = set()
        """Streams and large responses."""
        self._begun = threading.Event()
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    def next_message(self, messages: Iterator[bytes], context: grpc.ServicerContext, worker: Worker) -> bytes | None:
        """Wait for the next message of a call; None if there is none, or if it did not come in time."""
        self._waiting[context] = worker, time.monotonic()
        if not self._begun.is_set():
            self._begun.set()
        try:
            return next(messages, None)
        finally:
            if self._waiting.pop(context, None) is None:
                self._replaced.pop(context)
                worker.threads.retire()

    def stream(self, context: grpc.ServicerContext, seconds: float) -> Watched:
        """Watch over a stream, or over what is sent on it, that may take some seconds."""
        return Watched(self, context, time.monotonic() + seconds)

    def response(self, context: grpc.ServicerContext, size: int) -> None:
        """Watch over a large response until its call has ended."""
        watched = Watched(self, context, time.monotonic() + READ_SECONDS, size=size)
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
            if not self._waiting:
                self._begun.wait(_LONG_PAUSE_SECONDS if self._others or self._replaced else None)
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
        for watched in (*self._others, *self._replaced.copy().values()):
            if watched.deadline <= now:
                watched.cancel()
        for context, (worker, since) in self._waiting.copy().items():
            if now - since >= _PATIENCE_SECONDS:
                deadline = max(worker.arrived + call.BODY_SECONDS, since + LEAST_SECONDS)
                self._replace(Watched(self, context, deadline), worker.threads)

    def _replace(self, watched: Watched, threads: CallThreads) -> None:
        """Put another thread in the place of one that waits, or try again at the next look."""
        replaced = self._replaced.copy().values()
        if len(replaced) >= _MAX_REPLACED:
            remaining = [other for other in replaced if not other.is_cancelled]
            if remaining:
                min(remaining, key=lambda other: other.deadline).cancel()
            return
        try:
            threads.replace()
        except RuntimeError:  # the machine has no more threads
            return
        self._replaced[watched.context] = watched
        if self._waiting.pop(watched.context, None) is None:  # its message has just arrived
            self._replaced.pop(watched.context)
            threads.retire()


class Watched:
    """What is watched for as long as the context lasts."""

    __slots__ = ("_watchdog", "context", "deadline", "is_cancelled", "size")

    def __init__(self, watchdog: Watchdog, context: grpc.ServicerContext, deadline: float, *, size: int = 0) -> None:
        self._watchdog = watchdog
        self.context = context
        self.deadline = deadline
        self.size = size
        self.is_cancelled = False

    def cancel(self) -> None:
        """End the call."""
        self.is_cancelled = True
        self.context.cancel()

    def __enter__(self) -> None:
        """Begin."""
        self._watchdog.begin(self)

    def __exit__(self, *_: object) -> None:
        """End."""
        self._watchdog.end(self)
