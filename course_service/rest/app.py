"""The HTTP application: routes over the same use cases as gRPC, with the same rules and errors."""

import contextlib
from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus
from typing import Annotated, Any

import anyio.to_thread
from fastapi import FastAPI, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi_offline import FastAPIOffline
from google.protobuf.json_format import MessageToDict
from google.rpc import code_pb2
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from course_service import schemas, services
from course_service.errors import (
    CourseError,
    MethodNotAllowed,
    RequestInvalid,
    RequestMalformed,
    RequestTooLarge,
    RouteNotFound,
)
from course_service.internal import report
from course_service.status import to_status
from course_service.store.database import Database

MAX_BODY_BYTES = 1 << 20

# As google/rpc/code.proto says, except that a body that breaks rules is 422.
HTTP_CODES = {
    code_pb2.INVALID_ARGUMENT: HTTPStatus.UNPROCESSABLE_ENTITY,
    code_pb2.RESOURCE_EXHAUSTED: HTTPStatus.TOO_MANY_REQUESTS,
    code_pb2.NOT_FOUND: HTTPStatus.NOT_FOUND,
    code_pb2.ALREADY_EXISTS: HTTPStatus.CONFLICT,
    code_pb2.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    code_pb2.INTERNAL: HTTPStatus.INTERNAL_SERVER_ERROR,
}
# What HTTP itself has a code for.
_HTTP_CODES_BY_ERROR: dict[type[CourseError], HTTPStatus] = {
    RequestTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    MethodNotAllowed: HTTPStatus.METHOD_NOT_ALLOWED,
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


def make_app(database: Database, *, threads: int) -> FastAPI:
    """Make the application over a database; it works on `threads` requests at once."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = threads
        yield

    app: FastAPI = FastAPIOffline(
        title="Course service",
        description="Owns the courses of the education platform. The same as gRPC's course.v1.CourseService.",
        redoc_url=None,
        lifespan=lifespan,
    )
    app.add_middleware(_BodyLimit)
    _answer_errors(app)

    def error(description: str) -> dict[str, Any]:
        return {"model": ErrorResponse, "description": description}

    @app.post(
        "/courses",
        status_code=HTTPStatus.CREATED,
        tags=["courses"],
        responses={
            409: error("COURSE_ALREADY_EXISTS: the `course_id` is taken."),
            422: error("REQUEST_INVALID, with everything that is wrong; REQUEST_MALFORMED: the body is not JSON."),
        },
    )
    def create_course(
        course: schemas.CourseCreate,
        response: Response,
        course_id: Annotated[
            schemas.CourseId,
            Query(description="Last part of the course's name; left empty, the service takes a UUID."),
        ] = "",
    ) -> schemas.CourseResponse:
        """Create a course in state DRAFT. `Location` names it."""
        created = services.create_course(database, schemas.CreateCourseRequest(course=course, course_id=course_id))
        response.headers["Location"] = f"/{created.name}"
        response.headers["ETag"] = created.etag
        return schemas.CourseResponse.model_validate(created)

    @app.get(
        "/courses/{course_id}",
        tags=["courses"],
        responses={
            404: error("COURSE_NOT_FOUND: there is no such course."),
            422: error("REQUEST_INVALID: no course can have this id."),
        },
    )
    def get_course(
        course_id: Annotated[schemas.ExistingCourseId, Path(description="Last part of the course's name.")],
        response: Response,
    ) -> schemas.CourseResponse:
        """Return a course."""
        course = services.get_course_by_id(database, course_id)
        response.headers["ETag"] = course.etag
        return schemas.CourseResponse.model_validate(course)

    return app


class _BodyLimit:
    """Reads no more of a body than MAX_BODY_BYTES. (Starlette's own limit answers in plain text.)"""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        size = 0

        async def receive_within_limit() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > MAX_BODY_BYTES:
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return message

        await self._app(scope, receive_within_limit, send)


def _answer_errors(app: FastAPI) -> None:
    @app.exception_handler(CourseError)
    async def course_error(_: Request, error: CourseError) -> JSONResponse:
        return _error_response(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        details = error.errors()
        if any(detail["type"] == "json_invalid" or detail["loc"] == ("body",) for detail in details):
            return _error_response(_body_malformed())
        # The first step says where FastAPI read the field: body, query or path.
        return _error_response(
            RequestInvalid(schemas.violations({**detail, "loc": detail["loc"][1:]} for detail in details))
        )

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        match error.status_code:
            case HTTPStatus.NOT_FOUND:
                failure: CourseError = RouteNotFound(f"There is nothing at {request.url.path}.", path=request.url.path)
            case HTTPStatus.METHOD_NOT_ALLOWED:
                failure = MethodNotAllowed(f"{request.method} is not for this path.", method=request.method)
            case HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
                failure = RequestTooLarge(MAX_BODY_BYTES)
            case _:  # FastAPI could not read the body
                failure = _body_malformed()
        return _error_response(failure, error.headers)

    @app.exception_handler(Exception)
    async def unforeseen(_: Request, exception: Exception) -> JSONResponse:
        return _error_response(report(exception))


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
