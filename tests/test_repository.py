"""The queries, and what the database itself refuses."""

import dataclasses
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from course_service.course import Course, State
from course_service.errors import CourseAlreadyExists
from course_service.filters import parse_filter
from course_service.paging import parse_order_by
from course_service.store.database import Database, Repositories

NOW = datetime(2026, 11, 23, 23, 59, 59, 999_999, tzinfo=UTC)
COURSE = Course(
    uid="01994a1c-0000-7000-8000-000000000000",
    course_id="bio-101",
    title="Biology",
    code="BIO 101",
    description="",
    owner="",
    language_code="",
    subjects=["b", "a"],
    labels={"b": "1", "a": "2"},
    external_ids={},
    state=State.DRAFT,
    create_time=NOW,
    update_time=NOW,
    delete_time=None,
    purge_time=None,
    state_before_delete=None,
    revision=1,
)


def add(database: Database, course: Course) -> None:
    database.write(lambda stored: stored.courses.add(course))


def test_a_course_comes_back_as_it_was_added(database: Database) -> None:
    add(database, COURSE)
    assert database.read(lambda courses: courses.get("bio-101")) == COURSE


def test_a_time_of_another_zone_comes_back_as_the_same_moment_in_utc(database: Database) -> None:
    local = NOW.astimezone(timezone(timedelta(hours=-7)))
    add(database, dataclasses.replace(COURSE, create_time=local, update_time=local))
    course = database.read(lambda courses: courses.get("bio-101"))
    assert course is not None
    assert course.create_time == NOW
    assert course.create_time.utcoffset() == timedelta(0)


def test_no_course_is_none(database: Database) -> None:
    assert database.read(lambda courses: courses.get("nope")) is None


def test_a_taken_id_is_told_but_not_to_the_try_that_took_it(database: Database) -> None:
    add(database, COURSE)
    add(database, COURSE)  # an answer to COMMIT was lost, and this is the second try
    other = dataclasses.replace(COURSE, uid="01994a1c-0000-7000-8000-000000000001")
    with pytest.raises(CourseAlreadyExists):
        add(database, other)


def test_work_that_raises_leaves_nothing(database: Database) -> None:
    def work(stored: Repositories) -> None:
        stored.courses.add(COURSE)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        database.write(work)
    assert database.read(lambda courses: courses.get("bio-101")) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"course_id": ""},
        {"title": ""},
        {"title": "é" * 751},
        {"code": "x" * 256},
        {"description": "x" * 30_001},
        {"owner": "x" * 256},
        {"language_code": "x" * 101},
        {"subjects": [""] * 21},
        {"subjects": {}},
        {"labels": []},
        {"update_time": NOW - timedelta(microseconds=1)},
        {"revision": 0},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_the_database_refuses_what_the_service_would(database: Database, changes: dict[str, Any]) -> None:
    with pytest.raises(IntegrityError, match=f"ck_courses_{next(iter(changes))}"):
        add(database, dataclasses.replace(COURSE, **changes))


def test_a_title_that_does_not_compress_is_stored_whole_and_found_and_sorted(database: Database) -> None:
    letters = random.Random(7)
    begin = "".join(chr(letters.randrange(0x20000, 0x2A6DF)) for _ in range(749))
    courses = [
        dataclasses.replace(COURSE, uid=COURSE.uid[:-1] + str(n), course_id=f"c{n}", title=begin + end)
        for n, end in enumerate("cab")
    ]
    database.write(lambda stored: stored.courses.add_all(courses))
    for descending in ("", " desc"):
        found: list[Course] = []
        while page := page_of(database, order_by="title" + descending, after=found[-1:]):
            found += page
        assert [course.title[-1] for course in found] == sorted("abc", reverse=bool(descending))
    for text in (f'title = "{begin}a"', f'title = "{begin[:700]}*" AND title:a', f"title = {begin}a"):
        assert [course.course_id for course in page_of(database, filter_text=text)] == ["c1"], text[:20]


def page_of(
    database: Database, filter_text: str = "", order_by: str = "", after: Sequence[Course] = ()
) -> list[Course]:
    """The one course that comes next."""
    orders = parse_order_by(order_by)
    place = tuple(getattr(after[0], order.field) for order in orders) if after else None
    return database.read(
        lambda courses: courses.page(parse_filter(filter_text), orders, place, limit=1, show_deleted=True, full=False)
    )


def test_each_limit_itself_is_stored(database: Database) -> None:
    course = dataclasses.replace(
        COURSE,
        course_id="a" * 63,
        title="𝕏" * 750,
        code="𝕏" * 255,
        description="𝕏" * 30_000,
        owner="x" * 255,
        language_code="x" * 100,
        subjects=[f"{number:03}" + "𝕏" * 97 for number in range(20)],
        labels={f"k{number}": "𝕏" * 63 for number in range(64)},
    )
    add(database, course)
    assert database.read(lambda courses: courses.get("a" * 63)) == course
