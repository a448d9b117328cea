"""The threads that gRPC's calls are worked on in."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, TypeAlias

from course_service.guard.internal import report

DEFAULT_MAX_WAITING = 1_000

_Task: TypeAlias = tuple[Callable[..., object], tuple[object, ...], dict[str, object]]


class CallThreads(ThreadPoolExecutor):
    """Threads that make no future of a task: grpcio asks for none, and futures cost a twentieth of a call.

    grpcio has to be given a ThreadPoolExecutor, of which it calls `submit` only. It takes None for a future, which it
    needs to count calls for `maximum_concurrent_rpcs` and for nothing else.

    A thread whose call waits for its message works on nothing. `replace` starts another in its place, until `retire`
    ends one of them. So `threads` calls are worked on, however many callers keep theirs waiting.
    """

    def __init__(self, threads: int, *, max_waiting: int = DEFAULT_MAX_WAITING, name: str = "grpc") -> None:
        super().__init__(threads)
        self._max_waiting = max_waiting
        self._name = name
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._too_many = 0
        self._workers: set[threading.Thread] = set()
        for _ in range(threads):
            self.replace()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:  # noqa: ANN401  # as there
        """Have a task done by the next thread that is free."""
        self._tasks.put((fn, args, kwargs))
        return None  # type: ignore[return-value]  # see above

    def is_full(self) -> bool:
        """Whether as many calls wait for a thread as may."""
        return self._tasks.qsize() >= self._max_waiting

    def replace(self) -> None:
        """Add a thread, in place of one that waits. Raises RuntimeError if the machine has no more."""
        worker = threading.Thread(target=self._work, name=self._name, daemon=True)
        with self._lock:
            worker.start()
            self._workers.add(worker)

    def retire(self) -> None:
        """Have one thread end after its task, because one that was replaced is back."""
        with self._lock:
            self._too_many += 1

    def close(self, seconds: float) -> None:
        """Let every thread end after the tasks that wait, and wait for them that long at most."""
        with self._lock:
            workers = list(self._workers)
        for _ in workers:
            self._tasks.put(None)
        deadline = time.monotonic() + seconds
        for worker in workers:
            worker.join(max(0.0, deadline - time.monotonic()))

    def _work(self) -> None:
        while task := self._tasks.get():
            fn, args, kwargs = task
            try:
                fn(*args, **kwargs)
            except BaseException as exception:  # grpcio catches what is an Exception
                report(exception)
            del task, fn, args, kwargs  # or they would keep the last call open
            if self._too_many and self._is_too_many():
                return

    def _is_too_many(self) -> bool:
        with self._lock:
            if not self._too_many:
                return False
            self._too_many -= 1
            self._workers.discard(threading.current_thread())
            return True
