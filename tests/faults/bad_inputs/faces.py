"""The same request by gRPC and by HTTP, and what came of it in the same words."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from urllib.parse import quote

import grpc
import httpx2
from course.v1 import course_pb2
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from grpc_status import rpc_status

from tests.conftest import Service
from tests.support.failures import grpc_failure, http_failure

Fields: TypeAlias = Mapping[str, Any]
SECONDS = 15


@dataclass(frozen=True)
class Outcome:
    """How a request ended, in the contract's words."""

    code: str = "OK"
    http: int = 200
    """HTTP's status code; what that face would have, if the request came by gRPC."""
    reason: str = ""
    violations: Mapping[str, str] = field(default_factory=dict)
    """Reason by field, as gRPC names the field."""
    message: str = field(default="", compare=False)
    response: Fields = field(default_factory=dict, compare=False)


def refused(code: str, http: int, reason: str, violations: Mapping[str, str] | None = None) -> Outcome:
    return Outcome(code, http, reason, violations or {})


def invalid(violations: Mapping[str, str]) -> Outcome:
    return refused("INVALID_ARGUMENT", 422, "REQUEST_INVALID", violations)


def wrong(field: str, reason: str) -> Outcome:
    """A field whose faults are reasons of their own."""
    return refused("INVALID_ARGUMENT", 422, reason, {field: reason})


OK = Outcome()
MALFORMED = refused("INVALID_ARGUMENT", 422, "REQUEST_MALFORMED")
NOT_FOUND = refused("NOT_FOUND", 404, "COURSE_NOT_FOUND")
NO_ROUTE = refused("NOT_FOUND", 404, "ROUTE_NOT_FOUND")
MISMATCH = refused("ABORTED", 412, "ETAG_MISMATCH")
TOO_LARGE = refused("RESOURCE_EXHAUSTED", 413, "REQUEST_TOO_LARGE")


def by_grpc(service: Service, method: str, fields: Fields) -> Outcome:
    """Call a method with the fields of its request, messages as dictionaries."""
    request = getattr(course_pb2, f"{method}Request")(**fields)
    return grpc_outcome(lambda: getattr(service.courses, method)(request, timeout=SECONDS))


def grpc_outcome(call: Callable[[], Message]) -> Outcome:
    """Make a call by gRPC and read its response or status."""
    try:
        response = call()
    except grpc.RpcError as error:
        return _grpc_refusal(error)
    return Outcome(response=MessageToDict(response, preserving_proto_field_name=True))


def _grpc_refusal(error: grpc.RpcError) -> Outcome:
    assert isinstance(error, grpc.Call)
    if rpc_status.from_call(error) is None:  # grpc's own, before the service
        code = error.code().name
        return Outcome(code, http_code(code), "", {}, error.details() or "")
    found = grpc_failure(_raise, error)
    return Outcome(found.status, http_code(found.status, found.reason), found.reason, found.violations, found.message)


_HTTP = {
    "OK": 200, "INVALID_ARGUMENT": 422, "NOT_FOUND": 404, "ABORTED": 409, "ALREADY_EXISTS": 409,
    "FAILED_PRECONDITION": 400, "RESOURCE_EXHAUSTED": 413, "INTERNAL": 500, "UNIMPLEMENTED": 501, "UNAVAILABLE": 503,
}  # fmt: skip
_HTTP_BY_REASON = {"ETAG_MISMATCH": 412}


def http_code(code: str, reason: str = "") -> int:
    """The HTTP status code of an error; 0 where HTTP has none like it."""
    return _HTTP_BY_REASON.get(reason) or _HTTP.get(code, 0)


def _raise(error: grpc.RpcError) -> None:
    raise error


def by_http(service: Service, method: str, fields: Fields) -> Outcome:
    """Send the request of a gRPC method by HTTP."""
    return http_outcome(_request(service.http, method, dict(fields)), method)


def http_outcome(response: httpx2.Response, method: str = "") -> Outcome:
    """Read a response by HTTP, and name its fields as gRPC does."""
    if response.status_code < 300:
        return Outcome(response=response.json() if response.content else {})
    if not response.headers.get("content-type", "").startswith("application/json"):
        return Outcome("", response.status_code, "", {}, response.text)
    found = http_failure(response, response.status_code)
    violations = {_grpc_name(method, name): reason for name, reason in found.violations.items()}
    return Outcome(found.status, response.status_code, found.reason, violations, found.message)


def _request(http: httpx2.Client, method: str, fields: dict[str, Any]) -> httpx2.Response:
    key = {"Idempotency-Key": fields.pop("request_id")} if "request_id" in fields and method in _BY_HEADER else {}
    headers = {"Content-Type": "application/json", **key}
    match method:
        case "CreateCourse":
            return http.post("/courses", content=_json(fields.pop("course", {})), params=fields, headers=headers)
        case "BatchCreateCourses":
            return http.post("/courses:batchCreate", content=_json(fields), headers=headers)
        case "ListCourses":
            return http.get("/courses", params=fields)
        case "BatchGetCourses":
            return http.get("/courses:batchGet", params=fields)
        case "GetCourse":
            return _send(http, "GET", fields["name"])
        case "DeleteCourse":
            etag = {"If-Match": fields["etag"]} if "etag" in fields else {}
            return _send(http, "DELETE", fields["name"], headers={**key, **etag})
        case "UpdateCourse":
            course = fields.pop("course")
            body = _json({name: value for name, value in course.items() if name != "name"})
            query = "?allow_missing=true" if fields.get("allow_missing") else ""
            return _send(http, "PATCH", course["name"], query, content=body, headers=headers)
        case _:
            verb = ":" + method.removesuffix("Course").lower()
            return _send(http, "POST", fields.pop("name"), verb, content=_json(fields), headers=headers)


_BY_HEADER = {"CreateCourse", "UpdateCourse", "DeleteCourse"}
"""The methods that have a request_id as a header only; the others take it in their body too."""


def _send(http: httpx2.Client, method: str, name: str, rest: str = "", **options: Any) -> httpx2.Response:
    """Send a request to the path of a name, which no library tidies up."""
    target = f"/{quote(name, safe='/')}{rest}".encode()
    return http.request(method, "/", extensions={"target": target}, **options)


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def _grpc_name(method: str, name: str) -> str:
    """HTTP's paths begin in the course, the name is in the path, and the request_id is a header."""
    if name == "course_id" and method != "CreateCourse":
        return "course.name" if method == "UpdateCourse" else "name"
    if name == "Idempotency-Key":
        return "request_id"
    if name == "If-Match":
        return "etag"
    return f"course.{name}" if _OF_A_COURSE.match(name) and method in {"CreateCourse", "UpdateCourse"} else name


_OF_A_COURSE = re.compile("|".join(course_pb2.Course.DESCRIPTOR.fields_by_name))

Face: TypeAlias = Callable[[Service, str, Fields], Outcome]
FACES: Mapping[str, Face] = {"grpc": by_grpc, "http": by_http}
