"""The threads that gRPC's calls are worked on in."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, TypeAlias

from course_service.guard.internal import report

_Task: TypeAlias = tuple[Callable[..., object], tuple[object, ...], dict[str, object]]


class CallThreads(ThreadPoolExecutor):
    """Threads that make no future of a task: grpcio asks for none, and futures cost a twentieth of a call.

    grpcio has to be given a ThreadPoolExecutor, of which it calls `submit` only. It takes None for a future, which it
    needs to count calls for `maximum_concurrent_rpcs` and for nothing else.
    """

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self._workers = [threading.Thread(target=self._work, name=f"grpc_{n}", daemon=True) for n in range(threads)]
        for worker in self._workers:
            worker.start()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:  # noqa: ANN401  # as there
        """Have a task done by the next thread that is free."""
        self._tasks.put((fn, args, kwargs))
        return None  # type: ignore[return-value]  # see above

    def close(self, seconds: float) -> None:
        """Let every thread end after the tasks that wait, and wait for them that long at most."""
        for _ in self._workers:
            self._tasks.put(None)
        deadline = time.monotonic() + seconds
        for worker in self._workers:
            worker.join(max(0.0, deadline - time.monotonic()))

    def _work(self) -> None:
        while task := self._tasks.get():
            fn, args, kwargs = task
            try:
                fn(*args, **kwargs)
            except BaseException as exception:  # grpcio catches what is an Exception
                report(exception)
            del task, fn, args, kwargs  # or they would keep the last call open
