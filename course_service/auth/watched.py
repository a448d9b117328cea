"""Files that may be replaced while the service runs: certificates, keys, the policy, secrets."""

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from course_service.guard.internal import report
from course_service.startup import StartupError

_log = logging.getLogger("course_service")

_PAUSE_SECONDS = 1.0
"""How long after a change of the files it is noticed at most."""

T = TypeVar("T")


class Unusable(Exception):
    """The files cannot be used; the message says why, in a line without what is in them."""


class Watched(Generic[T]):
    """What some files say, made by `load` of their contents. If new ones cannot be used, what was said before stays.

    Raises `StartupError` if the first ones cannot be used. Several files are taken as one: `load` refuses those that do
    not go together, so that it does not matter in which order they are replaced.
    """

    def __init__(self, what: str, paths: Sequence[str], load: Callable[[Sequence[bytes]], T]) -> None:
        self._what = what
        self._paths = [Path(path) for path in paths]
        self._load = load
        self._problem = ""
        """Why the files cannot be used, as they are now."""
        self._seen = self._signature()
        try:
            self.current = self._read()
        except Unusable as error:
            raise StartupError(f"{what}: {error}") from None
        self._closed = threading.Event()
        threading.Thread(target=self._run, name="watched-files", daemon=True).start()

    def look(self) -> None:
        """Read the files again if they have changed, or could not be used when they were read last."""
        signature = self._signature()
        if signature == self._seen and not self._problem:
            return
        try:
            self.current = self._read()
        except Unusable as error:
            if (signature, str(error)) != (self._seen, self._problem):
                _log.warning("%s: %s; what was read before is still in use", self._what, error)
            self._problem = str(error)
        else:
            self._problem = ""
            _log.info("%s: read again", self._what)
        self._seen = signature

    def close(self) -> None:
        """Look no more."""
        self._closed.set()

    def _run(self) -> None:
        while not self._closed.wait(_PAUSE_SECONDS):
            try:
                self.look()
            except Exception as exception:  # or nobody would look any more
                report(exception)

    def _read(self) -> T:
        contents = []
        for path in self._paths:
            try:
                contents.append(path.read_bytes())
            except OSError as error:
                raise Unusable(f"{path} cannot be read ({error.strerror})") from None
        try:
            return self._load(contents)
        except Unusable:
            raise
        except Exception as error:  # of a parser; its text may quote what is in the files
            raise Unusable(f"cannot be read ({type(error).__name__})") from None

    def _signature(self) -> list[tuple[int, ...] | None]:
        return [_signature(path) for path in self._paths]


def _signature(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino
