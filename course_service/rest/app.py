"""The HTTP application: the routes, with what goes for all of them."""

import contextlib
from collections.abc import AsyncIterator
from http import HTTPStatus

import anyio.to_thread
from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from course_service.paging import PageTokens
from course_service.rest.errors import MAX_BODY_BYTES, answer_errors
from course_service.rest.routes import make_routes
from course_service.store.database import Database


def make_app(database: Database, tokens: PageTokens, *, threads: int) -> FastAPI:
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
    app.include_router(make_routes(database, tokens))
    answer_errors(app)
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
