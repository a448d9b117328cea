"""A service of a test's own, with everything that an operator sees of it."""

import contextlib
import io
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass

import grpc
import pytest
from course.v1 import course_pb2_grpc
from sqlalchemy.engine import URL

from course_service.guard.guard import Guard
from course_service.health import Health
from course_service.rest.app import make_app
from course_service.rest.places import Places
from course_service.rest.server import HttpServer
from course_service.rpc.health import HealthServicer
from course_service.rpc.server import make_server
from course_service.rpc.threads import CallThreads
from course_service.settings import Settings
from course_service.store.database import Database
from course_service.telemetry.logs import LogWriter
from course_service.telemetry.telemetry import Telemetry, open_telemetry
from tests.conftest import TOKENS, Service
from tests.support.http import http_client

THREADS = 4


@dataclass(frozen=True)
class Watched(Service):
    """A service, its database, and what is seen of it."""

    database: Database
    health: Health
    telemetry: Telemetry
    stream: io.StringIO
    log: LogWriter
    threads: CallThreads
    places: Places

    def metrics(self) -> str:
        """What Prometheus would read."""
        server = self.telemetry._server
        assert server
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=10) as response:
            text: str = response.read().decode()
            return text

    def fill_threads(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Have gRPC's threads look as if each had a call, and as many waited as may."""
        monkeypatch.setattr(self.threads, "_free", 0)
        monkeypatch.setattr(self.threads, "_max_waiting", 0)

    def value(self, sample: str) -> float:
        """The value of one sample, such as `course_ready` or `course_calls_in_flight{face="http"}`; 0 without it."""
        return next(
            (float(line.split(" ")[-1]) for line in self.metrics().splitlines() if line.startswith(f"{sample} ")), 0
        )


@contextlib.contextmanager
def watched(url: URL, max_waiting: int = 1000, **settings: object) -> Iterator[Watched]:
    """Run a service with the settings of its telemetry."""
    stream = io.StringIO()
    log = LogWriter(stream, is_json=True)
    chosen = Settings.model_validate({"metrics_address": "127.0.0.1:0", "log_level": "DEBUG", **settings})
    telemetry = open_telemetry(chosen, log)
    database = Database(url, connections=2 * THREADS, watch=telemetry.watch)
    health = Health(database)
    guard = Guard(begin=telemetry.begin, observe=telemetry.end)
    threads, places = CallThreads(THREADS, max_waiting=max_waiting), Places(THREADS, max_waiting=max_waiting)
    server, port = make_server("127.0.0.1:0", database, TOKENS, HealthServicer(health), guard, threads)
    http_server = HttpServer("127.0.0.1:0", make_app(database, TOKENS, health, guard, places))
    telemetry.start(database, health)
    server.start()
    http_server.start()
    health.start()
    try:
        with (
            grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
            http_client(f"http://127.0.0.1:{http_server.port}") as http,
        ):
            stub = course_pb2_grpc.CourseServiceStub(channel)
            yield Watched(stub, channel, http, database, health, telemetry, stream, log, threads, places)
    finally:
        health.stop()
        http_server.stop()
        server.stop(None).wait()
        threads.close(5)
        telemetry.close()
        database.close()
        log.close()
