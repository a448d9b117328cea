"""The log's writer: it keeps nobody waiting, and says what it has dropped."""

import io
import threading

import pytest

from course_service.telemetry import logs
from course_service.telemetry.logs import LogWriter


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
    assert terminal.getvalue().splitlines()[1:] == [
        *map(str, range(10)),
        "5 lines were dropped here, because nobody read the log",
    ]


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
