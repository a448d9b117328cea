"""The threads that gRPC's calls are worked on in."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, TypeAlias

from course_service.call import Call
from course_service.guard.internal import report
from course_service.guard.steps import comes_too_late
from course_service.guard.turns import Turns
from course_service.rpc.task import Task

LARGE_BYTES = 1 << 16
"""From what size on a message makes its call one too many if those that wait have too many bytes."""
MAX_WAITING_BYTES = 64 << 20
"""What the messages of all calls that wait for a place may have together for a call with a large one to wait too."""
_PATIENCE_SECONDS = 0.05
"""How long a call that began and is not idle holds up others: it may wait for something that nobody thought of."""
_PAUSE_SECONDS = 0.01
"""How often it is looked whether calls still wait, when all are to end."""

Identify: TypeAlias = Callable[[Task], object]
"""Asks who calls, and notes it in the task. Raises nothing."""


class CallThreads(ThreadPoolExecutor):
    """Threads that make no future of a task: grpcio asks for none, and futures cost a twentieth of a call.

    grpcio has to be given a ThreadPoolExecutor, of which it calls `submit` only. It takes None for a future, which it
    needs to count calls for `maximum_concurrent_rpcs` and for nothing else.

    A call waits for a place once its message has been received, so who sends none holds none. As many calls are worked
    on here at once as there are places, but another one begins only when the others are idle (`call.idle`): more
    threads get no more done, and would keep the CPU from grpcio's own, which takes the calls in.

    A call that waits for what it shares with others goes on elsewhere, in the thread that has it, and its place goes to
    the next; so many calls at most. While that `is_shared` anyway, and none waits for a place, that call takes neither
    place nor thread: its beginning is worked on in grpcio's own thread, for it waits for nothing.

    What comes while `max_waiting` calls wait, or will have to wait too long, or has a large message while those that
    wait have too many bytes, is refused at once (`Call.is_surplus`), in grpcio's own thread: the others may all be held
    up. Without `max_waiting` any number waits.

    If it is known who calls (`identify`), callers take turns, and what is refused is the last call of the one that has
    most waiting. Otherwise calls keep their order, as those of one caller do.
    """

    def __init__(
        self,
        places: int,
        *,
        max_elsewhere: int = 0,
        is_shared: Callable[[], bool] = lambda: False,
        max_waiting: int | None = None,
        name: str = "grpc",
        identify: Identify | None = None,
    ) -> None:
        super().__init__(places)
        self._max_elsewhere = max_elsewhere
        self._is_shared = is_shared
        self._max_waiting = max_waiting
        self._identify = identify
        self._receiving: set[Task] = set()
        """Those whose messages are being received."""
        self._lock = threading.Lock()
        """Held while any of the following is looked at or changed, but for the queues."""
        self._waiting: Turns[Task] = Turns()
        self._waiting_bytes = 0
        """What their messages have together."""
        self._free = places
        """Places that no task has."""
        self._running: dict[Call, float] = {}
        """Calls that have one and are not idle, and since when. Streams are left out: mostly they wait."""
        self._began = 0.0
        """When the last call began."""
        self._elsewhere = 0
        """How many go on elsewhere."""
        self._begun: SimpleQueue[Task | None] = SimpleQueue()
        """Tasks that have a place, for the next thread; a None ends one thread."""
        self._workers = [threading.Thread(target=self._work, name=name, daemon=True) for _ in range(places)]
        self._held_up = threading.Event()
        """Set when what waits has a place and no CPU."""
        self._closed = False
        for worker in self._workers:
            worker.start()
        threading.Thread(target=self._look, name=f"{name}-turns", daemon=True).start()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **_: Any) -> Future[Any]:  # noqa: ANN401  # as there
        """Have a task done, once its call's message is there, by the next thread that is free."""
        task = Task(fn, args)
        if self._identify:
            self._identify(task)
            task.caller = task.call.caller
        if self._is_surplus(task):
            self._refuse(task)
        elif task.handler.receives and not task.credentials.refusal:
            self._receiving.add(task)
            task.handler.receive(task, self._go_on)
        else:  # it reads its messages itself, or is refused whatever they are
            self._put(task)
        return None  # type: ignore[return-value]  # see above

    def is_full(self) -> bool:
        """Whether as many calls wait for a place as may."""
        return self._max_waiting is not None and len(self._waiting) >= self._max_waiting + self._free

    def _is_surplus(self, task: Task) -> bool:
        with self._lock:
            first = self._waiting.first(task.caller)
            # As of the last turn: what waits while nobody's turn comes may yet be in time.
            if first and comes_too_late(task.call, self._began - first.call.waits_since):
                return True
            return self.is_full() and not self._waiting.may_displace(task.caller)

    def _go_on(self, task: Task) -> None:
        """Go on with a task whose message has come. It is counted somewhere at every moment, as `close` needs it."""
        goes_elsewhere = (
            task.handler.is_coroutine and task.size < LARGE_BYTES and self._is_shared() and self._begin_elsewhere(task)
        )
        if not goes_elsewhere:
            self._put(task)
        self._receiving.discard(task)
        if goes_elsewhere:
            self._do(task)

    def _put(self, task: Task) -> None:
        with self._lock:
            surplus = self._wait(task)
            self._begin_next()
        if surplus:
            self._refuse(surplus)

    def _wait(self, task: Task) -> Task | None:
        """Have a task wait for its turn; returns one that may not, this or another, if there are too many."""
        if task.size >= LARGE_BYTES and not self._has_room(task):
            return task
        task.call.waits_since = time.monotonic()
        self._waiting_bytes += task.size
        if not self.is_full():
            self._waiting.add(task.caller, task)
            return None
        displaced = self._waiting.displace(task.caller, task)
        self._waiting_bytes -= displaced.size
        return displaced

    def _has_room(self, task: Task) -> bool:
        return self._waiting_bytes + task.size <= MAX_WAITING_BYTES

    def _begin_elsewhere(self, task: Task) -> bool:
        """Begin a task elsewhere, if it takes nobody's turn and few enough are there."""
        with self._lock:
            if len(self._waiting) or not self._take_elsewhere(task):
                return False
            self._waiting.begin(task.caller)
            return True

    def hand_on(self, task: Task) -> bool:
        """Let a task go on elsewhere, and give its place to the next; False if too many do.

        Either way, `end` is to be called once it has ended.
        """
        if task.is_elsewhere:
            return True
        with self._lock:
            if not self._take_elsewhere(task):
                return False
            self._running.pop(task.call, None)
            task.call.on_idle = None
            self._free += 1
            self._begin_next()
            return True

    def _take_elsewhere(self, task: Task) -> bool:
        """Count a task as elsewhere; False if too many are."""
        task.is_elsewhere = self._elsewhere < self._max_elsewhere
        self._elsewhere += task.is_elsewhere
        return task.is_elsewhere

    def end(self, task: Task) -> None:
        """Note that a task has ended."""
        with self._lock:
            self._waiting.end(task.caller)
            if task.is_elsewhere:
                self._elsewhere -= 1
            else:
                self._running.pop(task.call, None)
                self._free += 1
                self._begin_next()

    def _begin_next(self) -> None:
        """Begin what waits, if there is a place and nobody would have to share the CPU."""
        while len(self._waiting) and self._free and self._has_cpu():
            _, task = self._waiting.next()
            self._waiting_bytes -= task.size
            self._free -= 1
            self._began = time.monotonic()
            if task.handler.receives:
                self._running[task.call] = self._began
                task.call.on_idle = self._note_idle
            self._begun.put(task)
        if len(self._waiting) and self._free and not self._held_up.is_set():
            self._held_up.set()

    def _has_cpu(self) -> bool:
        long_ago = time.monotonic() - _PATIENCE_SECONDS
        return all(since < long_ago for since in self._running.values())

    def _look(self) -> None:
        """Begin what waits though nothing happens, because a call hangs that is not idle."""
        while self._held_up.wait() and not self._closed:
            self._held_up.clear()
            time.sleep(_PATIENCE_SECONDS)
            with self._lock:
                self._begin_next()

    def _note_idle(self, call: Call) -> None:
        """Note that a call is idle, or that it goes on."""
        with self._lock:
            if call.is_idle:
                self._running.pop(call, None)
                self._begin_next()
            else:
                self._running[call] = time.monotonic()

    def _work(self) -> None:
        """Work on one call after the other."""
        while task := self._begun.get():
            self._do(task)
            del task  # or it would keep its call until the next one comes

    def _do(self, task: Task) -> None:
        has_ended = True
        try:
            has_ended = task.handler.work_on(task, self)
        except BaseException as exception:  # grpcio catches what is an Exception
            report(exception)
        if has_ended:
            self.end(task)

    def _refuse(self, task: Task) -> None:
        task.call.is_surplus = True
        try:
            task.handler.work_on(task, self)
        except BaseException as exception:
            report(exception)

    def close(self, seconds: float) -> None:
        """Let every thread end after the tasks that there are, and wait for them that long at most."""
        deadline = time.monotonic() + seconds
        while (self._receiving or len(self._waiting)) and time.monotonic() < deadline:
            time.sleep(_PAUSE_SECONDS)
        self._closed = True
        self._held_up.set()
        for _ in self._workers:
            self._begun.put(None)
        for worker in self._workers:
            worker.join(max(0.0, deadline - time.monotonic()))
        while self._elsewhere and time.monotonic() < deadline:  # the last may have been handed on by a worker
            time.sleep(_PAUSE_SECONDS)
