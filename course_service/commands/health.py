"""Exit with 0 if the service is SERVING: what a container's health check runs, so it imports little more than gRPC."""

import grpc

from course_service.environment import grpc_address

_TIMEOUT_SECONDS = 3.0
_SERVING = b"\x08\x01"
"""A HealthCheckResponse of status SERVING, as it travels."""


def main() -> int:
    """Check the service at COURSE_GRPC_ADDRESS; returns the exit code."""
    return 0 if is_serving(grpc_address()) else 1


def is_serving(address: str) -> bool:
    """Ask the service at an address for the health of the whole process."""
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        check: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/grpc.health.v1.Health/Check")
        try:
            return check(b"", timeout=_TIMEOUT_SECONDS) == _SERVING
        except grpc.RpcError:
            return False
