"""Errors as HTTP has them: the status code, and google.rpc.Status as JSON."""

import dataclasses
import http.client
import re
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from google.protobuf.json_format import MessageToDict
from google.rpc import code_pb2, status_pb2
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute, Match
from starlette.types import Scope

from course_service import call, errors
from course_service.errors import CourseError, MethodNotAllowed, RouteNotFound, Violation
from course_service.guard.guard import Guard
from course_service.guard.status import DOMAIN
from course_service.guard.steps import Credentials
from course_service.rest.body import body_malformed
from course_service.rest.parameters import http_name
from course_service.rest.protocol import CERTIFICATE
from course_service.validation import invalid, violation

METHOD = "course_service.method"
"""Where a request's scope has the method that the caller sent, which may be HEAD."""

# As google/rpc/code.proto says, except that INVALID_ARGUMENT is 422.
HTTP_CODES = {
    code_pb2.CANCELLED: 499,
    code_pb2.INVALID_ARGUMENT: HTTPStatus.UNPROCESSABLE_ENTITY,
    code_pb2.FAILED_PRECONDITION: HTTPStatus.BAD_REQUEST,
    code_pb2.UNAUTHENTICATED: HTTPStatus.UNAUTHORIZED,
    code_pb2.PERMISSION_DENIED: HTTPStatus.FORBIDDEN,
    code_pb2.RESOURCE_EXHAUSTED: HTTPStatus.TOO_MANY_REQUESTS,
    code_pb2.NOT_FOUND: HTTPStatus.NOT_FOUND,
    code_pb2.ALREADY_EXISTS: HTTPStatus.CONFLICT,
    code_pb2.ABORTED: HTTPStatus.CONFLICT,
    code_pb2.UNIMPLEMENTED: HTTPStatus.NOT_IMPLEMENTED,
    code_pb2.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    code_pb2.DEADLINE_EXCEEDED: HTTPStatus.GATEWAY_TIMEOUT,
    code_pb2.INTERNAL: HTTPStatus.INTERNAL_SERVER_ERROR,
}
# What HTTP itself has a code for, which says more: 429 would have callers send the same large body again.
_HTTP_CODES_BY_REASON = {
    errors.RequestTooLarge.reason: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.HeadersTooLarge.reason: HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    errors.MethodNotAllowed.reason: HTTPStatus.METHOD_NOT_ALLOWED,
    errors.EtagMismatch.reason: HTTPStatus.PRECONDITION_FAILED,
}


class HttpCredentials(Credentials):
    """What the caller of a request has shown."""

    __slots__ = ("_scope",)

    def __init__(self, scope: Scope) -> None:
        super().__init__()
        self._scope = scope

    def pairs(self) -> Iterable[tuple[str, str | bytes]]:
        """Return the headers."""
        return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in self._scope["headers"]]

    def certificate(self) -> bytes | None:
        """Return the certificate as DER."""
        shown: bytes | None = self._scope.get("state", {}).get(CERTIFICATE)
        return shown


def map_errors(app: FastAPI, guard: Guard) -> None:
    """Have an application respond to every error in the contract's form."""

    def failed(exception: BaseException, headers: Mapping[str, str] | None = None) -> JSONResponse:
        status = guard.failed(call.current(), exception, http_name)
        return error_response(status, headers)

    @app.exception_handler(CourseError)
    async def course_error(_: Request, error: CourseError) -> JSONResponse:
        return failed(error)

    @app.exception_handler(RequestValidationError)
    async def invalid_request(_: Request, error: RequestValidationError) -> JSONResponse:
        details = error.errors()
        if any(detail["loc"] == ("body",) for detail in details):
            return failed(body_malformed())
        return failed(invalid([_violation(detail) for detail in details]))

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        if error.status_code in {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED}:
            return failed(*_unrouted(app, guard, request, error.status_code))
        return _foreign_error(error.status_code, error.headers)

    @app.exception_handler(ClientDisconnect)
    async def left(_: Request, __: ClientDisconnect) -> JSONResponse:
        call.current().code = "CANCELLED"
        return JSONResponse(None, status_code=HTTP_CODES[code_pb2.CANCELLED])  # which nobody receives

    @app.exception_handler(Exception)
    async def unforeseen(_: Request, exception: Exception) -> JSONResponse:
        return failed(exception)


def _unrouted(app: FastAPI, guard: Guard, request: Request, code: int) -> tuple[CourseError, dict[str, str]]:
    """Say why a request has no route, to those who may know; with it come headers of the response."""
    this_call = call.current()
    if this_call.method == call.UNKNOWN_METHOD:  # it has not been through the guard
        try:
            guard.enter(this_call, HttpCredentials(request.scope))
        except CourseError as refusal:
            return refusal, {}
    if code == HTTPStatus.NOT_FOUND:
        this_call.method = call.UNKNOWN_METHOD
        return RouteNotFound(request.url.path), {}
    allowed = allowed_methods(app.routes, request)
    return MethodNotAllowed(request.scope.get(METHOD, request.method), allowed), {"Allow": ", ".join(allowed)}


def allowed_methods(routes: Sequence[BaseRoute], request: Request) -> list[str]:
    """Return every method that the path of a request takes."""

    def takes(method: str) -> bool:
        scope = {**request.scope, "method": method}
        return any(route.matches(scope)[0] is Match.FULL for route in routes)

    methods = [method for method in ("DELETE", "GET", "PATCH", "POST", "PUT") if takes(method)]
    return sorted([*methods, "HEAD"] if "GET" in methods else methods)


def http_code(status: str, reason: str) -> int:
    """Return the HTTP status code of an error."""
    return int(_HTTP_CODES_BY_REASON.get(reason) or HTTP_CODES[code_pb2.Code.Value(status)])


def error_body(status: status_pb2.Status) -> dict[str, Any]:
    """Write a status as the body of a response."""
    details = [MessageToDict(detail, preserving_proto_field_name=True) for detail in status.details]
    name = code_pb2.Code.Name(status.code)
    return {
        "error": {
            "code": http_code(name, details[0]["reason"]),
            "status": name,
            "message": status.message,
            "details": details,
        }
    }


def error_response(status: status_pb2.Status, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Write a status as a response; one that says when to retry says it in a header too."""
    body = error_body(status)
    response = JSONResponse(body, status_code=body["error"]["code"], headers=headers)
    if status.code == code_pb2.UNAUTHENTICATED:
        reason = body["error"]["details"][0]["reason"]
        response.headers["WWW-Authenticate"] = 'Bearer realm="course"' + (
            ', error="invalid_token"' if reason.startswith("TOKEN_") else ""
        )
    for detail in body["error"]["details"]:
        if "retry_delay" in detail:
            response.headers["Retry-After"] = detail["retry_delay"].removesuffix("s")
    return response


def _violation(details: Mapping[str, Any]) -> Violation:
    # The first step says where FastAPI read the field: body, query, path or header.
    place, *location = details["loc"]
    found = violation({**details, "loc": location})
    return dataclasses.replace(found, field=location[0].title()) if place == "header" else found


def _foreign_error(code: int, headers: Mapping[str, str] | None) -> JSONResponse:
    """Respond to an HTTP error that is none of the service's own with its own status code."""
    phrase = http.client.responses.get(code, "HTTP error")
    reason = re.sub("[^A-Z]+", "_", phrase.upper())
    status = next((name for name, http_status in HTTP_CODES.items() if http_status == code), code_pb2.UNKNOWN)
    this_call = call.current()
    this_call.code, this_call.reason = code_pb2.Code.Name(status), reason
    info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": DOMAIN}
    error = {"code": code, "status": this_call.code, "message": f"{phrase}.", "details": [info]}
    return JSONResponse({"error": error}, status_code=code, headers=headers)
