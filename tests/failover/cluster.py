"""Three members of PostgreSQL under Patroni, with one etcd: what fails over when the primary fails."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx2
import psycopg2
from sqlalchemy.engine import URL

from tests.conftest import migrate
from tests.faults.support import linux
from tests.faults.support.ports import free_port
from tests.faults.support.postgres import debian_binaries

LOOPBACK = "127.0.0.1"

_USER = "postgres"
"""Who runs Patroni and PostgreSQL where the tests run as root, which PostgreSQL refuses."""
_SCOPE = "course"

# As small as Patroni takes them: a leader that does not renew its key for `ttl` is replaced, so a frozen or killed
# primary costs 20 s before anybody can be promoted.
_TIMES = {"ttl": 20, "loop_wait": 1, "retry_timeout": 3}
_PARAMETERS = {
    "max_connections": 100,
    "shared_buffers": "32MB",
    "wal_log_hints": "on",  # for pg_rewind
    "wal_keep_size": "512MB",
    "unix_socket_directories": "",
}


def what_is_missing() -> str:
    """Name what has to be installed first, Debian's packages; empty if all is there."""
    programs = {"patroni": "patroni", "etcd": "etcd-server"}
    missing = [package for program, package in programs.items() if not shutil.which(program)]
    if not debian_binaries():
        missing.append("postgresql")
    return ", ".join(missing)


class Member:
    """One member: a Patroni with its PostgreSQL. Both are killed and frozen together, as a machine would be."""

    def __init__(self, name: str, directory: Path, etcd_port: int) -> None:
        self.name = name
        self.port = free_port()
        """Where its PostgreSQL listens."""
        self._rest_port = free_port()
        self._directory = directory / name
        self._directory.mkdir()
        self._patroni: subprocess.Popen[bytes] | None = None
        self._frozen: list[int] = []
        self._write_configuration(etcd_port)

    def start(self) -> None:
        """Start Patroni, which starts PostgreSQL."""
        with (self._directory / "log").open("ab") as log:
            self._patroni = subprocess.Popen(
                ["patroni", self._directory / "patroni.json"],
                stdout=log,
                stderr=log,
                env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8"},
                cwd=self._directory,
                start_new_session=True,
                **_as_user(),
            )

    def kill(self) -> None:
        """Kill every process at once."""
        pids = self._pids()
        _signal(pids, signal.SIGKILL)
        if self._patroni:
            self._patroni.wait(timeout=20)
        for pid in pids:
            linux.wait_until_gone(pid)
        self._frozen = []

    def freeze(self) -> None:
        """Stop every process where it is: connections stay open, and nothing responds."""
        _signal(self._pids()[:2], signal.SIGSTOP)  # the parents first, so that no child is born meanwhile
        self._frozen = self._pids()
        _signal(self._frozen, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let every process go on."""
        _signal(reversed(self._frozen), signal.SIGCONT)
        self._frozen = []

    def mend(self) -> None:
        """Thaw or start it if it is frozen or down."""
        self.thaw()
        if self._patroni is None or self._patroni.poll() is not None:
            self.start()

    def connect(self) -> psycopg2.extensions.connection:
        """Connect to its PostgreSQL, to execute statements outside of any transaction."""
        connection = psycopg2.connect(
            host=LOOPBACK, port=self.port, user="postgres", dbname="postgres", connect_timeout=2
        )
        connection.autocommit = True
        return connection

    def ask(self, path: str) -> Any:
        """Get a path of Patroni's REST interface; None if it does not respond."""
        try:
            return httpx2.get(f"http://{LOOPBACK}:{self._rest_port}{path}", timeout=2).json()
        except (httpx2.HTTPError, ValueError):
            return None

    def tell(self, path: str, body: Any) -> str:
        """Post to a path of Patroni's REST interface; returns what it says, when it has done it."""
        response = httpx2.post(f"http://{LOOPBACK}:{self._rest_port}{path}", json=body, timeout=60)
        assert response.status_code == 200, response.text
        return response.text

    @property
    def log(self) -> str:
        """The end of what Patroni and PostgreSQL have logged."""
        return (self._directory / "log").read_text(errors="replace")[-5000:]

    def _pids(self) -> list[int]:
        """Return Patroni, PostgreSQL's parent, which is no child of Patroni, and the children of both."""
        parents = [self._patroni.pid] if self._patroni and self._patroni.poll() is None else []
        with contextlib.suppress(FileNotFoundError, IndexError):
            postmaster = int((self._directory / "data" / "postmaster.pid").read_text().split()[0])
            if linux.is_running(postmaster):
                parents.append(postmaster)
        return parents + [child for parent in parents for child in linux.children(parent)]

    def _write_configuration(self, etcd_port: int) -> None:
        login = {"username": "postgres"}
        configuration = {
            "scope": _SCOPE,
            "name": self.name,
            "restapi": {"listen": f"{LOOPBACK}:{self._rest_port}", "connect_address": f"{LOOPBACK}:{self._rest_port}"},
            # Of etcd's two interfaces the older one: by the newer one, Patroni 3.0 lets a primary that was frozen take
            # the lock away from its successor, and what was written meanwhile is lost.
            "etcd": {"host": f"{LOOPBACK}:{etcd_port}"},
            "bootstrap": {
                "dcs": {
                    **_TIMES,
                    "synchronous_mode": True,
                    "postgresql": {"use_pg_rewind": True, "parameters": _PARAMETERS},
                },
                "initdb": [{"encoding": "UTF8"}, {"locale": "C.UTF-8"}, "no-sync"],
            },
            "postgresql": {
                "listen": f"{LOOPBACK}:{self.port}",
                "connect_address": f"{LOOPBACK}:{self.port}",
                "data_dir": str(self._directory / "data"),
                "bin_dir": str(debian_binaries()),
                "pgpass": str(self._directory / "pgpass"),
                "authentication": {"superuser": login, "replication": login, "rewind": login},
                "pg_hba": [f"host all all {LOOPBACK}/32 trust", f"host replication all {LOOPBACK}/32 trust"],
                # A primary that comes back must not need anybody's help.
                "remove_data_directory_on_rewind_failure": True,
                "remove_data_directory_on_diverged_timelines": True,
            },
        }
        (self._directory / "patroni.json").write_text(json.dumps(configuration, indent=1))


class Cluster:
    """Three members in synchronous mode, and the migrated database `course` on them."""

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="course-patroni-"))
        etcd_port, peer_port = free_port(), free_port()
        self.members = [Member(f"member{number}", self._directory, etcd_port) for number in (1, 2, 3)]
        if os.geteuid() == 0:
            for path in (self._directory, *self._directory.iterdir()):
                shutil.chown(path, _USER, _USER)
        peers = f"http://{LOOPBACK}:{peer_port}"
        clients = f"http://{LOOPBACK}:{etcd_port}"
        with (self._directory / "etcd.log").open("wb") as log:
            self._etcd = subprocess.Popen(
                [
                    *("etcd", "--enable-v2", "--data-dir", self._directory / "etcd"),
                    *("--name", "etcd", "--initial-cluster", f"etcd={peers}"),
                    *("--listen-client-urls", clients, "--advertise-client-urls", clients),
                    *("--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers),
                ],
                stdout=log,
                stderr=log,
                start_new_session=True,
                **_as_user(),
            )
        try:
            self.mend()
            with contextlib.closing(self.primary.connect()) as connection, connection.cursor() as cursor:
                cursor.execute("CREATE DATABASE course")
            migrate(
                URL.create("postgresql+psycopg2", "postgres", host=LOOPBACK, port=self.primary.port, database="course")
            )
        except BaseException:
            self.close()
            raise

    def mend(self) -> None:
        """Bring every member up, and wait until one is the primary and the others follow it, one synchronously."""
        for member in self.members:
            member.mend()
        wait_until(lambda: self._roles() == ["leader", "replica", "sync_standby"], 90, self._state)

    @property
    def primary(self) -> Member:
        """The member that takes writes."""
        return self._member("leader")

    @property
    def from_primary_to_next(self) -> Sequence[Member]:
        """The members in the order that is worst for who tries one after the other: the primary to be comes last."""
        return [self._member(role) for role in ("leader", "replica", "sync_standby")]

    def switch_over(self) -> None:
        """Have the synchronous standby promoted in an orderly way."""
        primary, _, candidate = self.from_primary_to_next
        primary.tell("/switchover", {"leader": primary.name, "candidate": candidate.name})

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Ask the database `course` of the primary."""
        with (
            contextlib.closing(
                psycopg2.connect(host=LOOPBACK, port=self.primary.port, user="postgres", dbname="course")
            ) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(sql)
            return cursor.fetchall()

    def close(self) -> None:
        """Stop for good and remove the data."""
        for member in self.members:
            member.kill()
        self._etcd.kill()
        self._etcd.wait()
        shutil.rmtree(self._directory)

    def _members(self) -> list[Any]:
        """Return what Patroni says of the members, by whoever has the same view as the others."""
        views = [member.ask("/cluster") for member in self.members]
        members = [sorted(view["members"], key=lambda member: str(member["name"])) for view in views if view]
        roles = {tuple((member["name"], member["role"]) for member in view) for view in members}
        return members[0] if len(members) == len(self.members) and len(roles) == 1 else []

    def _roles(self) -> list[str]:
        members = self._members()
        timelines = {member.get("timeline") for member in members}
        are_up = all(member["state"] in ("running", "streaming") for member in members)
        return sorted(member["role"] for member in members) if are_up and len(timelines) == 1 else []

    def _member(self, role: str) -> Member:
        names = [member["name"] for member in self._members() if member["role"] == role]
        assert len(names) == 1, f"{len(names)} members are {role}"
        return next(member for member in self.members if member.name == names[0])

    def _state(self) -> str:
        logs = "\n".join(f"{member.name}:\n{member.log}" for member in self.members)
        return f"{self._members()}\n{logs}"


def wait_until(condition: Callable[[], bool], seconds: float, describe: Callable[[], str]) -> None:
    """Wait for what nobody notifies of."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"not within {seconds} s: {describe()}"
        time.sleep(0.2)


def _as_user() -> dict[str, Any]:
    return {"user": _USER, "group": _USER, "extra_groups": []} if os.geteuid() == 0 else {}


def _signal(pids: Sequence[int] | Iterator[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            os.kill(pid, number)
