"""The log: it keeps nobody waiting, says what it has dropped, and is made of JSON objects where machines read it."""

import fcntl
import io
import json
import logging
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import grpc
import pytest
from course.v1 import course_pb2, course_pb2_grpc
from sqlalchemy.engine import URL

from course_service.call import Call
from course_service.telemetry import logs
from course_service.telemetry.calls import CallLog
from course_service.telemetry.logs import LogWriter
from tests.conftest import ROOT
from tests.support.processes import environment_of, running


class Terminal(io.StringIO):
    """A stream that can be stopped, and that can fail."""

    def __init__(self) -> None:
        super().__init__()
        self.free = threading.Event()
        self.free.set()
        self.taken = threading.Event()
        self.broken = False

    def write(self, text: str) -> int:
        self.taken.set()
        assert self.free.wait(10)
        if self.broken:
            raise OSError("no space left")
        return super().write(text)


def test_every_line_is_written_in_order_the_last_one_too() -> None:
    terminal = Terminal()
    writer = LogWriter(terminal)
    for number in range(1_000):
        writer.write(f"{number}\n")
    writer.close()
    assert terminal.getvalue().split() == [str(number) for number in range(1_000)]


def test_a_line_that_comes_while_others_are_written_is_not_lost_at_the_end() -> None:
    terminal = Terminal()
    terminal.free.clear()
    writer = LogWriter(terminal)
    writer.write("first\n")
    assert terminal.taken.wait(5)
    writer.write("last\n")
    closing = threading.Thread(target=writer.close)
    closing.start()
    terminal.free.set()
    closing.join()
    assert terminal.getvalue() == "first\nlast\n"


def test_when_nobody_reads_lines_are_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_MAX_LINES", 10)
    terminal = Terminal()
    terminal.free.clear()
    writer = LogWriter(terminal)
    writer.write("first\n")
    assert terminal.taken.wait(5)
    for number in range(15):
        writer.write(f"{number}\n")
    terminal.free.set()
    writer.close()
    *written, last = terminal.getvalue().splitlines()
    assert written == ["first", *map(str, range(10))]
    assert last.endswith(
        "Z WARNING course_service.telemetry.logs: 5 lines were dropped here, because nobody read the log"
    )
    assert writer.dropped == 5


def test_a_stream_that_fails_does_not_end_the_log() -> None:
    terminal = Terminal()
    terminal.broken = True
    writer = LogWriter(terminal)
    writer.write("lost\n")
    assert terminal.taken.wait(5)
    terminal.broken = False
    writer.write("written\n")
    writer.close()
    assert "written\n" in terminal.getvalue()


# JSON


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_the_line_of_a_call_is_an_object_without_what_is_empty() -> None:
    terminal = Terminal()
    writer = LogWriter(terminal, is_json=True)
    log = CallLog(writer, "INFO")
    log(Call(face="grpc", method="GetCourse"), 0.0123456)
    log(
        Call(
            face="http",
            method="CreateCourse",
            caller="dns:a.b",
            request_id="r",
            course="courses/a",
            trace_id="t",
            code="INTERNAL",
            reason="INTERNAL",
            error_id="e",
            cause='it said "no"',
        ),
        0,
    )
    log(Call(face="grpc", method="grpc.health.v1.Health/Check"), 0.001)  # at DEBUG
    writer.close()
    found = objects(terminal.getvalue())
    assert [line.pop("time")[-1] for line in found] == ["Z", "Z"]
    assert found == [
        {
            "level": "INFO",
            "method": "GetCourse",
            "face": "grpc",
            "caller": "anonymous",
            "code": "OK",
            "duration_ms": 12.35,
        },
        {
            "level": "INFO",
            "method": "CreateCourse",
            "face": "http",
            "caller": "dns:a.b",
            "code": "INTERNAL",
            "reason": "INTERNAL",
            "duration_ms": 0.0,
            "request_id": "r",
            "course": "courses/a",
            "trace_id": "t",
            "error_id": "e",
            "cause": 'it said "no"',
        },
    ]


@pytest.mark.parametrize("text", ['quote " backslash \\', "two\nlines", "caf\u00e9 \u2028", "half a pair \ud800", "\0"])
def test_every_text_makes_one_line(text: str) -> None:
    line = logs.json_record(time.time(), "INFO", "a.logger", text)
    assert line.endswith("}\n")
    assert line.count("\n") == 1
    assert json.loads(line)["message"] == text


def test_a_record_has_no_text_of_an_exception() -> None:
    for write in (logs.json_record, logs.text_record):
        formatter = logs._Formatter(write)
        canary = RuntimeError("canary")
        record = logging.LogRecord("name", logging.ERROR, "", 0, "it failed", None, (type(canary), canary, None))
        assert "canary" not in formatter.format(record)


def test_what_was_dropped_is_said_as_an_object_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_MAX_LINES", 0)
    terminal = Terminal()
    writer = LogWriter(terminal, is_json=True)
    writer.write("lost\n")
    writer.close()
    (line,) = objects(terminal.getvalue())
    assert line["message"] == "1 lines were dropped here, because nobody read the log"
    assert (line["level"], writer.dropped) == ("WARNING", 1)


def test_the_log_is_json_unless_a_person_reads_it(migrated_url: URL) -> None:
    def purge(log_format: str) -> str:
        settings = {"COURSE_DATABASE_URL": str(migrated_url), "COURSE_LOG_FORMAT": log_format}
        return subprocess.run(
            [sys.executable, "-m", "course_service", "purge"],
            cwd=ROOT,
            env=environment_of(**settings),
            stderr=subprocess.PIPE,
            text=True,
            check=True,
        ).stderr

    (line,) = objects(purge("auto"))
    assert list(line) == ["time", "level", "logger", "message"]
    assert line["message"].startswith("purged 0 courses")
    assert "Z INFO course_service: purged 0 courses" in purge("text")


def test_a_log_that_nobody_reads_slows_no_call(migrated_url: URL) -> None:
    with running(migrated_url) as process, grpc.insecure_channel(process.grpc_address) as channel:
        assert process.popen.stderr
        fcntl.fcntl(process.popen.stderr, fcntl.F_SETPIPE_SZ, 4096)  # from here on nobody reads
        get = course_pb2_grpc.CourseServiceStub(channel).GetCourse
        slowest = 0.0
        for _ in range(60):  # more than the pipe takes
            start = time.monotonic()
            with pytest.raises(grpc.RpcError) as caught:
                get(course_pb2.GetCourseRequest(name="courses/nope"), timeout=5)
            assert isinstance(caught.value, grpc.Call)
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND
            slowest = max(slowest, time.monotonic() - start)
        assert slowest < 2
        process.popen.send_signal(signal.SIGTERM)
        assert process.popen.wait(timeout=20) == 0


def test_calls_whose_lines_nobody_reads_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_MAX_LINES", 10)
    terminal = Terminal()
    terminal.free.clear()
    writer = LogWriter(terminal)
    log = CallLog(writer, "INFO")
    log(Call(face="grpc", method="GetCourse"), 0)
    assert terminal.taken.wait(5)
    start = time.monotonic()
    for _ in range(1_000):
        log(Call(face="grpc", method="GetCourse"), 0)
    assert time.monotonic() - start < 1
    assert writer.dropped == 990
    terminal.free.set()
    writer.close()
