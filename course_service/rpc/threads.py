"""The threads that gRPC's calls are worked on in."""

import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, TypeAlias

from course_service.guard.internal import report
from course_service.guard.steps import Credentials
from course_service.guard.turns import Turns


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
    most waiting. Otherwise calls keep their order.
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
        self._tasks: _Tasks = _InTurn() if caller_of else _InOrder()
        self._surplus: _Tasks = _InOrder()
        self._lock = threading.Lock()
        self._too_many = 0
        self.places: SimpleQueue[None] = SimpleQueue()
        """An entry for each place that no thread has."""
        self.spare: SimpleQueue[None] = SimpleQueue()
        """An entry for each call more that may leave its place."""
        for _ in range(spare):
            self.spare.put(None)
        self._workers: set[Worker] = set()
        for _ in range(places):
            self.replace()
        for _ in range(spare):
            self._start_worker()
        if max_waiting is not None:
            Worker(self, self._surplus, is_surplus=True, name=f"{name}-surplus").start()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:  # noqa: ANN401  # as there
        """Have a task done by the next thread that is free."""
        task = _Task(time.monotonic(), fn, args, kwargs, *(self._caller_of(args) if self._caller_of else ()))
        if self.is_full():
            self._surplus.put(self._tasks.displace(task))
        else:
            self._tasks.put(task)
        return None  # type: ignore[return-value]  # see above

    def is_full(self) -> bool:
        """Whether as many calls wait for a thread as may."""
        return self._max_waiting is not None and self._tasks.qsize() >= self._max_waiting

    def replace(self) -> None:
        """Add a thread and a place, because a call waits. Raises RuntimeError if the machine has no more threads."""
        self._start_worker()
        self.places.put(None)

    def retire(self) -> None:
        """Have one thread end when it takes a place, and the place with it, because one that was replaced is back."""
        with self._lock:
            self._too_many += 1

    def may_end(self, worker: "Worker") -> bool:
        """Whether a thread, which has just taken a place, is the one that has to end; if so, it has to."""
        if not self._too_many:
            return False
        with self._lock:
            if not self._too_many:
                return False
            self._too_many -= 1
            self._workers.discard(worker)
            return True

    def _start_worker(self) -> None:
        worker = Worker(self, self._tasks, name=self._name)
        with self._lock:
            worker.start()
            self._workers.add(worker)

    def close(self, seconds: float) -> None:
        """Let every thread end after the tasks that wait, and wait for them that long at most."""
        with self._lock:
            workers = list(self._workers)
        self._tasks.put(None)
        self._surplus.put(None)
        deadline = time.monotonic() + seconds
        for worker in workers:
            worker.join(max(0.0, deadline - time.monotonic()))


class Worker(threading.Thread):
    """One of the threads, which knows of the call that it works on what grpcio does not pass to it."""

    arrived = 0.0
    """When the call came in, by `time.monotonic()`."""

    credentials: Credentials | None = None
    """What its caller has shown, if that has been asked before."""

    has_place = False
    """Whether it has one of the places to work in."""

    def __init__(self, threads: CallThreads, tasks: "_Tasks", *, is_surplus: bool = False, name: str) -> None:
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
        if self.has_place:
            with contextlib.suppress(Empty):
                self.threads.spare.get_nowait()
                self.has_place = False
                self.threads.places.put(None)

    def run(self) -> None:
        """Work on one call after the other."""
        if self.is_surplus:
            while self._work():
                pass
            return
        while True:
            self.threads.places.get()
            if self.threads.may_end(self):
                return
            self.has_place = True
            while self.has_place:
                if not self._work():
                    self.threads.places.put(None)
                    return
                if self.has_place and self.threads.may_end(self):
                    return
            self.threads.spare.put(None)

    def _work(self) -> bool:
        """Work on the next call; False if there is none."""
        task = self._tasks.get()
        if task is None:
            self._tasks.put(None)  # for the other threads too
            return False
        self.arrived, self.credentials = task.arrived, task.credentials
        try:
            task.function(*task.arguments, **task.named)
        except BaseException as exception:  # grpcio catches what is an Exception
            report(exception)
        self._tasks.done(task)
        self.credentials = None
        return True


class _InOrder(SimpleQueue["_Task | None"]):
    """Tasks in the order in which they came."""

    def displace(self, task: _Task) -> _Task:
        """Find a task to refuse, when there is room for no more: this one."""
        return task

    def done(self, task: _Task) -> None:
        """Note that a task is done, which is of no interest here."""


class _InTurn:
    """Tasks whose callers take turns; None comes last."""

    def __init__(self) -> None:
        self._turns: Turns[_Task] = Turns()
        self._lock = threading.Lock()
        self._waiting: SimpleQueue[bool] = SimpleQueue()
        """An entry for each that waits; False for a None."""

    def put(self, task: _Task | None) -> None:
        """Have a task wait."""
        if task:
            with self._lock:
                self._turns.add(task.caller, task)
        self._waiting.put(task is not None)

    def displace(self, task: _Task) -> _Task:
        """Find a task to refuse, when there is room for no more: the last of the caller that has most."""
        with self._lock:
            return self._turns.displace(task.caller, task)

    def get(self) -> _Task | None:
        """Wait for the next task."""
        if not self._waiting.get():
            return None
        with self._lock:
            _, task = self._turns.next()
        return task

    def done(self, task: _Task) -> None:
        """Note that a task is done, so that its caller has one less at work."""
        with self._lock:
            self._turns.end(task.caller)

    def qsize(self) -> int:
        """Return how many wait."""
        return self._waiting.qsize()


_Tasks: TypeAlias = _InOrder | _InTurn
