"""The log: lines on standard error, times in UTC."""

import atexit
import functools
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TextIO

_MAX_LINES = 10_000
"""How many lines may wait to be written; what comes on top is dropped and counted."""
_PAUSE_SECONDS = 0.05
"""How long lines are gathered before they are written together."""


def log_to_terminal(level: str) -> None:
    """Log every line as it comes: for commands that do one thing and end."""
    _configure(level, sys.stderr)


def log_in_background(level: str) -> "LogWriter":
    """Log through a thread of its own: for a service, whose calls must not wait for a slow reader of the log."""
    writer = LogWriter(sys.stderr)
    _configure(level, writer)
    atexit.register(writer.close)
    return writer


class LogWriter:
    """Takes lines from every thread and writes them from one, many at a time. A line is written 50 ms late at most."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lines: deque[str | Callable[[], str]] = deque()
        self._dropped = 0
        self._waiting = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def write(self, line: str | Callable[[], str]) -> None:
        """Take a line, or what will make it, to be written soon; if too many wait already, drop it."""
        if len(self._lines) >= _MAX_LINES:
            self._dropped += 1
            return
        self._lines.append(line)
        if not self._waiting.is_set():
            self._waiting.set()

    def flush(self) -> None:
        """Do nothing: logging asks for it after every line."""

    def close(self) -> None:
        """Write what waits, unless nobody reads it, and end."""
        self._closed.set()
        self._waiting.set()
        self._thread.join(timeout=1)

    def _run(self) -> None:
        while not self._closed.is_set():
            self._waiting.wait()
            self._closed.wait(_PAUSE_SECONDS)
            self._waiting.clear()
            self._write_waiting()
        self._write_waiting()  # what came while it wrote

    def _write_waiting(self) -> None:
        taken = [self._lines.popleft() for _ in range(len(self._lines))]
        lines = [line if isinstance(line, str) else line() for line in taken]
        dropped, self._dropped = self._dropped, 0
        if dropped:
            lines.append(f"{dropped} lines were dropped here, because nobody read the log\n")
        try:
            self._stream.write("".join(lines))
            self._stream.flush()
        except (OSError, ValueError):  # a full disk, a closed pipe; perhaps the next lines can be written
            self._dropped += dropped + len(lines)


def _configure(level: str, stream: TextIO | LogWriter) -> None:
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_Formatter())
    logging.basicConfig(level=level, handlers=[handler])


class _Formatter(logging.Formatter):
    """`2026-11-23T18:22:58.202Z INFO course_service: text`."""

    def format(self, record: logging.LogRecord) -> str:
        return f"{timestamp(record.created)} {record.levelname} {record.name}: {record.getMessage()}"


def timestamp(moment: float) -> str:
    """Write a moment, by `time.time()`, in UTC to the millisecond."""
    second = int(moment)
    return f"{_text_of(second)}.{int((moment - second) * 1000):03}Z"


@functools.lru_cache(maxsize=4)
def _text_of(second: int) -> str:
    return time.strftime("%FT%T", time.gmtime(second))
