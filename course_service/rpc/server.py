"""The gRPC server: its options, services and port."""

import grpc
from course.v1 import course_pb2_grpc

from course_service.guard.guard import Guard
from course_service.ports import PortTaken, open_port
from course_service.rpc.health import HEALTH_SERVICE, SERVICES, Health
from course_service.rpc.interceptor import GuardInterceptor
from course_service.rpc.reflection import add_reflection
from course_service.rpc.servicer import CourseServicer
from course_service.rpc.threads import CallThreads
from course_service.store.database import Database
from course_service.tokens import PageTokens

MAX_REQUEST_BYTES = 1 << 20
MAX_RESPONSE_BYTES = 4 << 20

_SETTING = "COURSE_GRPC_ADDRESS"

_OPTIONS = [
    ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
    ("grpc.max_send_message_length", MAX_RESPONSE_BYTES),
    ("grpc.max_concurrent_streams", 100),
    # Connections end now and then, so that callers spread over new replicas.
    ("grpc.max_connection_age_ms", 300_000),
    ("grpc.max_connection_age_grace_ms", 30_000),
    ("grpc.max_connection_idle_ms", 600_000),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 20_000),
    ("grpc.server_handshake_timeout_ms", 5_000),
    ("grpc.max_allowed_incoming_connections", 2_000),
    # Otherwise a second server on the same port silently takes half of the calls.
    ("grpc.so_reuseport", 0),
]


def make_server(
    address: str, database: Database, tokens: PageTokens, health: Health, guard: Guard, threads: CallThreads
) -> tuple[grpc.Server, int]:
    """Make a server that listens on `address` and is ready to start; returns it with its port. Raises `PortTaken`."""
    server = grpc.server(
        threads,
        interceptors=[GuardInterceptor(guard)],
        options=_OPTIONS,
    )
    course_pb2_grpc.add_CourseServiceServicer_to_server(CourseServicer(database, tokens), server)
    health.add_to(server)
    add_reflection(server, [*filter(None, SERVICES), HEALTH_SERVICE])
    open_port(address, _SETTING).close()  # grpcio would report a taken port in a line of its own first
    try:
        port = server.add_insecure_port(address)
    except RuntimeError:
        raise PortTaken(address, _SETTING) from None
    return server, port
