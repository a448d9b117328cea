"""The threads that gRPC's calls are worked on in."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, NamedTuple, TypeAlias

from course_service.guard.internal import report
from course_service.guard.steps import Credentials
from course_service.guard.turns import Turns

_PAUSE_SECONDS = 0.01
"""How often it is looked whether calls still wait, when all are to end."""


class _Task(NamedTuple):
    """What grpcio wants done for a call."""

    arrived: float
    function: Callable[..., object]
    arguments: tuple[object, ...]
    named: dict[str, object]
    caller: str = ""
    credentials: Credentials | None = None
    """What the caller has shown, if it has been asked who calls."""


CallerOf: TypeAlias = Callable[[tuple[Any, ...]], tuple[str, Credentials]]
"""Says who calls, by the arguments of a task, and what it goes by. Raises nothing."""


class CallThreads(ThreadPoolExecutor):
    """Threads that make no future of a task: grpcio asks for none, and futures cost a twentieth of a call.

    grpcio has to be given a ThreadPoolExecutor, of which it calls `submit` only. It takes None for a future, which it
    needs to count calls for `maximum_concurrent_rpcs` and for nothing else.

    As many calls are worked on at once as there are places. A call that waits for what it shares with others leaves its
    place (`Worker.leave_place`) to the next, unless as many have as there are `spare` threads.

    A thread whose call waits for its message works on nothing either. `replace` adds another thread and a place, until
    `retire` takes one of each away. So calls are worked on, however many callers keep theirs waiting.

    What comes while `max_waiting` calls wait is done at once by a thread that does nothing else, and is told by
    `Worker.is_surplus` to refuse it: the others may all be held up. Without `max_waiting` everything waits.

    If it is known who calls (`caller_of`), callers take turns, and what is refused is the last call of the one that has
    most waiting. Otherwise calls keep their order, as those of one caller do.
    """

    def __init__(
        self,
        places: int,
        *,
        spare: int = 0,
        max_waiting: int | None = None,
        name: str = "grpc",
        caller_of: CallerOf | None = None,
    ) -> None:
        super().__init__(places + spare)
        self._max_waiting = max_waiting
        self._name = name
        self._caller_of = caller_of
        self._lock = threading.Lock()
        """Held while any of the following is looked at or changed, but for the queues."""
        self._waiting: Turns[_Task] = Turns()
        self._free = places
        """Places that no task has."""
        self._spare = spare
        """How many more may leave their places."""
        self._too_many = 0
        """Places to be taken away, each with a thread."""
        self._workers: set[Worker] = set()
        self._begun: SimpleQueue[_Task | None] = SimpleQueue()
        """Tasks that have a place, for the next thread; a None ends one thread."""
        self._surplus: SimpleQueue[_Task | None] = SimpleQueue()
        for _ in range(places + spare):
            self._start_worker()
        if max_waiting is not None:
            Worker(self, self._surplus, is_surplus=True, name=f"{name}-surplus").start()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:  # noqa: ANN401  # as there
        """Have a task done by the next thread that is free."""
        caller, credentials = self._caller_of(args) if self._caller_of else ("", None)
        task = _Task(time.monotonic(), fn, args, kwargs, caller, credentials)
        with self._lock:
            if self._free:
                self._free -= 1
                self._waiting.begin(caller)
                self._begun.put(task)
            elif not self.is_full():
                self._waiting.add(caller, task)
            else:
                self._surplus.put(self._waiting.displace(caller, task))
        return None  # type: ignore[return-value]  # see above

    def is_full(self) -> bool:
        """Whether as many calls wait for a place as may."""
        return self._max_waiting is not None and len(self._waiting) >= self._max_waiting

    def leave_place(self) -> bool:
        """Give the place of a task to the next, if few enough have left theirs; False if not."""
        with self._lock:
            if not self._spare:
                return False
            self._spare -= 1
            self._give_place()
            return True

    def end(self, caller: str, *, has_place: bool) -> None:
        """Note that a task of a caller has ended, in its place or after it has left it."""
        with self._lock:
            self._waiting.end(caller)
            if has_place:
                self._give_place()
            else:
                self._spare += 1

    def replace(self) -> None:
        """Add a thread and a place, because a call waits. Raises RuntimeError if the machine has no more threads."""
        self._start_worker()
        with self._lock:
            self._give_place()

    def retire(self) -> None:
        """Take a place away as soon as one is free, and a thread, because one that was replaced is back."""
        with self._lock:
            self._too_many += 1
            if self._free:
                self._free -= 1
                self._give_place()

    def _give_place(self) -> None:
        if self._too_many:
            self._too_many -= 1
            self._begun.put(None)
        elif len(self._waiting):
            _, task = self._waiting.next()
            self._begun.put(task)
        else:
            self._free += 1

    def _start_worker(self) -> None:
        worker = Worker(self, self._begun, name=self._name)
        with self._lock:
            worker.start()
            self._workers.add(worker)

    def ended(self, worker: "Worker") -> None:
        """Note that a thread has ended."""
        with self._lock:
            self._workers.discard(worker)

    def close(self, seconds: float) -> None:
        """Let every thread end after the tasks that wait, and wait for them that long at most."""
        deadline = time.monotonic() + seconds
        while len(self._waiting) and time.monotonic() < deadline:
            time.sleep(_PAUSE_SECONDS)
        with self._lock:
            workers = list(self._workers)
        for _ in workers:
            self._begun.put(None)
        self._surplus.put(None)
        for worker in workers:
            worker.join(max(0.0, deadline - time.monotonic()))


class Worker(threading.Thread):
    """One of the threads, which knows of the call that it works on what grpcio does not pass to it."""

    arrived = 0.0
    """When the call came in, by `time.monotonic()`."""

    credentials: Credentials | None = None
    """What its caller has shown, if that has been asked before."""

    _has_place = False
    """Whether the call has one of the places to be worked on in."""

    def __init__(
        self, threads: CallThreads, tasks: SimpleQueue[_Task | None], *, is_surplus: bool = False, name: str
    ) -> None:
        super().__init__(name=name, daemon=True)
        self.threads = threads
        self.is_surplus = is_surplus
        self._tasks = tasks

    @staticmethod
    def current() -> "Worker":
        """Return the thread that asks."""
        worker = threading.current_thread()
        if not isinstance(worker, Worker):
            raise TypeError(f"{worker.name} is no thread of calls")
        return worker

    def leave_place(self) -> None:
        """Let another call be worked on while this one waits, if few enough have left their places."""
        if self._has_place:
            self._has_place = not self.threads.leave_place()

    def run(self) -> None:
        """Work on one call after the other."""
        while task := self._tasks.get():
            self._has_place = not self.is_surplus
            self.arrived, self.credentials = task.arrived, task.credentials
            try:
                task.function(*task.arguments, **task.named)
            except BaseException as exception:  # grpcio catches what is an Exception
                report(exception)
            self.credentials = None
            if not self.is_surplus:
                self.threads.end(task.caller, has_place=self._has_place)
            del task  # or it would keep its call until the next one comes
        self.threads.ended(self)
