"""The log: lines on standard error, as text or as JSON objects, times in UTC."""

import atexit
import functools
import json
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import TextIO

from pydantic_core import PydanticSerializationError, to_json

_MAX_LINES = 10_000
"""How many lines may wait to be written; what comes on top is dropped and counted."""
_PAUSE_SECONDS = 0.05
"""How long lines are gathered before they are written together."""


def log_to_terminal(level: str, log_format: str) -> None:
    """Log every line as it comes: for commands that do one thing and end."""
    _configure(level, sys.stderr, is_json=_is_json(log_format))


def log_in_background(level: str, log_format: str) -> "LogWriter":
    """Log through a thread of its own: for a service, whose calls must not wait for a slow reader of the log."""
    writer = LogWriter(sys.stderr, is_json=_is_json(log_format))
    _configure(level, writer, is_json=writer.is_json)
    atexit.register(writer.close)
    return writer


class LogWriter:
    """Takes lines from every thread and writes them from one, many at a time. A line is written 50 ms late at most."""

    def __init__(self, stream: TextIO, *, is_json: bool = False) -> None:
        self.is_json = is_json
        """Whether its lines are JSON objects."""
        self.dropped = 0
        """How many lines have been dropped so far."""
        self._said = 0
        """How many of them it has said so of."""
        self._stream = stream
        self._lines: deque[str | Callable[[], str]] = deque()
        self._lock = threading.Lock()
        self._waiting = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def write(self, line: str | Callable[[], str]) -> None:
        """Take a line, or what will make it, to be written soon; if too many wait already, drop it."""
        if len(self._lines) >= _MAX_LINES:
            self._drop(1)
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
        dropped = self.dropped
        if dropped > self._said:
            what = f"{dropped - self._said} lines were dropped here, because nobody read the log"
            lines.append((json_record if self.is_json else text_record)(time.time(), "WARNING", __name__, what))
        try:
            self._stream.write("".join(lines))
            self._stream.flush()
        except (OSError, ValueError):  # a full disk, a closed pipe; perhaps the next lines can be written
            self._drop(len(taken))
        else:
            self._said = dropped

    def _drop(self, lines: int) -> None:
        with self._lock:
            self.dropped += lines


def _is_json(log_format: str) -> bool:
    return log_format == "json" or (log_format == "auto" and not sys.stderr.isatty())


def _configure(level: str, stream: TextIO | LogWriter, *, is_json: bool) -> None:
    handler = logging.StreamHandler(stream)
    handler.terminator = ""
    handler.setFormatter(_Formatter(json_record if is_json else text_record))
    logging.basicConfig(level=level, handlers=[handler])


class _Formatter(logging.Formatter):
    """Writes records without the texts and tracebacks of exceptions, which may quote anything."""

    def __init__(self, write: Callable[[float, str, str, str], str]) -> None:
        super().__init__()
        self._write = write

    def format(self, record: logging.LogRecord) -> str:
        return self._write(record.created, record.levelname, record.name, record.getMessage())


def text_record(moment: float, level: str, logger: str, message: str) -> str:
    """Write a record as `2026-11-23T18:22:58.202Z INFO course_service: message`."""
    return f"{timestamp(moment)} {level} {logger}: {message}\n"


def json_record(moment: float, level: str, logger: str, message: str) -> str:
    """Write a record as a JSON object."""
    return json_line({"time": timestamp(moment), "level": level, "logger": logger, "message": message})


def json_line(members: Mapping[str, object]) -> str:
    """Write a JSON object on a line of its own."""
    try:
        return to_json(members).decode() + "\n"
    except PydanticSerializationError:  # half of a surrogate pair, which UTF-8 has no bytes for
        return json.dumps(members) + "\n"


def timestamp(moment: float) -> str:
    """Write a moment, by `time.time()`, in UTC to the millisecond."""
    second = int(moment)
    return f"{_text_of(second)}.{int((moment - second) * 1000):03}Z"


@functools.lru_cache(maxsize=4)
def _text_of(second: int) -> str:
    return time.strftime("%FT%T", time.gmtime(second))
