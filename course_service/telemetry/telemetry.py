"""Everything that an operator sees: the log, and metrics and traces where the settings ask for them."""

from __future__ import annotations

import logging
import time
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from course_service.guard.internal import report
from course_service.telemetry.calls import CallLog

if TYPE_CHECKING:
    from collections.abc import Callable

    from course_service.call import Call
    from course_service.guard.steps import Credentials
    from course_service.health import Health
    from course_service.settings import Settings
    from course_service.store.database import Database
    from course_service.telemetry.logs import LogWriter
    from course_service.telemetry.metrics import Metrics
    from course_service.telemetry.scrapes import MetricsServer

_log = logging.getLogger("course_service")


class Telemetry:
    """What observes each call once, for all that want to know of it, and the database's work (as its `Watch`).

    Nothing of it may fail a call: what it raises is reported and goes no further.
    """

    def __init__(self, log: CallLog, metrics: Metrics | None = None, server: MetricsServer | None = None) -> None:
        self._log = log
        self._metrics = metrics
        self._server = server

    @property
    def watch(self) -> Telemetry | None:
        """What has to watch the database: nothing, if there is only a log."""
        return self if self._metrics else None

    def start(
        self,
        database: Database,
        health: Health,
        *,
        certificate_ends: Callable[[], float] | None = None,
        keys_loaded: Callable[[], float] | None = None,
    ) -> None:
        """Show what a service is like, from before it serves until `close`.

        If it has them: when its certificate ends, and when the keys of tokens were loaded last, by `time.time()`.
        """
        if self._metrics and self._server:
            self._metrics.show_service(database, health)
            self._metrics.show_access(certificate_ends, keys_loaded)
            self._server.start()
            _log.info("metrics on port %d (%s)", self._server.port, self._server.address)

    def close(self) -> None:
        """End what has been started."""
        if self._server:
            self._server.stop()

    def begin(self, call: Call, credentials: Credentials) -> None:
        """Observe a call that begins."""
        try:
            if self._metrics:
                self._metrics.begin(call)
        except Exception as exception:
            report(exception)

    def end(self, call: Call, seconds: float) -> None:
        """Observe a call that has ended."""
        try:
            self._log(call, seconds)
            if self._metrics:
                self._metrics.end(call, seconds)
        except Exception as exception:
            report(exception)

    def unit(self, kind: str) -> AbstractContextManager[None]:
        """Observe a unit of work of the database."""
        return _Unit(kind, self._metrics)

    def waited(self) -> None:
        """Observe that one has to wait."""
        if self._metrics:
            self._metrics.waited()

    def retried(self) -> None:
        """Observe that one is tried again."""
        if self._metrics:
            self._metrics.retried()


class _Unit(AbstractContextManager[None]):
    __slots__ = ("_kind", "_metrics", "_start")

    def __init__(self, kind: str, metrics: Metrics | None) -> None:
        self._kind = kind
        self._metrics = metrics

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        if self._metrics:
            self._metrics.end_unit(self._kind, time.perf_counter() - self._start)


def open_telemetry(settings: Settings, log: LogWriter) -> Telemetry:
    """Open what the settings ask for; what they do not ask for is not even loaded. Raises `StartupError`."""
    calls = CallLog(log, settings.log_level)
    if not settings.metrics_address:
        return Telemetry(calls)
    from course_service.telemetry.metrics import LINES_DROPPED, Metrics
    from course_service.telemetry.scrapes import MetricsServer

    metrics = Metrics()
    metrics.show(LINES_DROPPED, lambda: log.dropped)
    return Telemetry(calls, metrics, MetricsServer(settings.metrics_address, metrics.registry))
