"""Waiting for what happens in another thread."""

import threading
import time
from collections.abc import Callable, Generator

from course_service.call import idle

_PAUSE = threading.Event()


def until(happened: Callable[[], object], seconds: float = 15) -> None:
    """Wait until something has happened, or fail."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it has not happened"
        _PAUSE.wait(0.02)


class Held:
    """Something to await that is there once `wait` returns; what a call waits for, as `later.py` has it."""

    def __init__(self, wait: Callable[[], object]) -> None:
        self._wait = wait

    def __await__(self) -> Generator["Held", None, None]:
        yield self

    def at_once(self) -> bool:
        with idle():  # as the driver does
            self._wait()
        return True

    def wait(self) -> None:
        self._wait()

    def then(self, go_on: Callable[[], object]) -> None:
        def work() -> None:
            self._wait()
            go_on()

        threading.Thread(target=work, daemon=True).start()
