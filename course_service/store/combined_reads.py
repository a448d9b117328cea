"""Reads of single courses, put together: what arrives while a query runs shares the next one."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Generator, Sequence
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
_ANSWERED = object()


class _Reads(Protocol):
    def __call__(self, work: Callable[[CourseRepository], _T]) -> _T:
        """Do work that only reads, as `Database.read` does."""


class CombinedReads:
    """Gets courses by id, by one query at a time for all calls that wait, in a thread of its own.

    A query begins after every call that it serves has come, so each sees what was committed before it came. One that
    takes long holds up no other: another thread takes over, and the calls whose query it was ask again. Nobody waits
    beyond the deadline of its own call. A thread that asks nothing sees to both.
    """

    def __init__(self, reads: _Reads) -> None:
        self._reads = reads
        self._waiting: SimpleQueue[Read | None] = SimpleQueue()
        self._unanswered: dict[Read, None] = {}
        """What has been handed on and has no answer."""
        self._begun = threading.Event()
        """Set when there is something unanswered."""
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
        self._has_mind = False
        """Whether there is a thread that sees to it that nobody waits too long."""
        self._closed = threading.Event()

    def get(self, course_id: str) -> Read:
        """Get the course of an id, deleted or not, or None, for the current call: await it.

        Raises `DatabaseUnavailable`, `DeadlineExceeded`.
        """
        return Read(self, course_id)

    def close(self) -> None:
        """Let the threads end."""
        self._closed.set()
        self._begun.set()
        self._waiting.put(None)

    def shares(self) -> bool:
        """Whether reads are handed on at present, because several come together."""
        return time.monotonic() < self._shared_until

    def ask_alone(self, read: Read) -> bool:
        """Answer a read by a query of its own, in this thread, unless others ask at the same time."""
        if self.shares():
            return False
        if not self._alone.acquire(blocking=False):
            self._shared_until = time.monotonic() + _SHARED_SECONDS
            return False
        try:
            read.outcome = self._reads(lambda courses: courses.get(read.course_id))
        except BaseException as error:  # it is the call's to raise
            read.outcome = error
        finally:
            self._alone.release()
        return True

    def hand_on(self, read: Read) -> None:
        """Have a read answered by another thread."""
        self._unanswered[read] = None
        if self._newest is None and not self._begin():
            self.answer(read, DatabaseUnavailable("the machine has no more threads"))
            return
        if not self._begun.is_set():
            self._begun.set()
        self._waiting.put(read)

    def answer(self, read: Read, outcome: Course | BaseException | None) -> None:
        """Answer a read that has been handed on, unless another thread has."""
        if self._settle(read, outcome):
            read.go_on()

    def _settle(self, read: Read, outcome: Course | BaseException | None) -> bool:
        """Give a read its outcome; False if another thread has."""
        if self._unanswered.pop(read, _ANSWERED) is _ANSWERED:
            return False
        read.outcome = outcome
        return True

    def _begin(self) -> bool:
        """Start the threads, unless they have been; False if the machine has no more."""
        with self._lock:
            if self._newest:
                return True
            if not self._has_mind:
                with contextlib.suppress(RuntimeError):
                    threading.Thread(target=self._mind, name="reads", daemon=True).start()
                    self._has_mind = True
            return self._has_mind and self._start_reader()

    def _start_reader(self) -> bool:
        reader = _Reader(self)
        try:
            reader.start()
        except RuntimeError:  # the machine has no more threads
            return False
        self._newest = reader
        self._readers += 1
        return True

    def _mind(self) -> None:
        """See to it that nobody waits too long."""
        while True:
            if not self._unanswered:
                self._begun.wait()
            self._begun.clear()
            if self._closed.wait(self._pause()):
                return
            self._look()

    def _pause(self) -> float:
        """Return how long nothing need be looked at: until the next deadline, and a fraction of the patience."""
        ends = min((read.deadline for read in self._unanswered.copy()), default=float("inf"))
        return max(_MOMENT_SECONDS, min(_PATIENCE_SECONDS / 5, ends - time.monotonic()))

    def _look(self) -> None:
        """Answer whose time is over, and have another thread ask for those whose query takes long."""
        now = time.monotonic()
        for read in self._unanswered.copy():
            if read.deadline <= now:
                self.answer(read, DeadlineExceeded())
            elif read.asked <= now - _PATIENCE_SECONDS:
                self._relieve()
                read.asked = now
                if read.is_taken:  # by a query that takes long
                    read.is_taken = False
                    self._waiting.put(read)

    def _relieve(self) -> None:
        """Have another thread take over, if the one whose turn it is waits for a query that takes long."""
        with self._lock:
            if self._newest and self._newest.has_waited_long() and self._readers < MAX_READERS:
                self._start_reader()

    def take(self) -> list[Read] | None:
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

    def ask_for(self, reads: Sequence[Read]) -> None:
        """Answer reads by one query, for as long as one of their callers waits."""
        self._together = len(reads)
        if len(reads) > 1:
            self._shared_until = time.monotonic() + _SHARED_SECONDS
        now = time.monotonic()
        waiting = [read for read in reads if read in self._unanswered and read.deadline > now]
        if not waiting:
            return
        outcomes = self._outcomes(waiting)
        # All first: what is done with one takes its time, and the others must not look as if they still waited.
        answered = [read for read, outcome in zip(waiting, outcomes, strict=True) if self._settle(read, outcome)]
        for read in answered:
            read.go_on()

    def _outcomes(self, reads: Sequence[Read]) -> list[Course | BaseException | None]:
        """Ask for several at once. Of an error each gets one of its own, for each adds its own way to it."""
        ids = {read.course_id for read in reads}
        with call.working_on(call.Call(deadline=max(read.deadline for read in reads))):
            try:
                found = self._reads(lambda courses: courses.get_many(ids, full=True))
            except DatabaseUnavailable as error:
                return [DatabaseUnavailable(error.cause) for _ in reads]
            except DeadlineExceeded:
                return [DeadlineExceeded() for _ in reads]
            except BaseException:  # whose fault it is shows when each is asked for by itself
                return [self._outcome(read) for read in reads]
        return [found.get(read.course_id) for read in reads]

    def _outcome(self, read: Read) -> Course | BaseException | None:
        """Ask for one."""
        with call.working_on(call.Call(deadline=read.deadline)):
            try:
                return self._reads(lambda courses: courses.get(read.course_id))
            except BaseException as error:  # it is the call's to raise
                return error

    def ends(self, reader: _Reader) -> bool:
        """Whether another thread has taken over from one; if so, it has to end."""
        with self._lock:
            if self._newest is reader:
                return False
            self._readers -= 1
            return True


class Read:
    """A call's part in a query; an `Answer` of `later.py`."""

    __slots__ = ("_combined", "asked", "course_id", "deadline", "go_on", "is_taken", "outcome")

    def __init__(self, combined: CombinedReads, course_id: str) -> None:
        self._combined = combined
        self.course_id = course_id
        self.asked = time.monotonic()
        """When it was asked, or asked again."""
        self.deadline = self.asked + call.remaining()
        self.is_taken = False
        self.outcome: Course | BaseException | None = None
        self.go_on: Callable[[], object]
        """What is to be done once there is an answer."""

    def __await__(self) -> Generator[Read, None, Course | None]:
        """Wait as whoever does the work likes."""
        yield self
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome

    def at_once(self) -> bool:
        """Get the course by a query of its own, in this thread, unless others ask at the same time."""
        return self._combined.ask_alone(self)

    def wait(self) -> None:
        """Wait in this thread."""
        if not self.at_once():
            answered = threading.Lock()  # it costs a fraction of an event
            answered.acquire()
            self.then(answered.release)
            answered.acquire()

    def then(self, go_on: Callable[[], object]) -> None:
        """Have something done by the thread that gets the course."""
        self.go_on = go_on
        self._combined.hand_on(self)


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
            self._combined.ask_for(reads)
            self.is_busy = False
            del reads
            if self._combined.ends(self):
                return
