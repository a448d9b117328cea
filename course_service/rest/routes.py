"""The routes: each makes a request of what HTTP brings, calls its use case, and responds with the courses."""

from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Annotated, Any, get_origin

from fastapi import APIRouter, Body, Depends, Request, Response, params
from fastapi.dependencies.utils import get_flat_params
from fastapi.routing import APIRoute
from pydantic import BaseModel

from course_service import call, schemas, services
from course_service.course import Course
from course_service.guard.guard import Guard
from course_service.later import finished_in_loop
from course_service.responses import CourseResponse, CoursesResponse, ListCoursesResponse
from course_service.rest import openapi
from course_service.rest.body import StrictRequest, check_query
from course_service.rest.errors import HttpCredentials
from course_service.rest.openapi import responses
from course_service.rest.parameters import (
    IDEMPOTENCY_KEY,
    AllowMissingDelete,
    AllowMissingUpdate,
    CourseIdPath,
    Etag,
    Filter,
    Names,
    NewCourseId,
    OrderBy,
    PageSize,
    PageToken,
    RequestId,
    ShowDeleted,
    ValidateOnly,
    WantedView,
    agreed_etag,
    agreed_request_id,
    course_name,
)
from course_service.rest.places import Places
from course_service.schemas import View
from course_service.store.database import Database
from course_service.tokens import PageTokens
from course_service.validation import validated


def guarded_route(guard: Guard, places: Places) -> type[APIRoute]:
    """Make the class of routes that take a request through the guard before its body is read."""

    class GuardedRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()
            query = [field for field in get_flat_params(self.dependant) if isinstance(field.field_info, params.Query)]
            known = {field.alias for field in query}
            lists = {field.alias for field in query if get_origin(field.field_info.annotation) is list}
            method = self.name.title().replace("_", "")

            async def guarded(request: Request) -> Response:
                this_call = call.current()
                this_call.method = method
                this_call.deadline = min(this_call.deadline, this_call.arrived + call.most_seconds(method))
                this_call.note_request_id(request.headers.get(IDEMPOTENCY_KEY, ""))
                guard.enter(this_call, HttpCredentials(request.scope))
                places.check_room(this_call.caller)
                check_query(request, known, lists)
                strict = StrictRequest(request.scope, request.receive)
                if self.body_field:
                    await strict.read_json()
                async with places.place(strict):
                    return await handle(strict)

            return guarded

    return GuardedRoute


def make_routes(database: Database, tokens: PageTokens, guard: Guard, places: Places) -> APIRouter:  # noqa: C901  # as many routes as methods
    """Make the routes over a database."""
    routes = APIRouter(route_class=guarded_route(guard, places), tags=["courses"])
    of_any_create = (
        openapi.INVALID,
        openapi.MALFORMED,
        openapi.REUSED,
        openapi.TOO_LARGE,
        openapi.EXISTS,
        openapi.HELD,
        openapi.IN_USE,
    )

    @routes.post(
        "/courses",
        response_model=CourseResponse,
        status_code=HTTPStatus.CREATED,
        responses=responses(
            *of_any_create,
            success=HTTPStatus.CREATED,
            also=HTTPStatus.OK,
        ),
    )
    def create_course(
        course: Annotated[schemas.CourseCreate, Body(openapi_examples=openapi.CREATE_EXAMPLES)],
        request_id: RequestId,
        course_id: NewCourseId,
        validate_only: ValidateOnly = False,
    ) -> Response:
        """Create a course in state DRAFT; `Location` says where it is."""
        request = schemas.CreateCourseRequest(
            course=course, course_id=course_id, request_id=request_id, validate_only=validate_only
        )
        return _created(services.create_course(database, request), validate_only=validate_only)

    @routes.get(
        "/courses",
        response_model=ListCoursesResponse,
        responses=responses(*openapi.LIST_ERRORS, example=openapi.list_example()),
    )
    def list_courses(
        page_token: PageToken,
        filter: Filter,  # noqa: A002  # the contract's name
        order_by: OrderBy,
        page_size: PageSize = 0,
        show_deleted: ShowDeleted = False,
        view: WantedView = View.BASIC,
    ) -> Response:
        """Return courses a page at a time; as long as `next_page_token` is not empty, there are more."""
        request = schemas.ListCoursesRequest(
            page_size=page_size,
            page_token=page_token,
            filter=filter,
            order_by=order_by,
            show_deleted=show_deleted,
            view=view,
        )
        page = services.list_courses(database, tokens, request)
        return _json(ListCoursesResponse(courses=_responses(page.courses), next_page_token=page.next_page_token))

    @routes.get(
        "/courses:batchGet",
        response_model=CoursesResponse,
        responses=responses(
            openapi.INVALID, openapi.NOT_ALL_FOUND, openapi.RESPONSE_TOO_LARGE, example=openapi.courses_example()
        ),
    )
    def batch_get_courses(names: Names, view: WantedView = View.FULL) -> Response:
        """Return the courses of several names in the order asked, deleted ones too, all or none."""
        request = validated(schemas.BatchGetCoursesRequest, {"names": names, "view": view})
        return _json(CoursesResponse(courses=_responses(services.batch_get_courses(database, request))))

    @routes.post(
        "/courses:batchCreate",
        response_model=CoursesResponse,
        responses=responses(
            *of_any_create,
            example=openapi.courses_example(),
        ),
    )
    def batch_create_courses(
        batch: Annotated[schemas.BatchCreateCoursesRequest, Body(openapi_examples=openapi.BATCH_EXAMPLES)],
        request_id: RequestId,
        validate_only: ValidateOnly = False,
    ) -> Response:
        """Create up to 100 courses, all or none."""
        request = batch.model_copy(
            update={
                "request_id": agreed_request_id(request_id, batch.request_id),
                "validate_only": validate_only or batch.validate_only,
            }
        )
        return _json(CoursesResponse(courses=_responses(services.batch_create_courses(database, request))))

    @routes.get(
        "/courses/{course_id:course_id}",
        response_model=CourseResponse,
        responses=responses(openapi.NOT_FOUND, openapi.INVALID_ID),
    )
    async def get_course(course_id: CourseIdPath) -> Response:
        """Return a course, also if it is deleted."""
        return _response(await finished_in_loop(services.get_course(database, course_id)))

    @routes.patch(
        "/courses/{course_id:course_id}",
        response_model=CourseResponse,
        responses=responses(
            openapi.INVALID,
            openapi.MALFORMED,
            openapi.REUSED,
            openapi.TOO_LARGE,
            openapi.NOT_FOUND,
            openapi.ARCHIVED,
            openapi.DELETED,
            openapi.HELD,
            openapi.IN_USE,
            openapi.MISMATCH,
            also=HTTPStatus.CREATED,
        ),
    )
    def update_course(
        course_id: CourseIdPath,
        course: Annotated[schemas.CourseUpdate, Body(openapi_examples=openapi.UPDATE_EXAMPLES)],
        request_id: RequestId,
        etag: Etag,
        allow_missing: AllowMissingUpdate = False,
        validate_only: ValidateOnly = False,
    ) -> Response:
        """Change the fields that are sent; null, or an empty value, clears one. Lists and maps are replaced whole."""
        request = schemas.UpdateCourseRequest(
            name=course_name(course_id),
            course=course,
            if_match=agreed_etag(etag, course.etag or ""),
            allow_missing=allow_missing,
            request_id=request_id,
            validate_only=validate_only,
        )
        updated = services.update_course(database, request)
        if not updated.created:
            return _response(updated.course)
        return _created(updated.course, validate_only=validate_only)

    @routes.delete(
        "/courses/{course_id:course_id}",
        response_model=CourseResponse,
        responses={
            204: {"description": "There was no such course, and allow_missing was set."},
            **responses(openapi.INVALID_ID, openapi.REUSED, openapi.NOT_FOUND, openapi.MISMATCH),
        },
    )
    def delete_course(
        course_id: CourseIdPath,
        request_id: RequestId,
        etag: Etag,
        allow_missing: AllowMissingDelete = False,
        validate_only: ValidateOnly = False,
    ) -> Response:
        """Delete a course; for 30 days it can be undeleted."""
        request = schemas.DeleteCourseRequest(
            name=course_name(course_id),
            etag=etag,
            allow_missing=allow_missing,
            request_id=request_id,
            validate_only=validate_only,
        )
        deleted = services.delete_course(database, request)
        return _response(deleted) if deleted else Response(status_code=HTTPStatus.NO_CONTENT)

    def change(
        course_id: CourseIdPath,
        request_id: RequestId,
        etag: Etag,
        body: Annotated[
            schemas.Change, Body(default_factory=schemas.Change, description="Instead of headers and query.")
        ],
        validate_only: ValidateOnly = False,
    ) -> schemas.ChangeCourseRequest:
        return schemas.ChangeCourseRequest(
            name=course_name(course_id),
            etag=agreed_etag(etag, body.etag),
            request_id=agreed_request_id(request_id, body.request_id),
            validate_only=validate_only or body.validate_only,
        )

    Change = Annotated[schemas.ChangeCourseRequest, Depends(change)]  # noqa: N806  # a type
    of_any_change = (openapi.INVALID_ID, openapi.MALFORMED, openapi.REUSED, openapi.TOO_LARGE, openapi.NOT_FOUND)

    @routes.post(
        "/courses/{course_id:course_id}:undelete",
        response_model=CourseResponse,
        responses=responses(*of_any_change, openapi.NOT_DELETED, openapi.MISMATCH),
    )
    def undelete_course(request: Change) -> Response:
        """Bring a deleted course back, in the state that it was in."""
        return _response(services.undelete_course(database, request))

    @routes.post(
        "/courses/{course_id:course_id}:publish",
        response_model=CourseResponse,
        responses=responses(*of_any_change, openapi.NO_TRANSITION, openapi.MISMATCH),
    )
    def publish_course(request: Change) -> Response:
        """Publish a course that is DRAFT or ARCHIVED."""
        return _response(services.publish_course(database, request))

    @routes.post(
        "/courses/{course_id:course_id}:archive",
        response_model=CourseResponse,
        responses=responses(*of_any_change, openapi.NO_TRANSITION, openapi.MISMATCH),
    )
    def archive_course(request: Change) -> Response:
        """Archive a course that is PUBLISHED; it is read-only then."""
        return _response(services.archive_course(database, request))

    return routes


def _response(course: Course, status: HTTPStatus = HTTPStatus.OK, **headers: str) -> Response:
    return _json(CourseResponse.model_validate(course), status, ETag=course.etag, **headers)


def _created(course: Course, *, validate_only: bool) -> Response:
    if validate_only:  # nothing has been created
        return _response(course)
    return _response(course, HTTPStatus.CREATED, Location=f"/{course.name}")


def _responses(courses: list[Course]) -> list[CourseResponse]:
    return [CourseResponse.model_validate(course) for course in courses]


def _json(model: BaseModel, status: HTTPStatus = HTTPStatus.OK, **headers: str) -> Response:
    """Write a model. FastAPI would validate it once more, in a thread, which costs a tenth of a request."""
    return Response(model.model_dump_json(), status, headers, media_type="application/json")
