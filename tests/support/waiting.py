"""Waiting for what happens in another thread."""

import threading
import time
from collections.abc import Callable

_PAUSE = threading.Event()


def until(happened: Callable[[], object], seconds: float = 15) -> None:
    """Wait until something has happened, or fail."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it has not happened"
        _PAUSE.wait(0.02)
