"""The two faces of the service as one: a call takes a message and returns a message, by gRPC or by HTTP."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import grpc
import httpx2
from course.v1 import course_pb2, course_pb2_grpc
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from tests.faults.support.callers import CHANNEL_OPTIONS

_RECONNECT_OPTIONS = (("grpc.initial_reconnect_backoff_ms", 50), ("grpc.min_reconnect_backoff_ms", 50))

OK = "OK"
PASSING = {"UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "CANCELLED"}
"""The codes that any call can end in, whatever it asks for, and that another try may not."""
_NOT_DONE = {"OVERLOADED", "DEADLINE_EXCEEDED"}
"""The reasons of such codes with which the contract says that nothing is stored."""


class Failed(Exception):  # named by what happened
    """A call that has failed; without a reason, the service has not said why."""

    def __init__(self, code: str, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    @property
    def is_passing(self) -> bool:
        """Whether it says nothing about the request."""
        return self.code in PASSING

    @property
    def may_be_done(self) -> bool:
        """Whether a write that failed so may have been done, now or a little later."""
        return (self.code in PASSING and self.reason not in _NOT_DONE) or self.code in {"INTERNAL", "UNKNOWN"}

    def __str__(self) -> str:
        return f"{self.code} {self.reason}".strip()


class Face(ABC):
    """Calls the service; raises `Failed`."""

    name: str

    @abstractmethod
    def call(self, method: str, request: Any, seconds: float) -> Any:
        """Call a method and return its response."""

    def call_at_once(self, method: str, request: Any, times: int, seconds: float) -> list[Any]:
        """Send a request several times, at the same time where that is possible; returns responses and `Failed`s."""
        return [_response_or_failure(lambda: self.call(method, request, seconds)) for _ in range(times)]

    @abstractmethod
    def close(self) -> None:
        """Close its connection."""


def _response_or_failure(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Failed as failed:
        return failed


class GrpcFace(Face):
    """By gRPC, over a connection of its own."""

    name = "gRPC"

    def __init__(self, address: str, *, waits_for_ready: bool) -> None:
        self._channel = grpc.insecure_channel(address, options=(*CHANNEL_OPTIONS, *_RECONNECT_OPTIONS))
        self._stub = course_pb2_grpc.CourseServiceStub(self._channel)
        self._waits = waits_for_ready

    def call(self, method: str, request: Any, seconds: float) -> Any:
        try:
            return getattr(self._stub, method)(request, timeout=seconds, wait_for_ready=self._waits)
        except grpc.RpcError as error:
            raise _failed_of(error) from None

    def call_at_once(self, method: str, request: Any, times: int, seconds: float) -> list[Any]:
        futures = [getattr(self._stub, method).future(request, timeout=seconds) for _ in range(times)]
        return [_response_or_failure(lambda future=future: _result(future)) for future in futures]  # type: ignore[misc]  # binds the future

    def close(self) -> None:
        self._channel.close()


def _result(future: Any) -> Any:
    try:
        return future.result()
    except grpc.RpcError as error:
        raise _failed_of(error) from None


def _failed_of(error: grpc.RpcError) -> Failed:
    assert isinstance(error, grpc.Call)
    status = rpc_status.from_call(error)
    for detail in status.details if status else ():
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            return Failed(error.code().name, error_details_pb2.ErrorInfo.FromString(detail.value).reason)
    return Failed(error.code().name)


class HttpFace(Face):
    """By HTTP, over a connection of its own."""

    name = "HTTP"

    def __init__(self, address: str) -> None:
        self._http = httpx2.Client(base_url=address)

    def call(self, method: str, request: Any, seconds: float) -> Any:
        verb, path, query, headers, body = _http_request(method, request)
        try:
            response = self._http.request(
                verb,
                path,
                params=query,
                headers={"Content-Type": "application/json", **headers},
                content=None if body is None else json.dumps(body),
                timeout=seconds,
            )
        except httpx2.TimeoutException:
            raise Failed("DEADLINE_EXCEEDED") from None
        except httpx2.TransportError:
            raise Failed("UNAVAILABLE") from None
        if response.status_code == 204:
            return course_pb2.Course()
        if response.is_success:
            return ParseDict(response.json(), _RESPONSES.get(method, course_pb2.Course)())
        error = response.json()["error"]
        raise Failed(error["status"], error["details"][0]["reason"])

    def close(self) -> None:
        self._http.close()


_RESPONSES: Mapping[str, type[Message]] = {
    "ListCourses": course_pb2.ListCoursesResponse,
    "BatchGetCourses": course_pb2.BatchGetCoursesResponse,
    "BatchCreateCourses": course_pb2.BatchCreateCoursesResponse,
}

_HttpRequest = tuple[str, str, list[tuple[str, str | int | float | bool | None]], dict[str, str], object]


def _http_request(method: str, request: Any) -> _HttpRequest:  # noqa: C901  # as many cases as methods
    """Write a request as HTTP has it: verb, path, query, headers and body."""
    fields = MessageToDict(request, preserving_proto_field_name=True)
    headers = {}
    if request_id := fields.pop("request_id", ""):
        headers["Idempotency-Key"] = request_id
    if etag := fields.pop("etag", ""):
        headers["If-Match"] = etag
    name = fields.pop("name", "")
    body: object = None
    match method:
        case "CreateCourse":
            verb, path, body = "POST", "/courses", fields.pop("course", {})
        case "GetCourse":
            verb, path = "GET", f"/{name}"
        case "ListCourses":
            verb, path = "GET", "/courses"
        case "BatchGetCourses":
            verb, path = "GET", "/courses:batchGet"
        case "BatchCreateCourses":
            verb, path, body = "POST", "/courses:batchCreate", {"requests": fields.pop("requests", [])}
        case "UpdateCourse":
            course = fields.pop("course")
            verb, path = "PATCH", f"/{course.pop('name')}"
            if etag := course.pop("etag", ""):
                headers["If-Match"] = etag
            fields.pop("update_mask", None)
            body = {field: course.get(field) for field in request.update_mask.paths} or course
        case "DeleteCourse":
            verb, path = "DELETE", f"/{name}"
        case _:
            verb, path = "POST", f"/{name}:{method.removesuffix('Course').lower()}"
    return verb, path, _query(fields), headers, body


def _query(fields: Mapping[str, Any]) -> list[tuple[str, str | int | float | bool | None]]:
    return [
        (name, str(value).lower() if isinstance(value, bool) else str(value).removeprefix("COURSE_VIEW_"))
        for name, values in fields.items()
        for value in (values if isinstance(values, list) else [values])
    ]
