"""Errors as HTTP tells them: the status code, and google.rpc.Status as JSON."""

import dataclasses
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from google.protobuf.json_format import MessageToDict
from google.rpc import code_pb2
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from course_service.errors import (
    CourseError,
    EtagMismatch,
    MethodNotAllowed,
    RequestInvalid,
    RequestMalformed,
    RequestTooLarge,
    RouteNotFound,
    Violation,
)
from course_service.internal import report
from course_service.status import to_status
from course_service.violations import violation

MAX_BODY_BYTES = 1 << 20

# As google/rpc/code.proto says, except that a body that breaks rules is 422.
HTTP_CODES = {
    code_pb2.INVALID_ARGUMENT: HTTPStatus.UNPROCESSABLE_ENTITY,
    code_pb2.FAILED_PRECONDITION: HTTPStatus.BAD_REQUEST,
    code_pb2.RESOURCE_EXHAUSTED: HTTPStatus.TOO_MANY_REQUESTS,
    code_pb2.NOT_FOUND: HTTPStatus.NOT_FOUND,
    code_pb2.ALREADY_EXISTS: HTTPStatus.CONFLICT,
    code_pb2.ABORTED: HTTPStatus.CONFLICT,
    code_pb2.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    code_pb2.INTERNAL: HTTPStatus.INTERNAL_SERVER_ERROR,
}
# What HTTP itself has a code for, which says more: 429 would have callers send the same large body again.
_HTTP_CODES_BY_ERROR: dict[type[CourseError], HTTPStatus] = {
    RequestTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    MethodNotAllowed: HTTPStatus.METHOD_NOT_ALLOWED,
    EtagMismatch: HTTPStatus.PRECONDITION_FAILED,
}


class ErrorBody(BaseModel):
    """What went wrong: `google.rpc.Status` in HTTP's words."""

    code: int
    """The HTTP status code."""
    status: str
    """The name of the gRPC status code."""
    message: str
    """A sentence for people."""
    details: list[dict[str, Any]]
    """google.rpc.ErrorInfo first, then BadRequest, ResourceInfo or RetryInfo, each with its `@type`."""


class ErrorResponse(BaseModel):
    """The body of every answer that is not a success."""

    error: ErrorBody


def answer_errors(app: FastAPI) -> None:
    """Have an application answer every error in the contract's form."""

    @app.exception_handler(CourseError)
    async def course_error(_: Request, error: CourseError) -> JSONResponse:
        # The body is the course, so paths begin in it.
        error.violations = [
            Violation(violation.field.removeprefix("course."), violation.reason, violation.description)
            for violation in error.violations
        ]
        return _error_response(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        details = error.errors()
        if any(detail["type"] == "json_invalid" or detail["loc"] == ("body",) for detail in details):
            return _error_response(_body_malformed())
        return _error_response(RequestInvalid([_violation(detail) for detail in details]))

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        match error.status_code:
            case HTTPStatus.NOT_FOUND:
                failure: CourseError = RouteNotFound(request.url.path)
            case HTTPStatus.METHOD_NOT_ALLOWED:
                failure = MethodNotAllowed(request.method)
            case HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
                failure = RequestTooLarge(MAX_BODY_BYTES)
            case _:  # FastAPI could not read the body
                failure = _body_malformed()
        return _error_response(failure, error.headers)

    @app.exception_handler(Exception)
    async def unforeseen(_: Request, exception: Exception) -> JSONResponse:
        return _error_response(report(exception))


def _violation(details: Mapping[str, Any]) -> Violation:
    # The first step says where FastAPI read the field: body, query, path or header.
    place, *location = details["loc"]
    found = violation({**details, "loc": location})
    return dataclasses.replace(found, field=location[0].title()) if place == "header" else found


def _body_malformed() -> RequestMalformed:
    return RequestMalformed("The body must be a JSON object in UTF-8, sent as Content-Type: application/json.")


def _error_response(error: CourseError, headers: Mapping[str, str] | None = None) -> JSONResponse:
    status = to_status(error)
    code = _HTTP_CODES_BY_ERROR.get(type(error)) or HTTP_CODES[status.code]
    body = {
        "code": int(code),
        "status": code_pb2.Code.Name(status.code),
        "message": status.message,
        "details": [MessageToDict(detail, preserving_proto_field_name=True) for detail in status.details],
    }
    return JSONResponse({"error": body}, status_code=code, headers=headers)
