"""Ends calls whose message does not arrive: grpcio itself waits for it without limit, and a thread with it."""

from __future__ import annotations

import threading
import time

import grpc

BODY_SECONDS = 5.0
"""How long a call may take from its start to the end of its message."""
LEAST_SECONDS = 0.05
"""What a call may take once it has a thread, though it has waited for one so long that BODY_SECONDS are over."""
_PAUSE_SECONDS = 0.05


class Watchdog:
    """Cancels the calls that still wait for their message when their time is up, from a thread of its own."""

    def __init__(self) -> None:
        self._watched: set[Watched] = set()
        self._any = threading.Event()
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    def watch(self, context: grpc.ServicerContext, arrived: float) -> Watched:
        """Cancel a call that came in at `arrived`, by `time.monotonic()`, unless its message comes in time."""
        return Watched(self, context, max(arrived + BODY_SECONDS, time.monotonic() + LEAST_SECONDS))

    def add(self, watched: Watched) -> None:
        """Begin to watch."""
        self._watched.add(watched)
        if not self._any.is_set():
            self._any.set()

    def remove(self, watched: Watched) -> None:
        """End to watch."""
        self._watched.discard(watched)

    def _run(self) -> None:
        while True:
            self._any.wait()
            self._any.clear()
            while self._watched:
                now = time.monotonic()
                for watched in tuple(self._watched):
                    if watched.deadline <= now:
                        watched.context.cancel()
                        self.remove(watched)
                time.sleep(_PAUSE_SECONDS)


class Watched:
    """One call, watched for as long as the context lasts."""

    __slots__ = ("_watchdog", "context", "deadline")

    def __init__(self, watchdog: Watchdog, context: grpc.ServicerContext, deadline: float) -> None:
        self._watchdog = watchdog
        self.context = context
        self.deadline = deadline

    def __enter__(self) -> None:
        """Begin."""
        self._watchdog.add(self)

    def __exit__(self, *_: object) -> None:
        """End."""
        self._watchdog.remove(self)
