"""What can be told of the database's work to whoever watches it."""

from contextlib import AbstractContextManager
from typing import Protocol


class Watch(Protocol):
    """Watches the work of a database. None of these may raise, or take long: the work waits for it."""

    def unit(self, kind: str) -> AbstractContextManager[None]:
        """Be around a unit of work, with its waiting and its tries: a `read`, or a `write` (tried out or not)."""

    def waited(self) -> None:
        """Note that a unit of work has to wait for a connection, or for its turn to write to SQLite."""

    def retried(self) -> None:
        """Note that a unit of work is tried again."""
