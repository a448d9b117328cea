"""The gRPC server: its options, services and port."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
from course.v1 import course_pb2_grpc

from course_service.guard.guard import Guard
from course_service.ports import PortTaken, open_port
from course_service.rpc.health import HEALTH_SERVICE, SERVICES, HealthServicer
from course_service.rpc.interceptor import GuardInterceptor
from course_service.rpc.reflection import add_reflection
from course_service.rpc.servicer import CourseServicer
from course_service.rpc.threads import CallThreads
from course_service.store.database import Database
from course_service.tokens import PageTokens

if TYPE_CHECKING:
    from course_service.auth.tls import Tls

MAX_REQUEST_BYTES = 1 << 20
MAX_RESPONSE_BYTES = 4 << 20

MAX_METADATA_BYTES = 16 << 10
MAX_STREAMS = 100
"""How many calls a connection may have at once."""

MAX_PROBES = 200
"""How many connections the health server takes at once."""
DEFAULT_MAX_CONNECTIONS = 2_000
DEFAULT_MAX_CONNECTION_AGE_SECONDS = 300.0

_OPTIONS = [
    ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
    ("grpc.max_send_message_length", MAX_RESPONSE_BYTES),
    # Between the two limits grpc refuses by chance; so there is nothing between them.
    ("grpc.max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.max_concurrent_streams", MAX_STREAMS),
    # It would count calls that have just ended too, and refuse callers who keep within the limit. Those who reset calls
    # all the time are bounded by how many calls may wait for a thread.
    ("grpc.http.overload_protection", 0),
    ("grpc.max_connection_age_grace_ms", 30_000),
    ("grpc.max_connection_idle_ms", 600_000),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 20_000),
    ("grpc.server_handshake_timeout_ms", 5_000),
    # Otherwise a second server on the same port silently takes half of the calls.
    ("grpc.so_reuseport", 0),
]


def make_server(
    address: str,
    database: Database,
    tokens: PageTokens,
    health: HealthServicer,
    guard: Guard,
    threads: CallThreads,
    *,
    max_connections: int = DEFAULT_MAX_CONNECTIONS,
    max_connection_age_seconds: float = DEFAULT_MAX_CONNECTION_AGE_SECONDS,
    tls: Tls | None = None,
    reflection: bool = True,
) -> tuple[grpc.Server, int]:
    """Make a server that listens on `address` and is ready to start; returns it with its port. Raises `PortTaken`."""
    server = _server(
        guard,
        threads,
        ("grpc.max_allowed_incoming_connections", max_connections),
        # Connections end now and then, so that callers spread over new replicas.
        ("grpc.max_connection_age_ms", round(max_connection_age_seconds * 1000)),
    )
    course_pb2_grpc.add_CourseServiceServicer_to_server(CourseServicer(database, tokens), server)
    health.add_to(server)
    if reflection:
        add_reflection(server, [*filter(None, SERVICES), HEALTH_SERVICE])
    return server, _listen(server, address, "COURSE_GRPC_ADDRESS", tls)


def make_health_server(address: str, health: HealthServicer, guard: Guard) -> tuple[grpc.Server, int]:
    """Make a server that has the health of the process and nothing else, for probes. Raises `PortTaken`."""
    most = ("grpc.max_allowed_incoming_connections", MAX_PROBES)
    server = _server(guard, CallThreads(1, max_waiting=MAX_PROBES, name="grpc-probes"), most)
    health.add_to(server)
    return server, _listen(server, address, "COURSE_HEALTH_ADDRESS")


def _server(guard: Guard, threads: CallThreads, *options: tuple[str, int]) -> grpc.Server:
    return grpc.server(threads, interceptors=[GuardInterceptor(guard)], options=[*_OPTIONS, *options])


def _listen(server: grpc.Server, address: str, setting: str, tls: Tls | None = None) -> int:
    open_port(address, setting).close()  # grpcio would report a taken port in a line of its own first
    try:
        return server.add_secure_port(address, tls.for_grpc()) if tls else server.add_insecure_port(address)
    except RuntimeError:
        raise PortTaken(address, setting) from None
