"""The servers that are compared: the service, the same of another commit, and the peers."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from course.v1 import course_pb2_grpc
from sqlalchemy.engine import URL

from benchmarks import go_peer
from tests.support.tokens import AUDIENCE, ISSUER, Issuer, jwks

ROOT = Path(__file__).parent.parent
CONNECTIONS = 4
PEERS = ("echo", "by_hand", "textbook", "fastapi", "go")
SERVICE = (sys.executable, "-m", "course_service")


@dataclass(frozen=True)
class Server:
    """A running server, on a core of its own."""

    name: str
    pid: int
    courses: tuple[course_pb2_grpc.CourseServiceStub, ...]
    """A stub for each of the connections, which the calls by gRPC are spread over."""
    http_port: int
    """0 if it does not serve HTTP."""
    token: str
    """What its callers show; empty if it asks nobody who they are."""
    names: list[str] = field(default_factory=list)
    """Of the courses that are asked for."""

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What a call by gRPC brings."""
        return (("authorization", f"Bearer {self.token}"),) if self.token else ()


@dataclass(frozen=True)
class Access:
    """Tokens that name an editor, and what the service needs to know of them."""

    token: str
    environment: Mapping[str, str]


@contextlib.contextmanager
def access() -> Iterator[Access]:
    """Make an issuer of tokens and a policy, which the service checks on loopback without TLS too."""
    issuer = Issuer()
    with tempfile.TemporaryDirectory(prefix="course-access-") as made:
        keys, policy = Path(made, "keys.json"), Path(made, "policy.toml")
        keys.write_bytes(jwks(issuer.public))
        policy.write_text('[roles]\neditor = ["jwt:benchmark"]\n')
        environment = {
            "COURSE_TOKEN_ISSUER": ISSUER,
            "COURSE_TOKEN_AUDIENCE": AUDIENCE,
            "COURSE_TOKEN_KEYS": str(keys),
            "COURSE_POLICY_FILE": str(policy),
        }
        yield Access(issuer.token(sub="benchmark", exp=int(time.time()) + 24 * 60 * 60), environment)


@contextlib.contextmanager
def servers(url: URL, core: int, against: str, peers: Sequence[str] = PEERS) -> Iterator[list[Server]]:
    """Run the service, that of the commit `against` if it names one, and the peers; all on one core."""
    with contextlib.ExitStack() as stack:
        granted = stack.enter_context(access())
        found = [stack.enter_context(service("service", url, core, granted))]
        if against:
            tree = stack.enter_context(_tree_of(against))
            found.append(stack.enter_context(service(against, url, core, granted, tree)))
        plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
        for name, command in _commands(peers):
            found.append(stack.enter_context(_running(name, [*command, plain], core)))
        yield found


@contextlib.contextmanager
def service(name: str, url: URL, core: int, granted: Access, tree: Path = ROOT) -> Iterator[Server]:
    """Run the service of a folder with everything on."""
    with _running(name, SERVICE, core, tree, settings(url, granted), granted.token) as server:
        yield server


def settings(url: URL, granted: Access) -> dict[str, str]:
    """Return the settings of a service with everything on: tokens, a policy, metrics, the log, gRPC and HTTP."""
    return {
        **granted.environment,
        "COURSE_DATABASE_URL": url.render_as_string(hide_password=False),
        "COURSE_GRPC_ADDRESS": "127.0.0.1:0",
        "COURSE_HTTP_ADDRESS": "127.0.0.1:0",
        "COURSE_METRICS_ADDRESS": "127.0.0.1:0",
        "COURSE_DRAIN_SECONDS": "0",
        "MALLOC_ARENA_MAX": "2",  # as in the image
    }


def _commands(peers: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """Return how to start each peer; the one in Go is left out where it cannot be built."""
    for name in peers:
        if name == "go":
            if program := go_peer.build(ROOT):
                yield name, [str(program)]
        elif name == "fastapi":
            yield name, [sys.executable, "-m", "benchmarks.peers.fastapi"]
        else:
            yield name, [sys.executable, "-m", "benchmarks.peers", name]


@contextlib.contextmanager
def _tree_of(commit: str) -> Iterator[Path]:
    """The files of a commit."""
    tree = ROOT / "var" / "benchmarked"
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir(parents=True)
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x", "-C", str(tree)], input=archive, check=True)
    yield tree
    shutil.rmtree(tree)


@contextlib.contextmanager
def _running(
    name: str,
    command: Sequence[str],
    core: int,
    tree: Path = ROOT,
    environment: Mapping[str, str] | None = None,
    token: str = "",
) -> Iterator[Server]:
    """Start a server from a folder, and wait until it serves."""
    with process(command, core, tree, environment or {}) as started, contextlib.ExitStack() as stack:
        ports = _ports_of(started)
        options = [("grpc.use_local_subchannel_pool", 1)]
        channels = [
            stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{ports['gRPC']}", options))
            for _ in range(CONNECTIONS if "gRPC" in ports else 0)
        ]
        stubs = tuple(map(course_pb2_grpc.CourseServiceStub, channels))
        yield Server(name, started.pid, stubs, int(ports.get("HTTP", 0)), token)


@contextlib.contextmanager
def process(
    command: Sequence[str], core: int, tree: Path, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[str]]:
    """Start a program on a core, with the settings of `environment` and no others."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("COURSE_")}
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})  # which the process inherits
    started = subprocess.Popen(
        command,
        cwd=tree,
        env={**inherited, "PYTHONPATH": str(tree / "generated"), **environment},
        stderr=subprocess.PIPE,
        text=True,
    )
    os.sched_setaffinity(0, mine)
    try:
        yield started
    finally:
        started.terminate()
        started.wait()


def _ports_of(process: subprocess.Popen[str]) -> dict[str, str]:
    """Wait until a server says that it serves; returns its port of each protocol."""
    assert process.stderr
    log = ""
    for line in process.stderr:
        log += line
        if "serving" in line and (found := re.findall(r"(gRPC|HTTP) on port (\d+)", log)):
            threading.Thread(target=process.stderr.read, daemon=True).start()  # or it would wait for a reader
            return dict(found)
    raise RuntimeError(f"it does not serve:\n{log}")
