"""How long the service takes to start."""

import threading
import time
from dataclasses import dataclass

from sqlalchemy.engine import URL

from benchmarks.servers import ROOT, SERVICE, Access, process, settings
from course_service.commands.health import is_serving
from tests.faults.support.linux import exact_cpu_seconds
from tests.faults.support.ports import free_port

STARTS = 5
_PATIENCE_SECONDS = 120


@dataclass(frozen=True)
class Start:
    """One start of the service."""

    seconds: float
    """From its process to SERVING by gRPC's health."""
    cpu_seconds: float
    """How much of them it worked."""


def median_start(url: URL, core: int, granted: Access) -> Start:
    """Start the service several times, with everything on; returns the start that was neither fast nor slow."""
    return sorted((_start(url, core, granted) for _ in range(STARTS)), key=lambda start: start.seconds)[STARTS // 2]


def _start(url: URL, core: int, granted: Access) -> Start:
    port = free_port()
    environment = {**settings(url, granted), "COURSE_GRPC_ADDRESS": f"127.0.0.1:{port}"}
    start = time.perf_counter()
    with process(SERVICE, core, ROOT, environment) as started:
        assert started.stderr
        threading.Thread(target=started.stderr.read, daemon=True).start()  # or it would wait for a reader
        while not is_serving(f"127.0.0.1:{port}"):
            if started.poll() is not None or time.perf_counter() - start > _PATIENCE_SECONDS:
                raise RuntimeError("the service does not start")
            time.sleep(0.005)
        return Start(time.perf_counter() - start, exact_cpu_seconds(started.pid))
