"""The use cases, as Python callers use them."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest

from course_service.course import State
from course_service.errors import CourseAlreadyExists, CourseNotFound, RequestInvalid
from course_service.schemas import CourseCreate, CreateCourseRequest
from course_service.services import create_course, get_course_by_id
from course_service.store.database import Database
from course_service.validation import validated


def request(course_id: str = "", **fields: object) -> CreateCourseRequest:
    return validated(CreateCourseRequest, {"course": {"title": "Biology", **fields}, "course_id": course_id})


def test_a_created_course_has_what_was_sent_and_what_the_service_gives(database: Database) -> None:
    before = datetime.now(UTC)
    course = create_course(
        database,
        request(
            code="BIO 101",
            description="Cells.\n\tAnd more.",
            owner="users/ann",
            language_code="pt-BR",
            subjects=["Biology", "Science"],
            labels={"level": "1"},
        ),
    )
    assert uuid.UUID(course.uid).version == 7
    assert course.course_id == course.uid
    assert course.name == f"courses/{course.uid}"
    assert (course.title, course.code, course.description) == ("Biology", "BIO 101", "Cells.\n\tAnd more.")
    assert (course.owner, course.language_code) == ("users/ann", "pt-BR")
    assert course.subjects == ["Biology", "Science"]
    assert course.labels == {"level": "1"}
    assert course.state is State.DRAFT
    assert before <= course.create_time == course.update_time <= datetime.now(UTC)
    assert course.create_time.utcoffset() == timedelta(0)


def test_a_created_course_is_read_back_equal(database: Database) -> None:
    course = create_course(database, request(subjects=["b", "a"], labels={"b": "", "a": "é"}))
    assert get_course_by_id(database, course.course_id) == course


def test_a_caller_may_choose_the_id(database: Database) -> None:
    course = create_course(database, request("bio-101"))
    assert course.name == "courses/bio-101"
    assert uuid.UUID(course.uid).version == 7
    assert get_course_by_id(database, "bio-101") == course


def test_a_taken_id_is_refused_and_the_first_course_stays(database: Database) -> None:
    first = create_course(database, request("bio-101"))
    with pytest.raises(CourseAlreadyExists) as caught:
        create_course(database, request("bio-101", title="Other"))
    assert caught.value.metadata == {"name": "courses/bio-101"}
    assert get_course_by_id(database, "bio-101") == first


def test_courses_of_one_title_are_different_courses_with_different_etags(database: Database) -> None:
    first, second = create_course(database, request()), create_course(database, request())
    assert first.uid != second.uid
    assert first.etag != second.etag


def test_an_unknown_id_is_not_found(database: Database) -> None:
    with pytest.raises(CourseNotFound) as caught:
        get_course_by_id(database, "nope")
    assert caught.value.resource_name == "courses/nope"


def test_a_course_without_a_title_cannot_be_asked_for() -> None:
    with pytest.raises(RequestInvalid) as caught:
        validated(CourseCreate, {"code": "BIO 101"})
    assert [(violation.field, violation.reason) for violation in caught.value.violations] == [
        ("title", "FIELD_REQUIRED")
    ]
