"""Callers who behave, and what they see while others misbehave."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import grpc
import httpx2
from course.v1 import course_pb2, course_pb2_grpc
from grpc_health.v1 import health_pb2

from tests.faults.support.service import Service

# A caller has a connection of its own, and no library tries again for it.
CHANNEL_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_reconnect_backoff_ms", 500),
)
PATIENCE_SECONDS = 9.0
"""How long a caller waits for a response: longer than it should ever take, so that it is seen how long it does take."""


@dataclass(frozen=True, repr=False)
class Seen:
    """What a caller saw in some time; latencies in milliseconds, in ascending order."""

    latencies: tuple[float, ...]
    failures: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<{len(self.latencies)} calls, {self.usual:.1f} ms, at most {self.slowest:.0f} ms, {self.failures[:3]}>"

    @property
    def slowest(self) -> float:
        """The longest that a call took, or has taken so far."""
        return self.latencies[-1] if self.latencies else math.inf

    @property
    def usual(self) -> float:
        """The median."""
        return self.latencies[len(self.latencies) // 2] if self.latencies else math.inf


class Caller:
    """Makes one call after the other from a thread of its own."""

    def __init__(self, make: Callable[[], object], *, pause: float = 0.005) -> None:
        self._make = make
        self._pause = pause
        self._lock = threading.Lock()
        self._latencies: list[float] = []
        self._failures: list[str] = []
        self._since: float | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def forget(self) -> None:
        """Begin anew: what was seen so far does not count."""
        self.seen()

    def seen(self) -> Seen:
        """Return what was seen since this was last asked. A call under way counts by what it has taken so far."""
        with self._lock:
            latencies, self._latencies = self._latencies, []
            failures, self._failures = self._failures, []
            if self._since is not None and (so_far := _milliseconds_since(self._since)) > 100:
                latencies.append(so_far)
        return Seen(tuple(sorted(latencies)), tuple(failures))

    def stop(self) -> None:
        """Make no more calls."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._pause):
            with self._lock:
                self._since = start = time.monotonic()
            failure = ""
            try:
                self._make()
            except grpc.RpcError as error:
                failure = f"{error.code().name}: {error.details()}" if isinstance(error, grpc.Call) else repr(error)
            except (httpx2.HTTPError, AssertionError) as error:
                failure = repr(error)
            with self._lock:
                self._since = None
                self._latencies.append(_milliseconds_since(start))
                if failure:
                    self._failures.append(failure)


def _milliseconds_since(moment: float) -> float:
    return (time.monotonic() - moment) * 1000


def create_by_grpc(address: str, title: str = "Biology", description: str = "") -> str:
    """Create a course; returns its name."""
    with grpc.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        request = course_pb2.CreateCourseRequest(course=course_pb2.Course(title=title, description=description))
        name: str = (
            course_pb2_grpc.CourseServiceStub(channel).CreateCourse(request, timeout=10, wait_for_ready=True).name
        )
        return name


@contextlib.contextmanager
def grpc_caller(address: str, name: str) -> Iterator[Caller]:
    """Get a course by gRPC again and again."""
    with grpc.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        get = course_pb2_grpc.CourseServiceStub(channel).GetCourse
        request = course_pb2.GetCourseRequest(name=name)
        with _calling(lambda: get(request, timeout=PATIENCE_SECONDS)) as caller:
            yield caller


@contextlib.contextmanager
def http_caller(address: str, name: str) -> Iterator[Caller]:
    """Get a course by HTTP again and again."""
    with httpx2.Client(base_url=address, timeout=PATIENCE_SECONDS) as client:

        def get() -> None:
            response = client.get(f"/{name}")
            assert response.status_code == 200, response.text

        with _calling(get) as caller:
            yield caller


@contextlib.contextmanager
def health_caller(address: str, service: str = "course.v1.CourseService") -> Iterator[Caller]:
    """Check the health again and again; every status will do."""
    with grpc.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        check: grpc.UnaryUnaryMultiCallable[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse]
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        request = health_pb2.HealthCheckRequest(service=service)
        with _calling(lambda: check(request, timeout=3), pause=0.05) as caller:
            yield caller


class Watcher:
    """Watches the health of a server, as a client with health checking does."""

    def __init__(self, responses: Iterable[health_pb2.HealthCheckResponse]) -> None:
        self._responses = responses
        self._changed = threading.Condition()
        self._status: int | None = None
        self._came = 0.0
        threading.Thread(target=self._run, daemon=True).start()

    def wait_for(self, status: int, since: float, seconds: float) -> float:
        """Wait until a status has come, some seconds at most.

        Returns how long after a moment, by `time.monotonic()`, it came; infinity if it did not.
        """
        with self._changed:
            came = self._changed.wait_for(lambda: self._status == status, seconds)
            return max(0.0, self._came - since) if came else math.inf

    def _run(self) -> None:
        with contextlib.suppress(grpc.RpcError):
            for response in self._responses:
                with self._changed:
                    self._status, self._came = response.status, time.monotonic()
                    self._changed.notify_all()


@contextlib.contextmanager
def health_watcher(address: str, service: str = "course.v1.CourseService") -> Iterator[Watcher]:
    """Watch the health."""
    with grpc.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        watch: grpc.UnaryStreamMultiCallable[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse]
        watch = channel.unary_stream(
            "/grpc.health.v1.Health/Watch",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        responses = watch(health_pb2.HealthCheckRequest(service=service))
        try:
            yield Watcher(responses)
        finally:
            responses.cancel()


@contextlib.contextmanager
def _calling(make: Callable[[], object], *, pause: float = 0.005) -> Iterator[Caller]:
    make()  # so that the connection is there
    caller = Caller(make, pause=pause)
    try:
        yield caller
    finally:
        caller.stop()


@contextlib.contextmanager
def well_behaved(service: Service) -> Iterator[dict[str, Caller]]:
    """A caller of each face, on a connection of its own."""
    name = create_by_grpc(service.grpc_address)
    with grpc_caller(service.grpc_address, name) as by_grpc, http_caller(service.http_address, name) as by_http:
        yield {"gRPC": by_grpc, "HTTP": by_http}
