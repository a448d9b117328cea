"""The steps that a call passes before its work is done. Each can refuse it, by raising an error of `errors.py`."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from course_service.call import ANONYMOUS, Call


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a caller has shown of itself."""

    pairs: Sequence[tuple[str, str | bytes]]
    """The call's metadata (gRPC) or headers (HTTP): names in lower case and values, as often as each was sent."""

    def values(self, name: str) -> list[str]:
        """Return every text value that was sent under a name."""
        return [value for key, value in self.pairs if key == name and isinstance(value, str)]


Identify = Callable[[Credentials], str]
"""Says who calls."""
Authorise = Callable[[Call], None]
"""Raises unless the caller may call the method."""
Admit = Callable[[Call], AbstractContextManager[None]]
"""Takes room for the call until the context ends, or raises because there is none."""


def anonymous(_: Credentials) -> str:
    """Everybody is anonymous: nobody has to say who they are."""
    return ANONYMOUS


def everybody(_: Call) -> None:
    """Every caller may call every method."""


def always(_: Call) -> AbstractContextManager[None]:
    """There is room for every call; how many are worked on at once is up to the threads."""
    return _NOTHING


_NOTHING = nullcontext()
