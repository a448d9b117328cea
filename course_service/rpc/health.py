"""grpc.health.v1: the health of the process, by the names that callers and probes ask for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeAlias

import grpc
from course.v1 import course_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from course_service.errors import ServiceUnknown
from course_service.guard.internal import report
from course_service.health import Health
from course_service.rpc.threads import CallThreads
from course_service.rpc.watchdog import Watchdog

HEALTH_SERVICE: str = health.SERVICE_NAME
SERVICES = ("", course_pb2.DESCRIPTOR.services_by_name["CourseService"].full_name)
"""What is SERVING while the process can do its work."""
LIVENESS = "liveness"
"""What is SERVING as long as the process responds, whatever the database does."""

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN

_THREADS = 2
_MAX_SENDERS = 256
"""How many watchers are sent to at once. Each that does not read keeps a thread of these."""
_SEND_SECONDS = 5.0
"""How long a watcher may take to read what it is sent; then its call is cancelled."""

_Status: TypeAlias = int
_Send: TypeAlias = Callable[["health_pb2.HealthCheckResponse | None"], None]


@dataclass(eq=False, slots=True)
class _Watcher:
    """One call of Watch."""

    service: str
    context: grpc.ServicerContext
    send: _Send
    sent: _Status | None = None
    is_busy: bool = False
    """Whether a thread is sending to it; that thread looks again when it has sent."""


class HealthServicer(health_pb2_grpc.HealthServicer):
    """Check, List and Watch, in threads of their own: neither overload nor callers that do not read hold them up."""

    def __init__(self, health: Health) -> None:
        self._health = health
        self._threads = CallThreads(_THREADS, name="grpc-health")
        self._senders = ThreadPoolExecutor(_MAX_SENDERS, thread_name_prefix="grpc-watch")
        self._watchdog = Watchdog()
        self._watchers: set[_Watcher] = set()
        self._lock = threading.Lock()
        threading.Thread(target=self._keep_watchers_posted, name="grpc-watchers", daemon=True).start()

    def add_to(self, server: grpc.Server) -> None:
        """Serve on a server."""
        kinds = {"Check": "unary_unary", "List": "unary_unary", "Watch": "unary_stream"}
        methods = {}
        for method in health_pb2.DESCRIPTOR.services_by_name["Health"].methods:
            kind = kinds[method.name]
            behavior = _OnThreads(getattr(self, method.name), self._threads)
            make = getattr(grpc, f"{kind}_rpc_method_handler")
            request = getattr(health_pb2, method.input_type.name)
            response = getattr(health_pb2, method.output_type.name)
            methods[method.name] = make(behavior, request.FromString, response.SerializeToString)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(HEALTH_SERVICE, methods),))

    def Check(  # noqa: N802  # the name of the contract
        self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        """Return the health of a service."""
        status = self._status_of(request.service)
        if status == _SERVICE_UNKNOWN:
            raise ServiceUnknown(request.service)
        return health_pb2.HealthCheckResponse(status=status)

    def List(self, _: object, __: grpc.ServicerContext) -> object:  # noqa: N802  # the name of the contract
        """Return the health of all services."""
        statuses = {
            service: health_pb2.HealthCheckResponse(status=self._status_of(service))
            for service in (*SERVICES, LIVENESS)
        }
        return health_pb2.HealthListResponse(statuses=statuses)  # type: ignore[attr-defined]  # newer than its types

    def Watch(  # type: ignore[override]  # noqa: N802  # the name of the contract; grpcio passes `send` to such methods
        self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext, send: _Send
    ) -> None:
        """Send the health of a service, now and whenever it changes."""
        watcher = _Watcher(request.service, context, send)
        with self._lock:
            self._watchers.add(watcher)
        if context.add_callback(lambda: self._forget(watcher)):
            self._post(watcher)
        else:  # the caller has left
            self._forget(watcher)

    def end_watches(self) -> None:
        """End every call of Watch, so that a server that stops need not wait for them."""
        with self._lock:
            watchers = list(self._watchers)
        for watcher in watchers:
            watcher.context.cancel()

    def _status_of(self, service: str) -> _Status:
        if service == LIVENESS:
            return _SERVING
        if service not in SERVICES:
            return _SERVICE_UNKNOWN
        return _SERVING if self._health.is_ready else _NOT_SERVING

    def _forget(self, watcher: _Watcher) -> None:
        with self._lock:
            self._watchers.discard(watcher)

    def _keep_watchers_posted(self) -> None:
        known = self._health.is_ready
        while True:
            with self._health.changed:
                # Not for ever: it also changes with time, and may have changed back before anybody noticed.
                self._health.changed.wait_for(lambda: self._health.is_ready is not known, timeout=1.0)  # noqa: B023  # used before it changes
                known = self._health.is_ready
            try:
                with self._lock:
                    watchers = [each for each in self._watchers if each.sent != self._status_of(each.service)]
                for watcher in watchers:
                    self._post(watcher)
            except Exception as exception:  # or nobody would be told any more
                report(exception)

    def _post(self, watcher: _Watcher) -> None:
        with self._lock:
            if watcher.is_busy:
                return
            watcher.is_busy = True
        self._senders.submit(self._send, watcher)

    def _send(self, watcher: _Watcher) -> None:
        """Send to a watcher what it does not know yet. No lock is held meanwhile: it may not be reading."""
        while True:
            with self._lock:
                status = self._status_of(watcher.service)
                if status == watcher.sent or watcher not in self._watchers:
                    watcher.is_busy = False
                    return
                watcher.sent = status
            try:
                with self._watchdog.stream(watcher.context, _SEND_SECONDS):
                    watcher.send(health_pb2.HealthCheckResponse(status=status))
            except Exception as exception:
                report(exception)
                self._forget(watcher)
                watcher.context.cancel()
                return


class _OnThreads:
    """A method with the threads that it is to be worked on in, where grpcio looks for them."""

    def __init__(self, method: Callable[..., object], threads: CallThreads) -> None:
        self._method = method
        self.experimental_thread_pool = threads

    def __call__(self, *arguments: object) -> object:
        return self._method(*arguments)
