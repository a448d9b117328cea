"""Reading what a failed call says."""

from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import grpc
import httpx2
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

DOMAIN = "course.v1.CourseService"


@dataclass(frozen=True)
class Failure:
    """A failed call, the same for gRPC and HTTP."""

    status: str
    message: str
    reason: str
    metadata: Mapping[str, str]
    violations: Mapping[str, str] = field(default_factory=dict)
    """Reason by field."""
    resource: str = ""
    details_bytes: int = 0
    wire_bytes: int = 0
    """What message and status take as they travel, for a client that gets binary headers as base64."""
    details: frozenset[str] = frozenset()
    """Names of the details' types."""


def grpc_failure(call: Callable[..., Any], *arguments: Any, **options: Any) -> Failure:
    """Make a call that must fail, and read its status."""
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments, **options)
    assert isinstance(caught.value, grpc.Call)
    status = rpc_status.from_call(caught.value)
    assert status is not None, f"no google.rpc.Status in {caught.value}"
    info, resource, violations = [], "", {}
    for detail in status.details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info.append(error_details_pb2.ErrorInfo.FromString(detail.value))
        elif detail.Is(error_details_pb2.ResourceInfo.DESCRIPTOR):
            resource = error_details_pb2.ResourceInfo.FromString(detail.value).resource_name
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            for violation in error_details_pb2.BadRequest.FromString(detail.value).field_violations:
                assert violation.description.endswith((".", "…")), violation
                violations[violation.field] = violation.reason
    assert [i.domain for i in info] == [DOMAIN]
    return Failure(
        status=caught.value.code().name,
        message=status.message,
        reason=info[0].reason,
        metadata=dict(info[0].metadata),
        violations=violations,
        resource=resource,
        details_bytes=sum(detail.ByteSize() for detail in status.details),
        wire_bytes=len(quote(status.message, safe=" ")) + len(b64encode(status.SerializeToString())),
        details=frozenset(detail.type_url.rpartition(".")[2] for detail in status.details),
    )


def http_failure(response: httpx2.Response, code: int) -> Failure:
    """Read the body of an answer that must be an error with an HTTP status code."""
    assert response.status_code == code, response.text
    body = response.json()
    assert list(body) == ["error"]
    error = body["error"]
    assert list(error) == ["code", "status", "message", "details"]
    assert error["code"] == code
    details = {detail["@type"].rpartition(".")[2]: detail for detail in error["details"]}
    assert details["ErrorInfo"]["domain"] == DOMAIN
    return Failure(
        status=error["status"],
        message=error["message"],
        reason=details["ErrorInfo"]["reason"],
        metadata=details["ErrorInfo"].get("metadata", {}),
        violations={
            violation["field"]: violation["reason"]
            for violation in details.get("BadRequest", {}).get("field_violations", [])
        },
        resource=details.get("ResourceInfo", {}).get("resource_name", ""),
        details=frozenset(details),
    )
