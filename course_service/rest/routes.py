"""The routes: each makes a request of what HTTP brings, calls its use case, and answers with the courses."""

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Header, Path, Query, Response

from course_service import fields, schemas, services
from course_service.course import COLLECTION, Course
from course_service.filters import MAX_LENGTH as MAX_FILTER_LENGTH
from course_service.paging import DEFAULT_SIZE, MAX_SIZE, PageTokens
from course_service.rest.errors import ErrorResponse
from course_service.rest.strict import StrictRoute
from course_service.schemas import CourseResponse, CoursesResponse, ListCoursesResponse, View
from course_service.store.database import Database
from course_service.violations import validated

EXAMPLE: dict[str, Any] = {
    "title": "Introduction to Biology",
    "code": "BIO 101",
    "description": "Cells, genes and evolution.",
    "owner": "users/ann",
    "language_code": "en",
    "subjects": ["Biology"],
    "labels": {"level": "1"},
    "external_ids": {"sis": "A1"},
}
EXAMPLE_CREATE = {"a course": {"value": EXAMPLE}, "only what is needed": {"value": {"title": "Biology"}}}
EXAMPLE_UPDATE = {"other labels, no code": {"value": {"labels": {"level": "2"}, "code": ""}}}
EXAMPLE_BATCH = {
    "two courses": {
        "value": {
            "requests": [{"course": {"title": "Biology"}, "course_id": "bio-101"}, {"course": {"title": "Chemistry"}}]
        }
    }
}

_INVALID = "REQUEST_INVALID: the violations say what; REQUEST_MALFORMED: the body is not a JSON object."
_CONFLICT = "COURSE_ALREADY_EXISTS, COURSE_ID_HELD_BY_DELETED_COURSE or EXTERNAL_ID_IN_USE."
_MISMATCH = "ETAG_MISMATCH: the course is not the version of If-Match any more."

CourseIdPath = Annotated[
    fields.ExistingCourseId, Path(description="Last part of the course's name.", examples=["bio-101"])
]
NewCourseId = Annotated[
    fields.CourseId, Query(description="Last part of the course's name; left empty, the service takes a UUID.")
]
ValidateOnly = Annotated[bool, Query(description="Check everything and return the would-be answer; store nothing.")]
AllowMissingDelete = Annotated[bool, Query(description="Succeed if there is no such course (204), or no more (200).")]
AllowMissingUpdate = Annotated[bool, Query(description="Create the course if there is none.")]
WantedView = Annotated[View, Query(description="BASIC leaves out the description.")]


def _request_id(
    idempotency_key: Annotated[
        fields.RequestId, Header(description="A UUID; makes the call safe to repeat for 24 hours.")
    ] = "",
) -> str:
    return idempotency_key


def _etag(if_match: Annotated[str, Header(description="The ETag that the course must have.")] = "") -> str:
    return if_match


RequestId = Annotated[str, Depends(_request_id)]
Etag = Annotated[str, Depends(_etag)]


def _errors(**descriptions: str) -> dict[int | str, dict[str, Any]]:
    return {
        int(code.removeprefix("on_")): {"model": ErrorResponse, "description": description}
        for code, description in descriptions.items()
    }


def _answer(course: Course, response: Response) -> CourseResponse:
    response.headers["ETag"] = course.etag
    return CourseResponse.model_validate(course)


def _answers(courses: list[Course]) -> list[CourseResponse]:
    return [CourseResponse.model_validate(course) for course in courses]


def make_routes(database: Database, tokens: PageTokens) -> APIRouter:  # noqa: C901  # as many routes as methods
    """Make the routes over a database."""
    routes = APIRouter(route_class=StrictRoute, tags=["courses"])

    @routes.post("/courses", status_code=HTTPStatus.CREATED, responses=_errors(on_409=_CONFLICT, on_422=_INVALID))
    def create_course(
        course: Annotated[schemas.CourseCreate, Body(openapi_examples=EXAMPLE_CREATE)],
        response: Response,
        request_id: RequestId,
        course_id: NewCourseId = "",
        validate_only: ValidateOnly = False,
    ) -> CourseResponse:
        """Create a course in state DRAFT; `Location` says where it is."""
        request = schemas.CreateCourseRequest(
            course=course, course_id=course_id, request_id=request_id, validate_only=validate_only
        )
        created = services.create_course(database, request)
        response.headers["Location"] = f"/{created.name}"
        return _answer(created, response)

    @routes.get(
        "/courses",
        responses=_errors(
            on_422="PAGE_SIZE_NEGATIVE, PAGE_TOKEN_INVALID, PAGE_TOKEN_MISMATCH, "
            "FILTER_INVALID, ORDER_BY_INVALID or REQUEST_INVALID."
        ),
    )
    def list_courses(
        page_size: Annotated[int, Query(description=f"0: {DEFAULT_SIZE}; {MAX_SIZE} at most.")] = 0,
        page_token: Annotated[str, Query(description="The next_page_token of the page before.")] = "",
        filter: Annotated[  # noqa: A002  # the contract's name
            str,
            Query(
                description=f"As in AIP-160; at most {MAX_FILTER_LENGTH} characters.",
                examples=['state = PUBLISHED AND labels.level = "1"'],
            ),
        ] = "",
        order_by: Annotated[str, Query(examples=["title, create_time desc"])] = "",
        show_deleted: Annotated[bool, Query(description="Deleted courses too.")] = False,
        view: WantedView = View.BASIC,
    ) -> ListCoursesResponse:
        """Return courses a page at a time."""
        request = schemas.ListCoursesRequest(
            page_size=page_size,
            page_token=page_token,
            filter=filter,
            order_by=order_by,
            show_deleted=show_deleted,
            view=view,
        )
        page = services.list_courses(database, tokens, request)
        return ListCoursesResponse(courses=_answers(page.courses), next_page_token=page.next_page_token)

    @routes.get(
        "/courses:batchGet",
        responses=_errors(
            on_404="COURSE_NOT_FOUND, with every missing name.",
            on_422=_INVALID,
            on_429="RESPONSE_TOO_LARGE: ask for fewer, or for BASIC.",
        ),
    )
    def batch_get_courses(
        names: Annotated[list[str], Query(description="1 to 100 names, as `names=courses/a&names=courses/b`.")] = [],  # noqa: B006  # FastAPI copies it
        view: WantedView = View.FULL,
    ) -> CoursesResponse:
        """Return several courses in the order asked, all or none."""
        request = validated(schemas.BatchGetCoursesRequest, {"names": names, "view": view})
        return CoursesResponse(courses=_answers(services.batch_get_courses(database, request)))

    @routes.post("/courses:batchCreate", responses=_errors(on_409=_CONFLICT, on_422=_INVALID))
    def batch_create_courses(
        batch: Annotated[schemas.BatchCreateCoursesRequest, Body(openapi_examples=EXAMPLE_BATCH)],
        request_id: RequestId,
        validate_only: ValidateOnly = False,
    ) -> CoursesResponse:
        """Create up to 100 courses, all or none."""
        request = batch.model_copy(
            update={
                "request_id": request_id or batch.request_id,
                "validate_only": validate_only or batch.validate_only,
            }
        )
        return CoursesResponse(courses=_answers(services.batch_create_courses(database, request)))

    @routes.get(
        "/courses/{course_id}",
        responses=_errors(on_404="COURSE_NOT_FOUND.", on_422="REQUEST_INVALID: no course can have this id."),
    )
    def get_course(course_id: CourseIdPath, response: Response) -> CourseResponse:
        """Return a course, also if it is deleted."""
        return _answer(services.get_course_by_id(database, course_id), response)

    @routes.patch(
        "/courses/{course_id}",
        responses=_errors(
            on_400="COURSE_ARCHIVED or COURSE_DELETED: it is read-only.",
            on_404="COURSE_NOT_FOUND.",
            on_409="EXTERNAL_ID_IN_USE.",
            on_412=_MISMATCH,
            on_422=_INVALID,
        ),
    )
    def update_course(
        course_id: CourseIdPath,
        course: Annotated[schemas.CourseUpdate, Body(openapi_examples=EXAMPLE_UPDATE)],
        response: Response,
        request_id: RequestId,
        etag: Etag,
        allow_missing: AllowMissingUpdate = False,
        validate_only: ValidateOnly = False,
    ) -> CourseResponse:
        """Change the fields that are sent; an empty value, or null, clears one. Lists and maps are replaced whole."""
        request = schemas.UpdateCourseRequest(
            name=COLLECTION + course_id,
            course=course,
            if_match=etag,
            allow_missing=allow_missing,
            request_id=request_id,
            validate_only=validate_only,
        )
        return _answer(services.update_course(database, request), response)

    @routes.delete(
        "/courses/{course_id}",
        response_model=CourseResponse,
        responses={
            204: {"description": "There was no such course, and allow_missing was set."},
            **_errors(on_404="COURSE_NOT_FOUND, also if it is deleted.", on_412=_MISMATCH, on_422=_INVALID),
        },
    )
    def delete_course(
        course_id: CourseIdPath,
        response: Response,
        request_id: RequestId,
        etag: Etag,
        allow_missing: AllowMissingDelete = False,
        validate_only: ValidateOnly = False,
    ) -> CourseResponse | Response:
        """Delete a course; for 30 days it can be undeleted."""
        request = schemas.DeleteCourseRequest(
            name=COLLECTION + course_id,
            etag=etag,
            allow_missing=allow_missing,
            request_id=request_id,
            validate_only=validate_only,
        )
        deleted = services.delete_course(database, request)
        return _answer(deleted, response) if deleted else Response(status_code=HTTPStatus.NO_CONTENT)

    def change(
        course_id: CourseIdPath,
        request_id: RequestId,
        etag: Etag,
        validate_only: ValidateOnly = False,
        body: Annotated[schemas.Change | None, Body(description="Instead of headers and query.")] = None,
    ) -> schemas.ChangeCourseRequest:
        body = body or schemas.Change()
        return schemas.ChangeCourseRequest(
            name=COLLECTION + course_id,
            etag=etag or body.etag,
            request_id=request_id or body.request_id,
            validate_only=validate_only or body.validate_only,
        )

    Change = Annotated[schemas.ChangeCourseRequest, Depends(change)]  # noqa: N806  # a type
    wrong_state = "INVALID_STATE_TRANSITION, with from and to."

    @routes.post(
        "/courses/{course_id}:undelete",
        responses=_errors(on_404="COURSE_NOT_FOUND.", on_409="COURSE_NOT_DELETED.", on_412=_MISMATCH, on_422=_INVALID),
    )
    def undelete_course(request: Change, response: Response) -> CourseResponse:
        """Bring a deleted course back, in the state that it was in."""
        return _answer(services.undelete_course(database, request), response)

    @routes.post(
        "/courses/{course_id}:publish",
        responses=_errors(on_400=wrong_state, on_404="COURSE_NOT_FOUND.", on_412=_MISMATCH, on_422=_INVALID),
    )
    def publish_course(request: Change, response: Response) -> CourseResponse:
        """Publish a course that is DRAFT or ARCHIVED."""
        return _answer(services.publish_course(database, request), response)

    @routes.post(
        "/courses/{course_id}:archive",
        responses=_errors(on_400=wrong_state, on_404="COURSE_NOT_FOUND.", on_412=_MISMATCH, on_422=_INVALID),
    )
    def archive_course(request: Change, response: Response) -> CourseResponse:
        """Archive a course that is PUBLISHED; it is read-only then."""
        return _answer(services.archive_course(database, request), response)

    return routes
