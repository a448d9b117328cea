"""The HTTP application: the routes, with what goes for all of them."""

import contextlib
import functools
from collections.abc import AsyncIterator
from http import HTTPStatus

import anyio.to_thread
from fastapi import FastAPI
from fastapi.responses import RedirectResponse, Response
from fastapi_offline import FastAPIOffline
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from course_service.call import UNKNOWN_METHOD, Call
from course_service.errors import CourseError
from course_service.guard.guard import Guard
from course_service.guard.steps import Credentials
from course_service.health import Health
from course_service.rest.body import check_headers
from course_service.rest.errors import METHOD, error_response, map_errors
from course_service.rest.openapi import operation_id, restore_nulls
from course_service.rest.places import Places
from course_service.rest.routes import make_routes
from course_service.store.database import Database
from course_service.tokens import PageTokens


class _CourseIdConvertor(StringConvertor):
    """A part of a path without a colon: what follows one is the name of a custom method, such as `:publish`."""

    regex = "[^/:]+"


register_url_convertor("course_id", _CourseIdConvertor())


def make_app(database: Database, tokens: PageTokens, health: Health, guard: Guard, places: Places) -> ASGIApp:
    """Make the application over a database."""
    return _Guarded(make_api(database, tokens, health, guard, places), guard)


def make_api(database: Database, tokens: PageTokens, health: Health, guard: Guard, places: Places) -> FastAPI:
    """Make the routes, their errors and their documentation."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # So that what has a place has a thread, and the documentation's files too.
        anyio.to_thread.current_default_thread_limiter().total_tokens = places.number + 1
        yield

    api: FastAPI = FastAPIOffline(
        title="Course service",
        version="1",
        description="Owns the courses of the education platform. The same as gRPC's course.v1.CourseService.",
        redoc_url=None,
        redirect_slashes=False,  # a path with one more slash is another path
        lifespan=lifespan,
        generate_unique_id_function=operation_id,
        # The service makes its spans itself; FastAPI's would have the query, and texts of exceptions.
        telemetry={
            "tracing": False,
            "metrics": False,
            "logs": False,
            "operation_spans": False,
            "auto_configure": False,
        },
    )

    @api.get("/", include_in_schema=False)
    def documentation() -> RedirectResponse:
        """Lead a person to the documentation."""
        return RedirectResponse("/docs")

    @api.get("/livez", include_in_schema=False)
    async def livez() -> Response:
        """Respond, as long as the process does."""
        return Response("alive\n", media_type="text/plain")

    @api.get("/readyz", include_in_schema=False)
    async def readyz() -> Response:
        """Say whether the process can do its work: whether the database can be used and written to."""
        if health.is_ready:
            return Response("ready\n", media_type="text/plain")
        return Response("not ready\n", HTTPStatus.SERVICE_UNAVAILABLE, media_type="text/plain")

    api.include_router(make_routes(database, tokens, guard, places))
    map_errors(api, guard)
    generate = api.openapi
    api.openapi = functools.cache(lambda: restore_nulls(generate()))  # type: ignore[method-assign]  # FastAPI's documented way
    return api


class _Guarded:
    """Everything that comes in by HTTP begins and ends here; the route takes it through the guard's other steps."""

    def __init__(self, api: ASGIApp, guard: Guard) -> None:
        self._api = api
        self._guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._api(scope, receive, send)
            return
        # HEAD is GET without the body, which the server leaves out.
        inner = {**scope, "method": "GET" if scope["method"] == "HEAD" else scope["method"], METHOD: scope["method"]}
        call = Call(face="http")
        credentials = Credentials(Headers(scope=scope).items)
        with (
            self._guard.observed(call, credentials),
            contextlib.suppress(Exception),
        ):  # which has been reported and responded to
            try:
                check_headers(scope["headers"])
            except CourseError as error:
                response = error_response(self._guard.failed(call, error), {"Connection": "close"})
                await response(scope, receive, send)
                return
            await self._api(inner, receive, send)
            if call.method == UNKNOWN_METHOD and call.code == "OK":
                call.method = "http/documentation"
