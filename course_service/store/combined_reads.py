"""Reads of single courses, put together: what arrives while a query runs shares the next one."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Protocol, TypeVar

from course_service import call
from course_service.course import Course
from course_service.errors import DatabaseUnavailable, DeadlineExceeded
from course_service.store.courses import CourseRepository

_T = TypeVar("_T")

_PATIENCE_SECONDS = 0.25
"""How long a query may take before another thread takes over from the one that waits for it."""
_SHARED_SECONDS = 0.05
"""For how long after calls have come together they are taken to do so again."""
MAX_READERS = 4
"""How many queries may be waited for at once: as many connections are held by a database that has frozen."""
_MAX_BATCH = 100
_MANY = 5
"""How many calls must have shared a query for the next one to wait until more have come."""
_BUSY = 0.7
"""What share of a core the process must have used, since it was looked last, for a query to wait."""
_MOMENT_SECONDS = 0.001
_MOMENTS = 8
"""How long a query waits for more calls at most."""


class _Reads(Protocol):
    def __call__(self, work: Callable[[CourseRepository], _T]) -> _T:
        """Do work that only reads, as `Database.read` does."""


class CombinedReads:
    """Gets courses by id, by one query at a time for all calls that wait, in a thread of its own.

    A query begins after every call that it serves has come, so each sees what was committed before it came. One that
    takes long holds up no other: another thread takes over, and the calls whose query it was ask again. Nobody waits
    beyond the deadline of its own call.
    """

    def __init__(self, reads: _Reads) -> None:
        self._reads = reads
        self._waiting: SimpleQueue[_Read | None] = SimpleQueue()
        self._alone = threading.Lock()
        """Held by a call that asks for itself, because no others do: to hand it on would cost it more."""
        self._shared_until = 0.0
        """Until when every call is handed on."""
        self._lock = threading.Lock()
        self._newest: _Reader | None = None
        self._readers = 0
        self._together = 0
        """How many calls shared the last query."""
        self._looked = 0.0, 0.0
        """When it was looked last how busy the process is: the time, and how much CPU it had used."""

    def get(self, course_id: str) -> Course | None:
        """Return the course of an id, deleted or not, or None. Raises `DatabaseUnavailable`, `DeadlineExceeded`."""
        if time.monotonic() >= self._shared_until:
            if self._alone.acquire(blocking=False):
                try:
                    return self._reads(lambda courses: courses.get(course_id))
                finally:
                    self._alone.release()
            self._shared_until = time.monotonic() + _SHARED_SECONDS
        read = _Read(course_id)
        if self._newest is None:
            self._relieve()
        self._waiting.put(read)
        call.leave_place()
        while not read.answered.acquire(timeout=max(0.0, min(_PATIENCE_SECONDS, read.deadline - time.monotonic()))):
            if read.deadline <= time.monotonic():
                raise DeadlineExceeded
            self._relieve()
            if read.is_taken:  # by a query that takes long
                read.is_taken = False
                self._waiting.put(read)
        outcome = read.outcome
        if not isinstance(outcome, BaseException):
            return outcome
        # Not the same exception in several threads: each would add its own way to it.
        if isinstance(outcome, DatabaseUnavailable):
            raise DatabaseUnavailable(outcome.cause)
        if isinstance(outcome, DeadlineExceeded):
            raise DeadlineExceeded
        return self._reads(lambda courses: courses.get(course_id))  # whose fault it is shows when each asks for itself

    def close(self) -> None:
        """Let the threads end."""
        self._waiting.put(None)

    def _relieve(self) -> None:
        """Have another thread take over, if the one whose turn it is waits for a query that takes long."""
        with self._lock:
            newest = self._newest
            if (newest is None or newest.has_waited_long()) and self._readers < MAX_READERS:
                self._newest = _Reader(self)
                self._readers += 1
                self._newest.start()

    def take(self) -> list[_Read] | None:
        """Wait for reads, and take all that wait; None if there will be none."""
        reads = []
        read = self._waiting.get()
        if self._together >= _MANY:
            self._wait_for_more()
        with contextlib.suppress(Empty):
            while read:
                read.is_taken = True
                reads.append(read)
                if len(reads) == _MAX_BATCH:
                    return reads
                read = self._waiting.get_nowait()
            self._waiting.put(None)  # for the next one too
            return reads or None
        return reads

    def _wait_for_more(self) -> None:
        """Wait as long as calls keep coming, if this process is busy with them.

        They share the query then, and of so many each costs less: the last is answered sooner, although the first
        waits. A process that has time to spare would only lose some.
        """
        (before, used_before), (now, used) = self._looked, (time.monotonic(), time.process_time())
        self._looked = now, used
        if used - used_before < _BUSY * (now - before):
            return
        seen = -1
        for _ in range(_MOMENTS):
            waiting = self._waiting.qsize()
            if waiting <= seen:
                return
            seen = waiting
            time.sleep(_MOMENT_SECONDS)

    def answer(self, reads: Sequence[_Read]) -> None:
        """Answer reads by one query, for as long as one of their callers waits."""
        self._together = len(reads)
        if len(reads) > 1:
            self._shared_until = time.monotonic() + _SHARED_SECONDS
        waiting = [read for read in reads if read.deadline > time.monotonic()]
        if not waiting:
            return
        with call.working_on(call.Call(deadline=max(read.deadline for read in waiting))):
            try:
                found = self._reads(lambda courses: courses.get_many({read.course_id for read in waiting}, full=True))
            except BaseException as error:  # it is the callers' to raise, and the thread has to go on
                for read in waiting:
                    read.answer(error)
            else:
                for read in waiting:
                    read.answer(found.get(read.course_id))

    def ends(self, reader: _Reader) -> bool:
        """Whether another thread has taken over from one; if so, it has to end."""
        with self._lock:
            if self._newest is reader:
                return False
            self._readers -= 1
            return True


class _Read:
    """A call's part in a query."""

    __slots__ = ("answered", "course_id", "deadline", "is_taken", "outcome")

    def __init__(self, course_id: str) -> None:
        self.course_id = course_id
        self.deadline = time.monotonic() + call.remaining()
        self.is_taken = False
        self.outcome: Course | BaseException | None = None
        self.answered = threading.Lock()
        """Held until there is an answer. A lock costs a fraction of an event."""
        self.answered.acquire()

    def answer(self, outcome: Course | BaseException | None) -> None:
        """Answer it, unless another query has."""
        if self.answered.locked():
            self.outcome = outcome
            with contextlib.suppress(RuntimeError):  # at the same moment
                self.answered.release()


class _Reader(threading.Thread):
    """The thread that answers reads, until another takes over."""

    def __init__(self, combined: CombinedReads) -> None:
        super().__init__(name="reader", daemon=True)
        self._combined = combined
        self.is_busy = False
        """Whether it waits for a query."""
        self._since = 0.0

    def has_waited_long(self) -> bool:
        """Whether it waits for a query that takes long."""
        return self.is_busy and time.monotonic() - self._since >= _PATIENCE_SECONDS

    def run(self) -> None:
        """Answer reads."""
        while reads := self._combined.take():
            self._since, self.is_busy = time.monotonic(), True
            self._combined.answer(reads)
            self.is_busy = False
            del reads
            if self._combined.ends(self):
                return
