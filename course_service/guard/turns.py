"""Whose turn it is when calls wait: callers take turns, so that none of them can keep the others out."""

from collections import Counter, deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Turns(Generic[T]):
    """What waits, by caller.

    Next is the caller that has the fewest calls at work; of those that have as few, the one that has stood in line
    longest: since its last turn, or since it had none waiting. The calls of one caller keep their order. To be used by
    one thread at a time.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, deque[T]] = {}
        """By caller, and who has had a turn stands behind the others."""
        self._at_work: Counter[str] = Counter()
        self._length = 0

    def __len__(self) -> int:
        """How many wait."""
        return self._length

    def add(self, caller: str, item: T) -> None:
        """Have an item of a caller wait."""
        self._waiting.setdefault(caller, deque()).append(item)
        self._length += 1

    def first(self, caller: str) -> T | None:
        """Return the item of a caller that has waited longest, if it has one."""
        queue = self._waiting.get(caller)
        return queue[0] if queue else None

    def begin(self, caller: str) -> None:
        """Count a call of a caller as at work, without having had it wait."""
        self._at_work[caller] += 1

    def next(self) -> tuple[str, T]:
        """Take out the next item, which is at work from now on; returns it with its caller."""
        caller = min(self._waiting, key=self._at_work.__getitem__)
        queue = self._waiting.pop(caller)
        item = queue.popleft()
        if queue:
            self._waiting[caller] = queue
        self._length -= 1
        self.begin(caller)
        return caller, item

    def end(self, caller: str) -> None:
        """Note that a caller has one call less at work."""
        self._at_work[caller] -= 1
        if not self._at_work[caller]:
            del self._at_work[caller]  # callers come and go

    def remove(self, caller: str, item: T) -> None:
        """Take out an item that waits no longer, if it is there."""
        queue = self._waiting.get(caller, ())
        if queue and item in queue:
            queue.remove(item)
            self._length -= 1
            if not queue:
                del self._waiting[caller]

    def may_displace(self, caller: str) -> bool:
        """Whether a caller would still have no more waiting than another one if it took a place from that one."""
        longest = max(map(len, self._waiting.values()), default=0)
        return len(self._waiting.get(caller, ())) + 1 < longest

    def displace(self, caller: str, item: T) -> T:
        """Add an item in the place of the last one of the caller that has most, unless this caller had most then.

        Returns the one that has no place.
        """
        if not self.may_displace(caller):
            return item
        other = max(self._waiting, key=lambda each: len(self._waiting[each]))
        last = self._waiting[other].pop()
        self._length -= 1
        self.add(caller, item)
        return last
