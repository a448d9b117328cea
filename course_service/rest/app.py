"""The HTTP application: the routes, with what goes for all of them."""

import contextlib
from collections.abc import AsyncIterator

import anyio.to_thread
from fastapi import FastAPI
from fastapi.responses import RedirectResponse
from fastapi_offline import FastAPIOffline
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.types import ASGIApp, Receive, Scope, Send

from course_service.call import UNKNOWN_METHOD, Call
from course_service.guard.guard import Guard
from course_service.rest.errors import METHOD, map_errors
from course_service.rest.openapi import operation_id, restore_nulls
from course_service.rest.routes import make_routes
from course_service.store.database import Database
from course_service.tokens import PageTokens


class _CourseIdConvertor(StringConvertor):
    """A part of a path without a colon: what follows one is the name of a custom method, such as `:publish`."""

    regex = "[^/:]+"


register_url_convertor("course_id", _CourseIdConvertor())


def make_app(database: Database, tokens: PageTokens, guard: Guard, *, threads: int) -> ASGIApp:
    """Make the application over a database; it works on `threads` requests at once."""
    return _Guarded(make_api(database, tokens, guard, threads=threads), guard)


def make_api(database: Database, tokens: PageTokens, guard: Guard, *, threads: int) -> FastAPI:
    """Make the routes, their errors and their documentation."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = threads
        yield

    api: FastAPI = FastAPIOffline(
        title="Course service",
        version="1",
        description="Owns the courses of the education platform. The same as gRPC's course.v1.CourseService.",
        redoc_url=None,
        lifespan=lifespan,
        generate_unique_id_function=operation_id,
    )

    @api.get("/", include_in_schema=False)
    def documentation() -> RedirectResponse:
        """Lead a person to the documentation."""
        return RedirectResponse("/docs")

    api.include_router(make_routes(database, tokens, guard))
    map_errors(api, guard)
    generate = api.openapi
    api.openapi = lambda: restore_nulls(generate())  # type: ignore[method-assign]  # FastAPI's documented way
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
        with self._guard.observed(call), contextlib.suppress(Exception):  # which has been reported and responded to
            await self._api(inner, receive, send)
            if call.method == UNKNOWN_METHOD and call.code == "OK":
                call.method = "http/documentation"
