"""Whether a face has room for one more call."""

import time
from collections import deque

MAX_WAITING = 1_000
"""How many calls may wait for a thread, however short their wait."""


class Room:
    """The calls of one face that wait for a thread.

    They are worked on in the order in which they came. So when the first of them has waited for `max_wait_seconds`,
    one more would wait that long too: it is refused at once, before anything is done for it. A call that is let in
    has most of its time left when its turn comes, and a burst that is worked off quickly is let in whole.
    """

    def __init__(self, max_wait_seconds: float) -> None:
        self._max_wait_seconds = max_wait_seconds
        self._arrivals: deque[float] = deque()

    def is_full(self) -> bool:
        """Whether a call that comes now is one too many."""
        try:
            waited = time.monotonic() - self._arrivals[0]
        except IndexError:
            return False
        return waited > self._max_wait_seconds or len(self._arrivals) >= MAX_WAITING

    def begin_to_wait(self) -> None:
        """Note that a call waits for a thread from now on."""
        self._arrivals.append(time.monotonic())

    def end_to_wait(self) -> None:
        """Note that the call that has waited longest waits no more."""
        self._arrivals.popleft()
