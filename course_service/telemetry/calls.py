"""The log's line about each call."""

import functools
import logging
import time

from course_service.call import Call
from course_service.guard.steps import CALLS, call_line, level_of
from course_service.telemetry.logs import LogWriter, timestamp


class CallLog:
    """Writes the lines of calls, without the record that logging would make for each."""

    def __init__(self, writer: LogWriter, level: str) -> None:
        self._writer = writer
        self._level = logging.getLevelNamesMapping()[level]

    def __call__(self, call: Call, seconds: float) -> None:
        """Have the line of a call written. The log's thread makes it: many in a row cost less than one at a time."""
        level = level_of(call)
        if level >= self._level:
            self._writer.write(functools.partial(_line, level, time.time(), call, seconds))


def _line(level: int, ended: float, call: Call, seconds: float) -> str:
    return f"{timestamp(ended)} {logging.getLevelName(level)} {CALLS}: {call_line(call, seconds)}\n"
