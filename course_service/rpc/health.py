"""grpc.health.v1: SERVING while the schema is there and the database answers."""

import logging
import threading

import grpc
from course.v1 import course_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from course_service.errors import DatabaseUnavailable, StartupError
from course_service.internal import report
from course_service.store.database import Database

SERVICES = ("", course_pb2.DESCRIPTOR.services_by_name["CourseService"].full_name)
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_INTERVAL_SECONDS = 1.0

_log = logging.getLogger(__name__)


class Health:
    """Watches the database from a thread of its own and tells callers, under the service's name and the empty one."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._servicer = health.HealthServicer()
        self._stop = threading.Event()
        self._serving = False
        self._thread = threading.Thread(target=self._watch, name="health", daemon=True)
        self._tell(serving=False)

    def add_to(self, server: grpc.Server) -> None:
        """Serve the health of this process on a server."""
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    def start(self) -> None:
        """Look at the database, say what it is, and go on looking every second."""
        self._look()
        self._thread.start()

    def stop(self) -> None:
        """Say NOT_SERVING for good."""
        self._stop.set()
        self._servicer.enter_graceful_shutdown()

    def _watch(self) -> None:
        while not self._stop.wait(_INTERVAL_SECONDS):
            self._look()

    def _look(self) -> None:
        try:
            self._database.check()
        except (DatabaseUnavailable, StartupError) as error:
            if self._serving:
                _log.warning("not serving: %s", error)
            self._tell(serving=False)
        except Exception as exception:  # or the thread would end, and what it said last would stay
            report(exception)
            self._tell(serving=False)
        else:
            if not self._serving:
                _log.info("serving")
            self._tell(serving=True)

    def _tell(self, *, serving: bool) -> None:
        self._serving = serving
        for service in SERVICES:
            self._servicer.set(service, _SERVING if serving else _NOT_SERVING)


def is_serving(address: str, timeout_seconds: float = 3.0) -> bool:
    """Ask the service at an address for its health, as a container's health check does."""
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        check = channel.unary_unary(
            f"/{health.SERVICE_NAME}/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        try:
            return check(health_pb2.HealthCheckRequest(), timeout=timeout_seconds).status == _SERVING
        except grpc.RpcError:
            return False
