"""The log's line about each call."""

import functools
import logging
import time

from course_service.call import Call
from course_service.guard.steps import CALLS, call_line, level_of
from course_service.telemetry.logs import LogWriter, json_line, text_record, timestamp


class CallLog:
    """Writes the lines of calls, without the record that logging would make for each."""

    def __init__(self, writer: LogWriter, level: str) -> None:
        self._writer = writer
        self._level = logging.getLevelNamesMapping()[level]
        self._line = _json_line if writer.is_json else _text_line

    def __call__(self, call: Call, seconds: float) -> None:
        """Have the line of a call written. The log's thread makes it: many in a row cost less than one at a time."""
        level = level_of(call)
        if level >= self._level:
            self._writer.write(functools.partial(self._line, level, time.time(), call, seconds))


def _text_line(level: int, ended: float, call: Call, seconds: float) -> str:
    return text_record(ended, logging.getLevelName(level), CALLS, call_line(call, seconds))


def _json_line(level: int, ended: float, call: Call, seconds: float) -> str:
    """Write a call as one object, which lacks what is empty. It has the same as the text."""
    often = _members(level, call.method, call.face, call.caller, call.code, call.reason)
    line = f'{{"time":"{timestamp(ended)}",{often},"duration_ms":{seconds * 1000:.2f}'
    if not (call.request_id or call.course or call.trace_id or call.error_id or call.cause):  # as of most reads
        return line + "}\n"
    seldom = {name: value for name in _SELDOM if (value := getattr(call, name))}
    return f"{line},{json_line(seldom)[1:]}"


_SELDOM = ("request_id", "course", "trace_id", "error_id", "cause")


@functools.lru_cache(maxsize=1000)
def _members(level: int, method: str, face: str, caller: str, code: str, reason: str) -> str:
    """Write what many calls have in common, as members of an object."""
    members = {
        "level": logging.getLevelName(level),
        "method": method,
        "face": face,
        "caller": caller,
        "code": code,
        **({"reason": reason} if reason else {}),
    }
    return json_line(members)[1:-2]
