"""The servers that are compared: the service, the same of another commit, and the peers."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
from course.v1 import course_pb2_grpc
from sqlalchemy.engine import URL

ROOT = Path(__file__).parent.parent
CONNECTIONS = 4
PEERS = ("echo", "by_hand", "textbook")


@dataclass(frozen=True)
class Server:
    """A running server, on a core of its own."""

    name: str
    pid: int
    courses: tuple[course_pb2_grpc.CourseServiceStub, ...]
    """A stub for each of the connections, which the calls are spread over."""


@contextlib.contextmanager
def servers(url: URL, core: int, against: str) -> Iterator[list[Server]]:
    """Run the service, that of the commit `against` if it names one, and the peers; all on one core."""
    with contextlib.ExitStack() as stack:
        service = [sys.executable, "-m", "course_service"]
        found = [stack.enter_context(_running("service", service, url, core, ROOT))]
        if against:
            tree = stack.enter_context(_tree_of(against))
            found.append(stack.enter_context(_running(against, service, url, core, tree)))
        plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
        for name in PEERS:
            peer = [sys.executable, "-m", "benchmarks.peers", name, plain]
            found.append(stack.enter_context(_running(name, peer, url, core, ROOT)))
        yield found


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
def _running(name: str, command: list[str], url: URL, core: int, tree: Path) -> Iterator[Server]:
    """Start a server from a folder, and wait until it serves."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("COURSE_")}
    environment = {
        **inherited,
        "PYTHONPATH": str(tree / "generated"),
        "COURSE_DATABASE_URL": url.render_as_string(hide_password=False),
        "COURSE_GRPC_ADDRESS": "127.0.0.1:0",
        "COURSE_HTTP_ADDRESS": "",
        "COURSE_METRICS_ADDRESS": "127.0.0.1:0",
    }
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})  # which the process inherits
    process = subprocess.Popen(command, cwd=tree, env=environment, stderr=subprocess.PIPE, text=True)
    os.sched_setaffinity(0, mine)
    try:
        address = "127.0.0.1:" + _port_of(process)
        with contextlib.ExitStack() as stack:
            options = [("grpc.use_local_subchannel_pool", 1)]
            channels = [stack.enter_context(grpc.insecure_channel(address, options)) for _ in range(CONNECTIONS)]
            yield Server(name, process.pid, tuple(map(course_pb2_grpc.CourseServiceStub, channels)))
    finally:
        process.terminate()
        process.wait()


def _port_of(process: subprocess.Popen[str]) -> str:
    assert process.stderr
    log = ""
    for line in process.stderr:
        log += line
        if "serving" in line and (found := re.search(r"gRPC on port (\d+)", log)):
            threading.Thread(target=process.stderr.read, daemon=True).start()  # or it would wait for a reader
            return found[1]
    raise RuntimeError(f"it does not serve:\n{log}")
