"""What `/openapi.json` says beside the types: examples, headers, and what each error looks like."""

from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Literal

from fastapi.routing import APIRoute
from pydantic import BaseModel, Field

from course_service import errors, fields
from course_service.course import Course, State
from course_service.guard.status import to_status
from course_service.responses import CourseResponse
from course_service.rest.body import MAX_BODY_BYTES, body_malformed
from course_service.rest.errors import error_body
from course_service.rest.parameters import http_name
from course_service.schemas import CourseCreate

_TIME = datetime(2026, 11, 23, 18, 22, 58, 202_155, tzinfo=UTC)
COURSE = Course(
    uid="01a209a5-9c9a-75e5-aff2-e93c839308ba",
    course_id="bio-101",
    title="Introduction to Biology",
    code="BIO 101",
    description="Cells, genes and evolution.",
    owner="users/ann",
    language_code="en",
    subjects=["Biology"],
    labels={"level": "1"},
    external_ids={"sis": "A1"},
    state=State.DRAFT,
    create_time=_TIME,
    update_time=_TIME,
    delete_time=None,
    purge_time=None,
    state_before_delete=None,
    revision=1,
)
_NAME = COURSE.name
_RESPONSE = CourseResponse.model_validate(COURSE).model_dump(mode="json")
_BASIC = {**_RESPONSE, "description": ""}

CREATE_EXAMPLES: dict[str, Any] = {
    "a course": {"value": {field: _RESPONSE[field] for field in CourseCreate.model_fields}},
    "only what is required": {"value": {"title": "Biology"}},
}
UPDATE_EXAMPLES: dict[str, Any] = {"other labels, no code": {"value": {"labels": {"level": "2"}, "code": None}}}
BATCH_EXAMPLES: dict[str, Any] = {
    "two courses": {
        "value": {
            "requests": [{"course": {"title": "Biology"}, "course_id": "bio-101"}, {"course": {"title": "Chemistry"}}]
        }
    }
}

_HEADERS = {
    "ETag": ("The etag of the course.", COURSE.etag),
    "Location": ("Where the course is.", f"/{_NAME}"),
    "Allow": ("The methods that the path takes.", "DELETE, GET, HEAD, PATCH"),
    "Retry-After": ("After how many seconds to try again.", "1"),
}


def operation_id(route: APIRoute) -> str:
    """Name an operation as the contract names the method, beginning in lower case: `updateCourse`."""
    first, *others = route.name.split("_")
    return first + "".join(word.title() for word in others)


# What errors look like; `details` are google.rpc's messages.


class ErrorInfo(BaseModel):
    """Why the call failed, for programs. Every error has exactly one, and it is the first detail."""

    type: Literal["type.googleapis.com/google.rpc.ErrorInfo"] = Field(alias="@type")
    reason: str = Field(description="Stable name of the reason.")
    domain: Literal["course.v1.CourseService"] = Field(description="Who gives the reason.")
    metadata: dict[str, str] = Field(
        default_factory=dict, description="Every part of the message that varies; keys are lowerCamelCase."
    )


class FieldViolation(BaseModel):
    """One thing wrong with one field."""

    field: str = Field(
        description='Path of the field in the body, such as `labels["x"]`, or the name of the parameter or header.'
    )
    reason: str = Field(description="Stable name of the rule that is broken, such as `FIELD_TOO_LONG`.")
    description: str = Field(description="A sentence for people, with the limit.")


class BadRequest(BaseModel):
    """Everything that is wrong with the request, as far as it fits; `violationCount` in the metadata counts it all."""

    type: Literal["type.googleapis.com/google.rpc.BadRequest"] = Field(alias="@type")
    field_violations: list[FieldViolation] = Field(description="At most 25.")


class ResourceInfo(BaseModel):
    """Which course the error is about."""

    type: Literal["type.googleapis.com/google.rpc.ResourceInfo"] = Field(alias="@type")
    resource_type: Literal["course.example.com/Course"] = Field(description="The type of the resource.")
    resource_name: str = Field(description="The name of the course.")
    description: str = Field(description="The message once more.")


class PreconditionViolation(BaseModel):
    """Which state of the course does not allow the call."""

    type: str = Field(description="The reason once more.")
    subject: str = Field(description="The name of the course.")
    description: str = Field(description="The message once more.")


class PreconditionFailure(BaseModel):
    """What has to change before the call can succeed."""

    type: Literal["type.googleapis.com/google.rpc.PreconditionFailure"] = Field(alias="@type")
    violations: list[PreconditionViolation] = Field(description="Always one.")


class RetryInfo(BaseModel):
    """When to try again."""

    type: Literal["type.googleapis.com/google.rpc.RetryInfo"] = Field(alias="@type")
    retry_delay: str = Field(description="Seconds, such as `1s`.")


class ErrorBody(BaseModel):
    """What went wrong: `google.rpc.Status` as JSON."""

    code: int = Field(description="The HTTP status code.")
    status: str = Field(description="The name of the gRPC status code.")
    message: str = Field(
        description="A sentence for people. With violations it is the first one, and counts the others."
    )
    details: list[ErrorInfo | BadRequest | ResourceInfo | PreconditionFailure | RetryInfo] = Field(
        description="ErrorInfo first, then those that fit the error."
    )


class ErrorResponse(BaseModel):
    """The body of every response that is not a success."""

    error: ErrorBody = Field(description="The error.")


# The errors of the contract as these examples show them.

INVALID = errors.RequestInvalid(
    [
        errors.Violation("course.title", "FIELD_REQUIRED", "Must be given."),
        errors.Violation("course.code", "FIELD_TOO_LONG", "Must have at most 255 code points."),
    ]
)
INVALID_ID = errors.RequestInvalid(
    [errors.Violation("name", "FIELD_BAD_FORMAT", f"Must match {fields.EXISTING_ID_PATTERN}.")]
)
MALFORMED = body_malformed()
REUSED = errors.RequestIdReused("6f1f2a60-3e0b-4c57-9d5a-2f0f5d3b8a11")
NOT_FOUND = errors.CourseNotFound(_NAME)
NOT_ALL_FOUND = errors.CoursesNotFound([_NAME, "courses/chem-1"], [1])
MISMATCH = errors.EtagMismatch(_NAME)
EXISTS = errors.CourseAlreadyExists(_NAME)
HELD = errors.CourseIdHeldByDeletedCourse(_NAME)
IN_USE = errors.ExternalIdInUse("sis", "A1")
NOT_DELETED = errors.CourseNotDeleted(_NAME)
ARCHIVED = errors.CourseArchived(_NAME)
DELETED = errors.CourseDeleted(_NAME)
NO_TRANSITION = errors.InvalidStateTransition(_NAME, "DRAFT", "ARCHIVED")
TOO_LARGE = errors.RequestTooLarge(MAX_BODY_BYTES)
RESPONSE_TOO_LARGE = errors.ResponseTooLarge()
LIST_ERRORS = (
    errors.RequestInvalid([errors.Violation("view", "FIELD_WRONG_TYPE", "Input should be 'BASIC' or 'FULL'.")]),
    errors.PageSizeNegative(-1),
    errors.PageTokenInvalid(),
    errors.PageTokenMismatch(),
    errors.FilterInvalid("There is no field titel", 0),
    errors.OrderByInvalid("title must not be repeated", 7),
)
_EVERYWHERE = (
    errors.MethodNotAllowed("PUT", ["DELETE", "GET", "HEAD", "PATCH"]),
    errors.DatabaseUnavailable(),
    errors.DeadlineExceeded(),
    errors.InternalError("0123456789abcdef"),
)


def responses(
    *failures: errors.CourseError, success: int = HTTPStatus.OK, example: object = None, also: int | None = None
) -> dict[int | str, dict[str, Any]]:
    """Describe the responses of an operation: its successes, and every error that it can end in, with examples."""
    found: dict[int | str, dict[str, Any]] = {}
    one_course = example is None
    for code in (success, also):
        if code is not None:
            content = {"application/json": {"example": _RESPONSE if one_course else example}}
            headers = _headers("ETag", *(["Location"] if code == HTTPStatus.CREATED else [])) if one_course else {}
            found[int(code)] = {"description": _SUCCESSES[HTTPStatus(code)], "content": content, "headers": headers}
            if code != success:
                found[int(code)]["model"] = CourseResponse
    for failure in (*failures, *_EVERYWHERE):
        body = error_body(to_status(failure, http_name))
        response = found.setdefault(body["error"]["code"], {"model": ErrorResponse, "description": "", "headers": {}})
        response["description"] += (" · " if response["description"] else "") + failure.reason
        if isinstance(failure, errors.MethodNotAllowed):
            response["headers"] = _headers("Allow")
        if isinstance(failure, errors.DatabaseUnavailable):
            response["headers"] = _headers("Retry-After")
        examples = response.setdefault("content", {"application/json": {"examples": {}}})
        examples["application/json"]["examples"].setdefault(failure.reason, {"value": body})
    return found


_SUCCESSES = {
    HTTPStatus.OK: "The call succeeded; with validate_only it would have.",
    HTTPStatus.CREATED: "The course was created.",
}


def _headers(*names: str) -> dict[str, Any]:
    return {
        name: {"description": _HEADERS[name][0], "schema": {"type": "string"}, "example": _HEADERS[name][1]}
        for name in names
    }


def restore_nulls(document: dict[str, Any]) -> dict[str, Any]:
    """Put back the nulls that FastAPI leaves out of examples of courses."""
    for path in document["paths"].values():
        for operation in path.values():
            for response in operation["responses"].values():
                content = response.get("content", {}).get("application/json", {})
                if "etag" in (example := content.get("example", {})):
                    content["example"] = {field: example.get(field) for field in CourseResponse.model_fields}
                elif "courses" in example:
                    example["courses"] = [_RESPONSE | course for course in example["courses"]]
    return document


def list_example() -> dict[str, Any]:
    """Return a page of courses."""
    return {"courses": [_BASIC], "next_page_token": ""}


def courses_example() -> dict[str, Any]:
    """Return the response of a batch."""
    return {"courses": [_RESPONSE]}
