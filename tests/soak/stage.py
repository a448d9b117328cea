"""What the run takes place on: the service as a process, its database, and what can be done to both."""

from __future__ import annotations

import contextlib
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from sqlalchemy.engine import URL, make_url

from tests.conftest import migrate
from tests.faults.support.ports import free_port
from tests.faults.support.postgres import Postgres
from tests.faults.support.service import Service
from tests.soak.tally import Fault, Sample, Tally

Act = Callable[[random.Random], None]

_TAIL = 20_000
_HOLD_LOCK = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
time.sleep(float(sys.argv[2]))
"""


class _LoggedService(Service):
    """The service with no more of its log kept than its end and its errors: a long run makes gigabytes of it."""

    errors: list[str]

    def wait_for(self, pattern: str, seconds: float = 120.0) -> re.Match[str]:
        """Wait longer than a test would: a busy machine is no reason to end a long run."""
        return super().wait_for(pattern, seconds)

    def _read_log(self) -> None:
        self.errors = []
        assert self._popen.stderr
        for line in self._popen.stderr:
            with self._log_grows:
                self.log = (self.log + line)[-_TAIL:]
                self._log_grows.notify_all()
            if " ERROR " in line or " CRITICAL " in line or "Traceback" in line:
                self.errors.append(line.rstrip())
        with self._log_grows:
            self._log_ended = True
            self._log_grows.notify_all()


class Base(ABC):
    """A database and what can be done to it."""

    url: URL

    @property
    @abstractmethod
    def acts(self) -> Mapping[str, Act]:
        """The faults of the database by what happens, each ends with the database usable."""

    @abstractmethod
    def crash(self) -> None:
        """End as a machine that crashes does, and come back."""

    @abstractmethod
    def problems(self) -> list[str]:
        """Say what the database itself finds wrong with what it has stored."""

    @abstractmethod
    def close(self) -> None:
        """Remove it."""


class PostgresqlBase(Base):
    """PostgreSQL."""

    def __init__(self) -> None:
        self._server = Postgres()
        self.url = self._server.url

    @property
    def acts(self) -> Mapping[str, Act]:
        return {
            "PostgreSQL killed": self._killed,
            "PostgreSQL restarted (fast)": lambda chance: self._stopped(chance, "fast"),
            "PostgreSQL restarted (immediate)": lambda chance: self._stopped(chance, "immediate"),
            "PostgreSQL frozen": self._frozen,
        }

    def crash(self) -> None:
        self._server.kill()
        self._server.start()

    def problems(self) -> list[str]:
        rows = self._server.execute(
            "SELECT course_id FROM courses GROUP BY course_id HAVING count(*) > 1"
            " UNION ALL SELECT title FROM courses GROUP BY title HAVING count(*) > 1"
        )
        return [f"stored twice: {row[0]}" for row in rows]

    def close(self) -> None:
        self._server.close()

    def _killed(self, chance: random.Random) -> None:
        self._server.kill()
        time.sleep(chance.uniform(0, 3))
        self._server.start()

    def _stopped(self, chance: random.Random, mode: str) -> None:
        self._server.stop(mode)
        time.sleep(chance.uniform(0, 3))
        self._server.start()

    def _frozen(self, chance: random.Random) -> None:
        with self._server.frozen():
            time.sleep(chance.uniform(2, 10))


class SqliteBase(Base):
    """A SQLite file."""

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="course-soak-"))
        self._file = self._directory / "course.db"
        self.url = make_url(f"sqlite:///{self._file}")
        migrate(self.url)

    @property
    def acts(self) -> Mapping[str, Act]:
        return {"SQLite file locked": self._locked}

    def crash(self) -> None:
        """Do nothing: it lives in the service's process."""

    def problems(self) -> list[str]:
        connection = sqlite3.connect(self._file)
        try:
            found = [row[0] for row in connection.execute("PRAGMA integrity_check")]
        finally:
            connection.close()
        return [] if found == ["ok"] else found

    def close(self) -> None:
        shutil.rmtree(self._directory)

    def _locked(self, chance: random.Random) -> None:
        """Have another process hold the lock that a writer needs."""
        subprocess.run(
            [sys.executable, "-c", _HOLD_LOCK, self._file, str(chance.uniform(1, 8))], check=True, capture_output=True
        )


BASES: Mapping[str, type[Base]] = {"postgresql": PostgresqlBase, "sqlite": SqliteBase}


class Stage:
    """The service over its database; both come back after whatever is done to them."""

    def __init__(self, base: Base, tally: Tally, fault: str | None) -> None:
        self._base = base
        self._tally = tally
        self._fault = fault
        self._settings = {
            "COURSE_GRPC_ADDRESS": f"127.0.0.1:{free_port()}",
            "COURSE_HTTP_ADDRESS": f"127.0.0.1:{free_port()}",
            "COURSE_DRAIN_SECONDS": "1",
        }
        self._service = self._started()

    @property
    def grpc_address(self) -> str:
        """Where gRPC listens, in every life of the service."""
        return self._service.grpc_address

    @property
    def http_address(self) -> str:
        """Where HTTP listens."""
        return self._service.http_address

    @property
    def database_acts(self) -> Mapping[str, Act]:
        """What can be done to the database."""
        return self._base.acts

    @property
    def service_acts(self) -> Mapping[str, Act]:
        """What can be done to the service."""
        return {
            "service killed": lambda _: self.crash_service(),
            "service restarted": lambda _: self._restart(),
            "service frozen": self._freeze,
        }

    def do(self, kind: str, chance: random.Random) -> Fault:
        """Do something of this name, and see to it that all is up again."""
        act = {**self.database_acts, **self.service_acts}[kind]
        fault = self._tally.begin(kind)
        act(chance)
        fault.end = self._tally.now
        return fault

    def sample(self) -> None:
        """Take down what the service uses."""
        service = self._service
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, ValueError, IndexError):  # it is being killed
            self._tally.samples.append(
                Sample(
                    self._tally.now,
                    service.pid,
                    service.memory_bytes(),
                    service.threads(),
                    service.descriptors(),
                    service.cpu_seconds(),
                )
            )

    def crash_service(self) -> None:
        """Kill the service, and start it again."""
        self._service.kill()
        self._service = self._restarted()

    def crash_all(self) -> None:
        """Kill the service and its database at once, and start both again."""
        self._service.kill()
        self._base.crash()
        self._service = self._restarted()

    def close(self) -> None:
        """End the service."""
        self._service.close()
        self._take_errors()

    def _restart(self) -> None:
        began = self._tally.now
        try:
            exit_code = self._service.stop(signal.SIGTERM)
        except subprocess.TimeoutExpired as error:
            self._tally.errors_in_log.append(f"the service does not end after SIGTERM: {error}")
        else:
            if exit_code:
                self._tally.errors_in_log.append(f"the service ended with {exit_code} after SIGTERM")
        self._tally.stops.append(self._tally.now - began)
        self._service = self._restarted()

    def _freeze(self, chance: random.Random) -> None:
        self._service.freeze()
        try:
            time.sleep(chance.uniform(1, 6))
        finally:
            self._service.thaw()

    def _restarted(self) -> _LoggedService:
        self._service.close()
        self._take_errors()
        return self._started()

    def _started(self) -> _LoggedService:
        began = self._tally.now
        service = _LoggedService(self._base.url, self._fault, **self._settings)
        self._tally.starts.append(self._tally.now - began)
        return service

    def _take_errors(self) -> None:
        self._tally.errors_in_log += self._service.errors


@contextlib.contextmanager
def stage(database: str, tally: Tally, fault: str | None) -> Iterator[tuple[Base, Stage]]:
    """A new database of a kind with the service over it."""
    base = BASES[database]()
    try:
        the_stage = Stage(base, tally, fault)
        try:
            yield base, the_stage
        finally:
            the_stage.close()
    finally:
        base.close()
