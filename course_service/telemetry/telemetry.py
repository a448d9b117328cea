"""Everything that an operator sees: the log, and metrics and traces where the settings ask for them."""

from __future__ import annotations

import logging
import time
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from course_service.guard.internal import report
from course_service.startup import StartupError
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
    from course_service.telemetry.traces import Traces

_log = logging.getLogger("course_service")


class Telemetry:
    """What observes each call once, for all that want to know of it, and the database's work (as its `Watch`).

    Nothing of it may fail a call: what it raises is reported and goes no further.
    """

    def __init__(self, log: CallLog) -> None:
        self._log = log
        self._metrics: Metrics | None = None
        self._server: MetricsServer | None = None
        self._traces: Traces | None = None

    def open_metrics(self, address: str, dropped: Callable[[], float]) -> None:
        """Have metrics, and listen for who reads them; the log has dropped so many lines. Raises `PortTaken`."""
        from course_service.telemetry.metrics import LINES_DROPPED, Metrics
        from course_service.telemetry.scrapes import MetricsServer

        metrics = Metrics()
        metrics.show(LINES_DROPPED, dropped)
        self._server = MetricsServer(address, metrics.registry)
        self._metrics = metrics

    def open_traces(self, endpoint: str, ratio: float) -> None:
        """Have traces, and send them to a collector. Raises `StartupError`."""
        try:
            from course_service.telemetry.traces import Traces
        except ModuleNotFoundError as error:
            raise StartupError(
                f"COURSE_OTLP_ENDPOINT is set, but {error.name} is missing; install course-service[otel]"
            ) from None
        self._traces = Traces(endpoint, ratio)

    @property
    def watch(self) -> Telemetry | None:
        """What has to watch the database: nothing, if there is only a log."""
        return self if self._metrics or self._traces else None

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
        if self._traces:
            self._traces.close()

    def begin(self, call: Call, credentials: Credentials) -> None:
        """Observe a call that begins."""
        try:
            if self._metrics:
                self._metrics.begin(call)
            if self._traces:
                self._traces.begin(call, credentials)
        except Exception as exception:
            report(exception)

    def end(self, call: Call, seconds: float) -> None:
        """Observe a call that has ended."""
        try:
            self._log(call, seconds)
            if self._metrics:
                self._metrics.end(call, seconds)
            if self._traces:
                self._traces.end(call)
        except Exception as exception:
            report(exception)

    def unit(self, kind: str) -> AbstractContextManager[None]:
        """Observe a unit of work of the database."""
        return _Unit(kind, self._metrics, self._traces)

    def waited(self) -> None:
        """Observe that one has to wait."""
        try:
            if self._metrics:
                self._metrics.waited()
        except Exception as exception:
            report(exception)

    def retried(self) -> None:
        """Observe that one is tried again."""
        try:
            if self._metrics:
                self._metrics.retried()
        except Exception as exception:
            report(exception)


class _Unit(AbstractContextManager[None]):
    __slots__ = ("_kind", "_metrics", "_span", "_start", "_traces")

    def __init__(self, kind: str, metrics: Metrics | None, traces: Traces | None) -> None:
        self._kind = kind
        self._metrics = metrics
        self._traces = traces

    def __enter__(self) -> None:
        self._start = time.perf_counter()
        self._span = None
        try:
            if self._traces:
                self._span = self._traces.begin_unit(self._kind)
        except Exception as exception:
            report(exception)

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        try:
            if self._traces:
                self._traces.end_unit(self._span, error)
            if self._metrics:
                self._metrics.end_unit(self._kind, time.perf_counter() - self._start)
        except Exception as exception:
            report(exception)


def open_telemetry(settings: Settings, log: LogWriter) -> Telemetry:
    """Open what the settings ask for; what they do not ask for is not even loaded. Raises `StartupError`."""
    telemetry = Telemetry(CallLog(log, settings.log_level))
    try:
        if settings.metrics_address:
            telemetry.open_metrics(settings.metrics_address, lambda: log.dropped)
        if settings.otlp_endpoint:
            telemetry.open_traces(settings.otlp_endpoint, settings.trace_sample_ratio)
    except StartupError:
        telemetry.close()
        raise
    return telemetry
