"""The gRPC server: its options, services and port."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
from course.v1 import course_pb2_grpc
from grpc_health.v1 import health
from grpc_reflection.v1alpha import reflection, reflection_pb2

from course_service.paging import PageTokens
from course_service.ports import PortTaken, open_port
from course_service.rpc.health import SERVICES, Health
from course_service.rpc.interceptors import ErrorInterceptor
from course_service.rpc.servicer import CourseServicer
from course_service.store.database import Database

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
    address: str, database: Database, tokens: PageTokens, own_health: Health, *, threads: int
) -> tuple[grpc.Server, int]:
    """Make a server that listens on `address` and is ready to start; returns it with its port. Raises `PortTaken`."""
    server = grpc.server(
        ThreadPoolExecutor(threads, thread_name_prefix="grpc"),
        interceptors=[ErrorInterceptor()],
        options=_OPTIONS,
    )
    course_pb2_grpc.add_CourseServiceServicer_to_server(CourseServicer(database, tokens), server)
    own_health.add_to(server)
    _add_reflection(server)
    open_port(address, _SETTING).close()  # grpcio would tell of a taken port in a line of its own first
    try:
        port = server.add_insecure_port(address)
    except RuntimeError:
        raise PortTaken(address, _SETTING) from None
    return server, port


def _add_reflection(server: grpc.Server) -> None:
    """Serve reflection under both of its names: the messages are the same, and grpcio has only the older servicer."""
    servicer = reflection.ReflectionServicer([*filter(None, SERVICES), health.SERVICE_NAME, reflection.SERVICE_NAME])

    def info(
        requests: Iterator[reflection_pb2.ServerReflectionRequest], context: grpc.ServicerContext
    ) -> Iterator[reflection_pb2.ServerReflectionResponse]:
        return servicer.ServerReflectionInfo(requests, context)  # type: ignore[no-any-return]  # untyped there

    # A stream keeps its thread for as long as its caller likes: these must not be the threads of everybody.
    info.experimental_thread_pool = ThreadPoolExecutor(2, thread_name_prefix="reflection")  # type: ignore[attr-defined]  # read by grpcio
    method = grpc.stream_stream_rpc_method_handler(
        info,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    for service in (reflection.SERVICE_NAME, "grpc.reflection.v1.ServerReflection"):
        handler = grpc.method_handlers_generic_handler(service, {"ServerReflectionInfo": method})
        server.add_generic_rpc_handlers((handler,))
