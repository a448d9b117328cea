"""The log's line about each call."""

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
        """Write the line of a call."""
        level = level_of(call)
        if level >= self._level:
            name = "INFO" if level == logging.INFO else "DEBUG"
            self._writer.write(f"{timestamp(time.time())} {name} {CALLS}: {call_line(call, seconds)}\n")
