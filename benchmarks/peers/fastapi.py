"""FastAPI, SQLAlchemy's asyncio and asyncpg, as their tutorials have it: a session for each call, no retries.

`python -m benchmarks.peers.fastapi URL` serves it by HTTP until it is ended, and prints its port. Uvicorn is as the
service has it (h11 and asyncio's own loop), without its access log.
"""

import asyncio
import socket
import sys
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated

import uvicorn
from fastapi import Depends, FastAPI, HTTPException
from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import defer

from benchmarks.peers import THREADS
from benchmarks.peers.models import CourseRow
from course_service.course import State
from course_service.responses import CourseResponse, ListCoursesResponse


class NewCourse(BaseModel):
    """What a caller may set."""

    title: str
    code: str = ""
    description: str = ""
    owner: str = ""
    language_code: str = ""
    subjects: list[str] = []
    labels: dict[str, str] = {}


def application(url: str) -> FastAPI:
    """Make it over a database."""
    engine = create_async_engine(make_url(url).set(drivername="postgresql+asyncpg"), pool_size=THREADS, max_overflow=0)
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    app = FastAPI()

    async def new_session() -> AsyncIterator[AsyncSession]:
        async with sessions() as session:
            yield session

    with_session = Depends(new_session)

    @app.get("/courses/{course_id}")
    async def get_course(course_id: str, session: Annotated[AsyncSession, with_session]) -> CourseResponse:
        wanted = select(CourseRow).where(CourseRow.course_id == course_id).options(defer(CourseRow.search_text))
        row = await session.scalar(wanted)
        if row is None:
            raise HTTPException(HTTPStatus.NOT_FOUND, "no such course")
        return _response(row, row.description)

    @app.get("/courses")
    async def list_courses(
        session: Annotated[AsyncSession, with_session], page_size: int = 50
    ) -> ListCoursesResponse:  # the first page, and without descriptions, as the service has it
        oldest = select(CourseRow).order_by(CourseRow.create_time, CourseRow.course_id).limit(page_size + 1)
        found = await session.scalars(oldest.options(defer(CourseRow.search_text), defer(CourseRow.description)))
        rows = found.all()
        token = rows[page_size - 1].course_id if len(rows) > page_size else ""
        return ListCoursesResponse(courses=[_response(row, "") for row in rows[:page_size]], next_page_token=token)

    @app.post("/courses", status_code=HTTPStatus.CREATED)
    async def create_course(course: NewCourse, session: Annotated[AsyncSession, with_session]) -> CourseResponse:
        uid, now = str(uuid.uuid4()), datetime.now(UTC)
        row = CourseRow(
            **course.model_dump(),
            uid=uid,
            course_id=uid,
            external_ids={},
            state=State.DRAFT,
            create_time=now,
            update_time=now,
            revision=1,
            search_text=course.title.lower(),
        )
        session.add(row)
        await session.commit()
        return _response(row, row.description)

    return app


def _response(row: CourseRow, description: str) -> CourseResponse:
    return CourseResponse(
        name=f"courses/{row.course_id}",
        uid=row.uid,
        title=row.title,
        code=row.code,
        description=description,
        owner=row.owner,
        language_code=row.language_code,
        subjects=row.subjects,
        labels=row.labels,
        external_ids=row.external_ids,
        state=row.state,
        create_time=row.create_time,
        update_time=row.update_time,
        delete_time=row.delete_time,
        purge_time=row.purge_time,
        etag=f'"{row.revision}"',
    )


def main() -> None:
    """Serve."""
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listening:
        sys.stderr.write(f"HTTP on port {listening.getsockname()[1]}, serving\n")
        sys.stderr.flush()
        config = uvicorn.Config(application(sys.argv[1]), log_level="warning", access_log=False)
        asyncio.run(uvicorn.Server(config).serve([listening]))


if __name__ == "__main__":
    main()
