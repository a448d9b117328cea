"""The service as a process that can be killed, frozen and measured."""

import contextlib
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy.engine import URL

from tests.conftest import ROOT
from tests.faults.support import linux
from tests.support.processes import environment_of

_CALL = re.compile(r" (?P<face>grpc|http) (?P<method>\S+) (?P<code>[A-Z_]+) (?P<ms>[\d.]+) ms ")

FAULT = "FAULT"
"""The environment variable that names a fault of `faulty.py`."""


@dataclass(frozen=True, slots=True)
class LoggedCall:
    """What the service says of a call: how long it was worked on counts, whenever its caller has left."""

    face: str
    method: str
    code: str
    seconds: float


class Service:
    """A running service: its addresses, its log, and what the kernel says of it."""

    def __init__(self, url: URL, fault: str | None, **settings: str) -> None:
        defaults = {
            "COURSE_DATABASE_URL": url.render_as_string(hide_password=False),
            "COURSE_HTTP_ADDRESS": "127.0.0.1:0",
            "COURSE_HEALTH_ADDRESS": "127.0.0.1:0",
            "COURSE_DRAIN_SECONDS": "0",
        }
        environment = environment_of(**{**defaults, **settings})
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.support.faulty"],
            cwd=ROOT,
            env={**environment, **({FAULT: fault} if fault else {})},
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C at the terminal is for pytest
        )
        self.pid = self._popen.pid
        self.log = ""
        """What it has logged so far."""
        self._log_grows = threading.Condition()
        self._log_ended = False
        self.log_is_read = threading.Event()
        """While it is clear, nobody reads what the service logs."""
        self.log_is_read.set()
        threading.Thread(target=self._read_log, daemon=True).start()
        try:
            self.wait_for(r" serving\n")
            self.grpc_address = self._address("gRPC")
            self.http_address = "http://" + self._address("HTTP") if environment["COURSE_HTTP_ADDRESS"] else ""
            self.health_address = self._address("health") if environment["COURSE_HEALTH_ADDRESS"] else ""
        except BaseException:
            self.close()
            raise

    def wait_for(self, pattern: str, seconds: float = 30.0) -> re.Match[str]:
        """Wait until the log has a pattern."""
        until = time.monotonic() + seconds
        with self._log_grows:
            while not (found := re.search(pattern, self.log)):
                left = until - time.monotonic()
                assert left > 0, f"{pattern!r} is not in the log after {seconds} s:\n{self.log[-5000:]}"
                assert not self._log_ended, f"{pattern!r} is not in the log:\n{self.log[-5000:]}"
                self._log_grows.wait(left)
            return found

    def calls(self) -> list[LoggedCall]:
        """Return the calls that have ended, in that order, from the log."""
        found = _CALL.finditer(self.log)
        return [LoggedCall(line["face"], line["method"], line["code"], float(line["ms"]) / 1000) for line in found]

    def stop(self, number: int = signal.SIGTERM, seconds: float = 30.0) -> int:
        """Send a signal and wait for the end; returns the exit code."""
        self._popen.send_signal(number)
        return self.wait(seconds)

    def signal(self, number: int) -> None:
        """Send a signal."""
        self._popen.send_signal(number)

    def wait(self, seconds: float = 30.0) -> int:
        """Wait for the end; returns the exit code."""
        exit_code = self._popen.wait(timeout=seconds)
        with self._log_grows:
            self._log_grows.wait_for(lambda: self._log_ended, timeout=5)
        return exit_code

    def kill(self) -> None:
        """Kill it, as the kernel does with a process that takes too much memory."""
        self._popen.kill()
        self.wait()

    def freeze(self) -> None:
        """Stop it where it is: connections stay open, and nothing responds."""
        self._popen.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._popen.send_signal(signal.SIGCONT)

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._popen.poll() is None

    def cpu_seconds(self) -> float:
        """Return the processor time that it has used."""
        return linux.cpu_seconds(self.pid)

    def memory_bytes(self) -> int:
        """Return the memory that it has resident."""
        return linux.memory_bytes(self.pid)

    def threads(self) -> int:
        """Return how many threads it has."""
        return linux.threads(self.pid)

    def descriptors(self) -> int:
        """Return how many files and sockets it has open."""
        return linux.descriptors(self.pid)

    def close(self) -> None:
        """End it, if it has not ended."""
        self.log_is_read.set()
        if self.is_running:
            self._popen.kill()
        self.wait()
        assert self._popen.stderr
        self._popen.stderr.close()

    def _address(self, face: str) -> str:
        return "127.0.0.1:" + self.wait_for(rf"{face} on port (\d+)")[1]

    def _read_log(self) -> None:
        assert self._popen.stderr
        for line in self._popen.stderr:
            self.log_is_read.wait()
            with self._log_grows:
                self.log += line
                self._log_grows.notify_all()
        with self._log_grows:
            self._log_ended = True
            self._log_grows.notify_all()


@contextlib.contextmanager
def running(url: URL, fault: str | None = None, **settings: str) -> Iterator[Service]:
    """Run the service over a migrated database; settings by the names of their variables, COURSE_THREADS="4"."""
    service = Service(url, fault, **settings)
    try:
        yield service
    finally:
        service.close()
