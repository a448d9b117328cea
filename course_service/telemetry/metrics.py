"""The metrics: what is counted and measured, under which names. Their meaning is in docs/operations.md too."""

import math
import platform
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from course_service.call import Call
from course_service.errors import Overloaded
from course_service.health import Health
from course_service.store.database import Database

Read = Callable[[], float]
"""Reads a number that somebody else keeps; NaN if there is none at the moment."""

READY = "course_ready"
CONNECTIONS_IN_USE = "course_database_connections_in_use"
MAX_CONNECTIONS = "course_database_connections_max"
CERTIFICATE_EXPIRY = "course_certificate_expiry_timestamp_seconds"
TOKEN_KEYS_LOADED = "course_token_keys_loaded_timestamp_seconds"  # noqa: S105  # it is no secret
LINES_DROPPED = "course_log_lines_dropped_total"

_SHOWN: dict[str, tuple[type[GaugeMetricFamily | CounterMetricFamily], str]] = {
    READY: (GaugeMetricFamily, "Whether the process is ready: 1, or 0."),
    CONNECTIONS_IN_USE: (GaugeMetricFamily, "Connections to the database that units of work have now."),
    MAX_CONNECTIONS: (GaugeMetricFamily, "Connections to the database that they may have."),
    CERTIFICATE_EXPIRY: (GaugeMetricFamily, "When the certificate that is served ends, in seconds since 1970."),
    TOKEN_KEYS_LOADED: (GaugeMetricFamily, "When the keys of tokens were last loaded, in seconds since 1970."),
    LINES_DROPPED: (CounterMetricFamily, "Lines of the log that were dropped, because nobody read them."),
}

_CALL_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_DATABASE_BUCKETS = (0.00025, 0.0005, *_CALL_BUCKETS)
_FACES = ("grpc", "http")
_KINDS = ("read", "write")


class Metrics:
    """The metrics of one service, in a registry of their own.

    The labels are bounded: two faces, the methods that there are (whatever else is called is `unknown`), status codes.
    """

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # or each series would have one more, which says when it began
        self.registry = CollectorRegistry()
        self._calls = Histogram(
            "course_call_duration_seconds",
            "How long calls took that have ended, by how they ended.",
            ("face", "method", "code"),
            buckets=_CALL_BUCKETS,
            registry=self.registry,
        )
        self._calls_of: dict[tuple[str, str, str], Histogram] = {}
        """The histogram of each face, method and code so far; to have the library find it costs more than the rest."""
        shed = Counter(
            "course_calls_shed",
            "Calls that were refused because there were too many.",
            ("face",),
            registry=self.registry,
        )
        self._shed = {face: shed.labels(face) for face in _FACES}
        units = Histogram(
            "course_database_seconds",
            "How long units of work of the database took, with their waiting and their tries.",
            ("kind",),
            buckets=_DATABASE_BUCKETS,
            registry=self.registry,
        )
        self._units = {kind: units.labels(kind) for kind in _KINDS}
        self._waits = Counter(
            "course_database_waits",
            "Units of work that had to wait for a connection, or for their turn to write to SQLite.",
            registry=self.registry,
        )
        self._retries = Counter(
            "course_database_retries", "Times that a unit of work was tried again.", registry=self.registry
        )
        self._under_way: dict[str, set[int]] = {face: set() for face in _FACES}
        """The calls under way. A set takes and loses a member at once, whoever else does, and needs no lock."""
        self._shown: dict[str, Read] = {}
        self.registry.register(_States(self._under_way, self._shown))
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)

    def begin(self, call: Call) -> None:
        """Count a call that begins."""
        self._under_way[call.face].add(id(call))

    def end(self, call: Call, seconds: float) -> None:
        """Count a call that has ended."""
        self._under_way[call.face].discard(id(call))
        key = (call.face, call.method, call.code)
        calls = self._calls_of.get(key)
        if calls is None:
            calls = self._calls_of[key] = self._calls.labels(*key)
        calls.observe(seconds)
        if call.reason == Overloaded.reason:
            self._shed[call.face].inc()

    def end_unit(self, kind: str, seconds: float) -> None:
        """Count a unit of work of the database that has ended."""
        self._units[kind].observe(seconds)

    def waited(self) -> None:
        """Count a unit of work that has to wait."""
        self._waits.inc()

    def retried(self) -> None:
        """Count a unit of work that is tried again."""
        self._retries.inc()

    def show_service(self, database: Database, health: Health) -> None:
        """Show whether the service is ready, and how many connections it has to its database."""
        self.show(READY, lambda: health.is_ready)
        self.show(CONNECTIONS_IN_USE, lambda: database.connections_in_use)
        self.show(MAX_CONNECTIONS, lambda: database.max_connections)

    def show_access(self, certificate_ends: Read | None, keys_loaded: Read | None) -> None:
        """Show how old certificate and keys are, if there are any."""
        if certificate_ends:
            self.show(CERTIFICATE_EXPIRY, certificate_ends)
        if keys_loaded:
            self.show(TOKEN_KEYS_LOADED, keys_loaded)

    def show(self, name: str, read: Read) -> None:
        """Show a number that somebody else keeps, under one of the names above; until then there is none."""
        if name not in _SHOWN:
            raise ValueError(f"{name} is no metric")
        self._shown[name] = read


class _States(Collector):
    """What is read at the moment when somebody asks."""

    def __init__(self, under_way: dict[str, set[int]], shown: dict[str, Read]) -> None:
        self._under_way = under_way
        self._shown = shown

    def collect(self) -> Iterator[Metric]:
        yield InfoMetricFamily("course_build", "What runs.", value=_build())
        calls = GaugeMetricFamily("course_calls_in_flight", "Calls that have begun and not ended.", labels=("face",))
        for face, under_way in self._under_way.items():
            calls.add_metric((face,), len(under_way))
        yield calls
        for name, read in list(self._shown.items()):
            value = read()
            if not math.isnan(value):
                family, meaning = _SHOWN[name]
                yield family(name, meaning, value=value)


def _build() -> dict[str, str]:
    try:
        release = version("course-service")
    except PackageNotFoundError:  # the image has the files and not the package
        release = "unknown"
    return {"version": release, "python": platform.python_version()}
