"""Envoy before replicas: its configuration is valid, and it sends a call again only where that is safe."""

from __future__ import annotations

import collections
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from course.v1 import course_pb2, course_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import HealthServicer

from tests.support import envoy

pytestmark = pytest.mark.skipif(not envoy.PROGRAM, reason=envoy.MISSING)

SERVICE = course_pb2.DESCRIPTOR.services_by_name["CourseService"]
WRITES = {method.name for method in SERVICE.methods if "request_id" in method.input_type.fields_by_name}
REQUEST_ID = "6f1f2a60-3e0b-4c57-9d5a-2f0f5d3b8a11"
TRIES = 5


class Replica(grpc.GenericRpcHandler):
    """A replica whose every call fails after it may have been worked on."""

    def __init__(self) -> None:
        self.calls: collections.Counter[str] = collections.Counter()

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        if not details.method.startswith(f"/{SERVICE.full_name}/"):
            return None
        return grpc.unary_unary_rpc_method_handler(lambda _, context: self._fail(details.method, context))

    def _fail(self, method: str, context: grpc.ServicerContext) -> bytes:
        self.calls[method.rpartition("/")[2]] += 1
        context.abort(grpc.StatusCode.UNAVAILABLE, "the database is away")
        raise AssertionError


@pytest.fixture(scope="module")
def behind() -> Iterator[tuple[Replica, grpc.Channel]]:
    """A replica, and a connection to the Envoy before it."""
    replica, health = Replica(), HealthServicer()
    health.set(SERVICE.full_name, health_pb2.HealthCheckResponse.SERVING)
    server = grpc.server(ThreadPoolExecutor(4), [replica])
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with envoy.running([f"127.0.0.1:{port}"], tries_soon) as running, grpc.insecure_channel(running.address) as channel:
        yield replica, channel
    server.stop(None).wait()


def tries_soon(of: envoy.Configuration) -> None:
    for route in envoy.routes(of):
        if policy := route["route"].get("retry_policy"):
            policy["retry_back_off"] = {"base_interval": "0.001s", "max_interval": "0.001s"}


def tries(
    behind: tuple[Replica, grpc.Channel], method: str, metadata: Sequence[tuple[str, str]] = (), **fields: Any
) -> int:
    """Make a call that fails, and return how often Envoy has made it."""
    replica, channel = behind
    replica.calls.clear()
    request = getattr(course_pb2, f"{method}Request")(**fields)
    with pytest.raises(grpc.RpcError) as caught:
        getattr(course_pb2_grpc.CourseServiceStub(channel), method)(request, timeout=10, metadata=metadata)
    assert isinstance(caught.value, grpc.Call)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE, caught.value
    assert caught.value.details() == "the database is away"
    return replica.calls[method]


def test_the_configuration_is_valid_and_has_nothing_deprecated(tmp_path: Path) -> None:
    said = envoy.validate(tmp_path, envoy.configuration(tmp_path, ["127.0.0.1:50051"]))
    assert "eprecated" not in said


@pytest.mark.parametrize("method", sorted({method.name for method in SERVICE.methods} - WRITES))
def test_a_read_is_sent_again(behind: tuple[Replica, grpc.Channel], method: str) -> None:
    assert tries(behind, method) == TRIES


@pytest.mark.parametrize("method", sorted(WRITES))
def test_a_write_is_sent_again_only_if_it_has_a_request_id(behind: tuple[Replica, grpc.Channel], method: str) -> None:
    assert tries(behind, method, request_id=REQUEST_ID) == TRIES
    assert tries(behind, method) == 1


def test_a_caller_cannot_have_a_write_without_a_request_id_sent_again(behind: tuple[Replica, grpc.Channel]) -> None:
    asked = [("x-envoy-retry-grpc-on", "unavailable"), ("x-envoy-retry-on", "reset"), ("x-envoy-max-retries", "3")]
    assert tries(behind, "CreateCourse", asked) == 1
