"""The service as a process of its own."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy.engine import URL

ROOT = Path(__file__).parent.parent.parent


class Process:
    """A running service and its log."""

    def __init__(self, **environment: str) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "course_service"],
            cwd=ROOT,
            env=environment_of(**environment),
            stderr=subprocess.PIPE,
            text=True,
        )
        self.log = ""
        self.http_address = ""
        if environment.get("COURSE_HTTP_ADDRESS"):
            self.http_address = "http://127.0.0.1:" + self.wait_for(r"HTTP on port (\d+)")
        self.grpc_address = "127.0.0.1:" + self.wait_for(r"gRPC on port (\d+)")
        self.wait_for("( serving)")

    def wait_for(self, pattern: str) -> str:
        assert self.popen.stderr
        for line in self.popen.stderr:
            self.log += line
            if found := re.search(pattern, line):
                return found[1]
        raise AssertionError(f"{pattern} not in the log:\n{self.log}")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, and return the exit code; that of SIGKILL after a minute."""
        self.popen.send_signal(number)
        overdue = threading.Timer(60, self.popen.kill)
        overdue.start()
        assert self.popen.stderr
        try:
            self.log += self.popen.stderr.read()
        finally:
            overdue.cancel()
        return self.popen.wait(timeout=20)


def environment_of(**settings: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("COURSE_")}
    defaults = {"COURSE_GRPC_ADDRESS": "127.0.0.1:0", "COURSE_HTTP_ADDRESS": "", "COURSE_LOG_FORMAT": "text"}
    return {**inherited, **defaults, **settings}


@contextlib.contextmanager
def running(url: URL, **settings: str) -> Iterator[Process]:
    process = Process(
        COURSE_DATABASE_URL=url.render_as_string(hide_password=False), **{"COURSE_DRAIN_SECONDS": "0", **settings}
    )
    try:
        yield process
    finally:
        process.popen.kill()
        process.popen.wait()
        assert process.popen.stderr
        process.popen.stderr.close()
