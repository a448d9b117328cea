"""What the machine itself adds to every time that is measured on it."""

import threading
import time
from typing import Self

_PAUSE = 0.005


class Noise:
    """Measures, for as long as the context lasts, how late a thread wakes up that does nothing but that.

    The machine is shared with the database, the callers and whoever else uses it.
    """

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.longest = 0.0
        """In seconds."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def allowance(self) -> float:
        """What a call may take longer: both its caller and the service have to wake up for it."""
        return 2 * self.longest

    def _run(self) -> None:
        last = time.monotonic()
        while not self._stop.wait(_PAUSE):
            now = time.monotonic()
            self.longest = max(self.longest, now - last - _PAUSE)
            last = now
