"""grpc.health.v1: SERVING while the database responds and has the schema."""

import logging
import threading

import grpc
from course.v1 import course_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from course_service.errors import DatabaseUnavailable, StartupError
from course_service.guard.internal import report
from course_service.store.database import Database

HEALTH_SERVICE: str = health.SERVICE_NAME
SERVICES = ("", course_pb2.DESCRIPTOR.services_by_name["CourseService"].full_name)
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_INTERVAL_SECONDS = 1.0

_log = logging.getLogger(__name__)


class Health:
    """Looks at the database from a thread of its own, and reports under the service's name and the empty one."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._servicer = health.HealthServicer()
        self._stop = threading.Event()
        self._serving: bool | None = None
        self._problem = ""
        self._thread = threading.Thread(target=self._watch, name="health", daemon=True)
        self._set(serving=False)

    def add_to(self, server: grpc.Server) -> None:
        """Serve the health of this process on a server."""
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    def start(self) -> None:
        """Look at the database, report, and go on looking every second."""
        self._look()
        self._thread.start()

    def stop(self) -> None:
        """Report NOT_SERVING from now on."""
        self._stop.set()
        self._servicer.enter_graceful_shutdown()

    def _watch(self) -> None:
        while not self._stop.wait(_INTERVAL_SECONDS):
            self._look()

    def _look(self) -> None:
        try:
            self._database.check()
        except DatabaseUnavailable as error:
            self._report(f"the database of COURSE_DATABASE_URL does not respond: {error.cause}")
        except StartupError as error:
            self._report(str(error))
        except Exception as exception:  # or the thread would end, and what it reported last would stay
            self._report(f"internal error {report(exception).metadata['errorId']}")
        else:
            self._report("")

    def _report(self, problem: str) -> None:
        """Log a change of what is wrong, and report to callers whether anything is."""
        if problem and problem != self._problem:
            _log.warning("not serving: %s", problem)
        elif not problem and not self._serving:
            _log.info("serving")
        self._problem = problem
        self._set(serving=not problem)

    def _set(self, *, serving: bool) -> None:
        if serving == self._serving:
            return  # or every watcher would get the same status again
        self._serving = serving
        for service in SERVICES:
            self._servicer.set(service, _SERVING if serving else _NOT_SERVING)
