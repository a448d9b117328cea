"""The HTTP application: the routes, with what goes for all of them."""

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator
from http import HTTPStatus

import anyio.to_thread
from fastapi import FastAPI
from fastapi.responses import RedirectResponse, Response
from fastapi_offline import FastAPIOffline
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from course_service.call import DOCUMENTATION, PROBE, Call
from course_service.guard.guard import Guard
from course_service.health import Health
from course_service.rest.body import check_headers
from course_service.rest.errors import METHOD, HttpCredentials, error_response, map_errors
from course_service.rest.openapi import operation_id, restore_nulls
from course_service.rest.places import Places
from course_service.rest.protocol import CONNECTED
from course_service.rest.routes import make_routes
from course_service.store.database import Database
from course_service.tokens import PageTokens


class _CourseIdConvertor(StringConvertor):
    """A part of a path without a colon: what follows one is the name of a custom method, such as `:publish`."""

    regex = "[^/:]+"


_PROBES = {"/livez", "/readyz"}

register_url_convertor("course_id", _CourseIdConvertor())


def make_app(
    database: Database,
    tokens: PageTokens,
    health: Health,
    guard: Guard,
    places: Places,
    *,
    max_connection_age_seconds: float = float("inf"),
) -> ASGIApp:
    """Make the application over a database."""
    return _Guarded(make_api(database, tokens, health, guard, places), guard, max_connection_age_seconds)


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

    def __init__(self, api: ASGIApp, guard: Guard, max_connection_age_seconds: float) -> None:
        self._api = api
        self._guard = guard
        self._max_age = max_connection_age_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._api(scope, receive, send)
            return
        # HEAD is GET without the body, which the server leaves out.
        inner = {**scope, "method": "GET" if scope["method"] == "HEAD" else scope["method"], METHOD: scope["method"]}
        call = Call(face="http")
        if self._is_old(scope):
            send = _closing(send)
        credentials = HttpCredentials(scope)
        with self._guard.observed(call, credentials):
            try:
                check_headers(scope["headers"])
                self._enter(call, scope, credentials)
            except Exception as error:
                response = error_response(self._guard.failed(call, error), {"Connection": "close"})
                await response(scope, receive, send)
                return
            with contextlib.suppress(Exception):  # which has been reported and responded to
                await self._api(inner, receive, send)

    def _enter(self, call: Call, scope: Scope, credentials: HttpCredentials) -> None:
        """Let in who wants the documentation. Courses have routes that do that, and probes are for everybody."""
        if scope["path"] in _PROBES:
            call.method = PROBE
        elif not scope["path"].startswith("/courses"):
            call.method = DOCUMENTATION
            self._guard.enter(call, credentials)

    def _is_old(self, scope: Scope) -> bool:
        connected: float = scope.get("state", {}).get(CONNECTED, float("inf"))
        return asyncio.get_running_loop().time() - connected > self._max_age


def _closing(send: Send) -> Send:
    """Have the connection end after the response, so that its caller shows anew who it is."""

    async def send_last(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
        await send(message)

    return send_last
