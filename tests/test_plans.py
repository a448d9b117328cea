"""How the databases carry out a list: by an index, without sorting and without reading every course."""

import dataclasses
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool

from course_service.course import State
from course_service.paging import ORDER_FIELDS
from course_service.schemas import ListCoursesRequest
from course_service.services import list_courses
from course_service.store.database import Database
from course_service.tokens import PageTokens
from tests.conftest import empty_database, migrate
from tests.test_repository import COURSE

TOKENS = PageTokens("a secret of the tests")


@pytest.fixture(scope="module")
def filled(
    backend: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Database]:
    """A database with 5,000 courses, 10 of them deleted and 2,000 archived, for all tests: they only ask."""
    with empty_database(backend, request, tmp_path_factory.mktemp("plans")) as url:
        migrate(url)
        database = Database(url, connections=2)
        fill(database, url)
        yield database
        database.close()


def fill(database: Database, url: URL, count: int = 5_000) -> None:
    courses = [
        dataclasses.replace(
            COURSE,
            uid=f"01994a1c-0000-7000-8000-{number:012}",
            course_id=f"c{number}",
            title=f"Course {number * 7 % 5003}",
            code=f"C {number % 100}",
            owner=f"users/{number % 500}",
            subjects=[f"s{number % 500}"],
            labels={"team": f"{number % 500}"},
            create_time=COURSE.create_time + timedelta(seconds=number),
            update_time=COURSE.update_time + timedelta(days=1),
            state=State.ARCHIVED if number % 5 < 2 else State.DRAFT,
        )
        for number in range(count)
    ]
    courses[3::500] = (course.deleted(course.update_time) for course in courses[3::500])
    database.write(lambda stored: stored.courses.add_all(courses))
    engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("ANALYZE"))


def plan(database: Database, request: ListCoursesRequest) -> str:
    """What the database says it does for a request's query."""
    asked: list[tuple[str, Any]] = []

    def note(_: object, __: object, statement: str, parameters: object, *___: object) -> None:
        asked.append((statement, parameters))

    event.listen(database._reader, "before_cursor_execute", note)
    try:
        list_courses(database, TOKENS, request)
    finally:
        event.remove(database._reader, "before_cursor_execute", note)
    (statement, parameters), *_ = asked
    with database._reader.connect() as connection:
        explain = "EXPLAIN QUERY PLAN " if connection.dialect.name == "sqlite" else "EXPLAIN "
        rows = connection.exec_driver_sql(explain + statement, parameters)
        return "\n".join(str(row[-1]) for row in rows)


@pytest.mark.parametrize("direction", ["", " desc"])
@pytest.mark.parametrize("field", ORDER_FIELDS)
def test_every_order_is_served_by_its_index_on_every_page(
    filled: Database, backend: str, field: str, direction: str
) -> None:
    first = ListCoursesRequest(order_by=field + direction)
    page = list_courses(filled, TOKENS, first)
    for request in (first, first.model_copy(update={"page_token": page.next_page_token})):
        steps = plan(filled, request)
        assert f"ix_courses_{field}" in steps
        if field == "title" and backend == "postgresql":
            assert "Presorted Key: (substr(title, 1, 600))" in steps
        else:
            assert "Sort" not in steps
        assert "B-TREE" not in steps  # SQLite's word for sorting
        assert "Seq Scan" not in steps


@pytest.mark.parametrize(
    ("filter_text", "index"),
    [
        ("name = courses/c7", "course_id"),
        ("code = 'C 7'", "ix_courses_code"),
        ("title = 'Course 7'", "ix_courses_title"),
        ("owner = users/7", "ix_courses_owner"),
        ("external_ids.sis = A1", "course_external_ids"),
        ("subjects:s7", "ix_courses_subjects"),
        ("labels.team = 7", "ix_courses_labels"),
    ],
)
def test_a_filter_that_selects_few_is_served_by_an_index(
    filled: Database, backend: str, filter_text: str, index: str
) -> None:
    steps = plan(filled, ListCoursesRequest(filter=filter_text))
    if backend == "sqlite" and index in {"ix_courses_subjects", "ix_courses_labels"}:
        index = "ix_courses_create_time"  # SQLite has no index on the inside of JSON: it walks in the list's order
    assert index in steps
    assert "Seq Scan on courses" not in steps


@pytest.mark.parametrize("direction", ["", " desc"])
@pytest.mark.parametrize("field", ORDER_FIELDS)
def test_a_state_that_few_courses_have_is_served_by_its_index(
    filled: Database, backend: str, field: str, direction: str
) -> None:
    request = ListCoursesRequest(filter="state = DELETED", order_by=field + direction, show_deleted=True, page_size=4)
    page = list_courses(filled, TOKENS, request)
    assert len(page.courses) == 4
    # SQLite has no such index: it walks in the list's order.
    assert ("ix_courses_rare_state" if backend == "postgresql" else f"ix_courses_{field}") in plan(filled, request)
    further = plan(filled, request.model_copy(update={"page_token": page.next_page_token}))
    assert "B-TREE" not in further
    assert "Seq Scan" not in further


@pytest.mark.parametrize("direction", ["", " desc"])
@pytest.mark.parametrize("field", ORDER_FIELDS)
def test_a_state_that_many_courses_have_is_not_sorted_for(filled: Database, field: str, direction: str) -> None:
    steps = plan(filled, ListCoursesRequest(filter="state = ARCHIVED", order_by=field + direction))
    assert "Sort" not in steps or "Presorted Key: (substr(title, 1, 600))" in steps
    assert "B-TREE" not in steps
    assert "Seq Scan" not in steps
