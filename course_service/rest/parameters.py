"""What HTTP sends beside the body: path, query and headers, and what header and body must agree on."""

from typing import Annotated

from fastapi import Depends, Header, Path, Query, Request

from course_service import fields, paging
from course_service.course import COLLECTION
from course_service.errors import RequestInvalid, Violation
from course_service.filters import MAX_LENGTH as MAX_FILTER_LENGTH
from course_service.schemas import MAX_BATCH, View, etags_of

IDEMPOTENCY_KEY = "Idempotency-Key"
IF_MATCH = "If-Match"

CourseIdPath = Annotated[
    fields.ExistingCourseId,
    Path(description="Last part of the course's name, as a caller chose it or a UUID.", examples=["bio-101"]),
]
NewCourseId = Annotated[
    fields.CourseId,
    Query(
        default_factory=str,
        description="Last part of the course's name, not to read as a UUID; left out, the service makes a UUID.",
        examples=["bio-101"],
    ),
]
ValidateOnly = Annotated[
    bool, Query(description="Check everything and return the would-be response with 200; store nothing.")
]
AllowMissingDelete = Annotated[
    bool, Query(description="Succeed if there is no such course (204), or if it is deleted already (200).")
]
AllowMissingUpdate = Annotated[bool, Query(description="Create the course if there is none, with 201 and Location.")]
WantedView = Annotated[View, Query(description="BASIC leaves out the description, FULL leaves out nothing.")]

PageSize = Annotated[
    int,
    Query(
        description=f"How many courses to return at most: 0 stands for {paging.DEFAULT_SIZE}, more than"
        f" {paging.MAX_SIZE:,} for {paging.MAX_SIZE:,}. A page of large courses ends earlier.",
        json_schema_extra={"minimum": 0},
    ),
]
PageToken = Annotated[
    str,
    Query(
        default_factory=str,
        description="The next_page_token of the page before; everything else but page_size must be as it was then.",
    ),
]
Filter = Annotated[
    str,
    Query(
        default_factory=str,
        description=f"Which courses to return, in the language of AIP-160; at most {MAX_FILTER_LENGTH:,} characters.",
        examples=['state = PUBLISHED AND labels.level = "1"'],
    ),
]
OrderBy = Annotated[
    str,
    Query(
        default_factory=str,
        description=f"What to sort by: one or more of {', '.join(paging.ORDER_FIELDS)}, with commas between them, each"
        " with ` desc` for descending; no field twice, and at most 256 characters. Left out: create_time.",
        examples=["title, create_time desc"],
    ),
]
ShowDeleted = Annotated[bool, Query(description="Return deleted courses too.")]
Names = Annotated[
    list[str],
    Query(
        description=f"1 to {MAX_BATCH} names, as `names=courses/a&names=courses/b`.",
        json_schema_extra={
            "minItems": 1,
            "maxItems": MAX_BATCH,
            "items": {"type": "string", "pattern": fields.COURSE_NAME_PATTERN},
        },
        examples=[["courses/bio-101"]],
    ),
]


def _request_id(
    request: Request,
    idempotency_key: Annotated[
        fields.RequestIdHeader,
        Header(
            default_factory=str,
            alias=IDEMPOTENCY_KEY,
            description="A UUID of the caller's making, new for each thing to be done; makes the call safe to retry"
            " for 24 hours.",
        ),
    ],
) -> str:
    if len(request.headers.getlist(IDEMPOTENCY_KEY)) > 1:
        raise RequestInvalid([Violation(IDEMPOTENCY_KEY, "FIELD_DUPLICATE", "Must be given once.")])
    if IDEMPOTENCY_KEY in request.headers and not idempotency_key:
        raise RequestInvalid([Violation(IDEMPOTENCY_KEY, "FIELD_BAD_FORMAT", "Must be a UUID, or not be sent.")])
    return idempotency_key


def _etag(
    request: Request,
    if_match: Annotated[
        str,
        Header(
            default_factory=str,
            alias=IF_MATCH,
            json_schema_extra={"minLength": 1},
            description="The ETag that the course must have, or several with commas between them; `*`: any.",
            examples=['"09f7cccc45cbdf4ca9c577ef"'],
        ),
    ],
) -> str:
    if IF_MATCH not in request.headers:
        return if_match
    etags = ", ".join(request.headers.getlist(IF_MATCH)).strip()  # a header that is a list may be sent in parts
    if not etags:
        raise RequestInvalid([Violation(IF_MATCH, "FIELD_BAD_FORMAT", "Must be an ETag, several, or *.")])
    return etags


RequestId = Annotated[str, Depends(_request_id)]
Etag = Annotated[str, Depends(_etag)]


def agreed_request_id(header: str, in_body: str) -> str:
    """Return the request id of a call that can have it in two places; raises `RequestInvalid` if they disagree."""
    if header and in_body and header != in_body:
        raise _disagreement(IDEMPOTENCY_KEY, "request_id")
    return header or in_body


def agreed_etag(header: str, in_body: str) -> str:
    """Return the etag of a call that can have it in two places; raises `RequestInvalid` if they disagree."""
    if not header or not in_body or "*" in {header, in_body}:
        return header if in_body in {"", "*"} else in_body
    both = set(etags_of(header)) & set(etags_of(in_body))
    if not both:
        raise _disagreement(IF_MATCH, "etag")
    return ", ".join(sorted(both))


def _disagreement(header: str, field: str) -> RequestInvalid:
    return RequestInvalid([Violation(header, "FIELD_CONFLICT", f"Must not disagree with {field} in the body.")])


def http_name(field: str) -> str:
    """Return the name that HTTP has for a field of the contract's request.

    The body is the course, so paths begin in it; the course's id is part of the path, and the request id is a header.
    """
    if field in {"name", "course.name"}:
        return "course_id"
    if field == "request_id":
        return IDEMPOTENCY_KEY
    return field.removeprefix("course.")


def course_name(course_id: str) -> str:
    """Return the name of the course that a path is about."""
    return COLLECTION + course_id
