"""The threads that gRPC's calls are worked on in."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, TypeAlias

from course_service.guard.internal import report

_Task: TypeAlias = tuple[float, Callable[..., object], tuple[object, ...], dict[str, object]]
"""When a call came in, and what grpcio wants done for it."""


class CallThreads(ThreadPoolExecutor):
    """Threads that make no future of a task: grpcio asks for none, and futures cost a twentieth of a call.

    grpcio has to be given a ThreadPoolExecutor, of which it calls `submit` only. It takes None for a future, which it
    needs to count calls for `maximum_concurrent_rpcs` and for nothing else.

    A thread whose call waits for its message works on nothing. `replace` starts another in its place, until `retire`
    ends one of them. So `threads` calls are worked on, however many callers keep theirs waiting.

    What comes while `max_waiting` calls wait is done at once by a thread that does nothing else, and is told by
    `Worker.is_surplus` to refuse it: the others may all be held up. Without `max_waiting` everything waits.
    """

    def __init__(self, threads: int, *, max_waiting: int | None = None, name: str = "grpc") -> None:
        super().__init__(threads)
        self._max_waiting = max_waiting
        self._name = name
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self._surplus: SimpleQueue[_Task | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._too_many = 0
        self._workers: set[Worker] = set()
        for _ in range(threads):
            self.replace()
        if max_waiting is not None:
            Worker(self, self._surplus, is_surplus=True, name=f"{name}-surplus").start()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:  # noqa: ANN401  # as there
        """Have a task done by the next thread that is free."""
        tasks = self._surplus if self.is_full() else self._tasks
        tasks.put((time.monotonic(), fn, args, kwargs))
        return None  # type: ignore[return-value]  # see above

    def is_full(self) -> bool:
        """Whether as many calls wait for a thread as may."""
        return self._max_waiting is not None and self._tasks.qsize() >= self._max_waiting

    def replace(self) -> None:
        """Add a thread, in place of one that waits. Raises RuntimeError if the machine has no more."""
        worker = Worker(self, self._tasks, name=self._name)
        with self._lock:
            worker.start()
            self._workers.add(worker)

    def retire(self) -> None:
        """Have one thread end after its task, because one that was replaced is back."""
        with self._lock:
            self._too_many += 1

    def may_end(self, worker: "Worker") -> bool:
        """Whether a thread is the one that has to end; if so, it has to."""
        if not self._too_many or worker.is_surplus:
            return False
        with self._lock:
            if not self._too_many:
                return False
            self._too_many -= 1
            self._workers.discard(worker)
            return True

    def close(self, seconds: float) -> None:
        """Let every thread end after the tasks that wait, and wait for them that long at most."""
        with self._lock:
            workers = list(self._workers)
        for _ in workers:
            self._tasks.put(None)
        self._surplus.put(None)
        deadline = time.monotonic() + seconds
        for worker in workers:
            worker.join(max(0.0, deadline - time.monotonic()))


class Worker(threading.Thread):
    """One of the threads, which knows of the call that it works on what grpcio does not pass to it."""

    arrived = 0.0
    """When the call came in, by `time.monotonic()`."""

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

    def run(self) -> None:
        """Work on one call after the other."""
        while task := self._tasks.get():
            self.arrived, fn, args, kwargs = task
            try:
                fn(*args, **kwargs)
            except BaseException as exception:  # grpcio catches what is an Exception
                report(exception)
            del task, fn, args, kwargs  # or they would keep the last call open
            if self.threads.may_end(self):
                return
