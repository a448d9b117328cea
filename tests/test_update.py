"""UpdateCourse: masks, etags, and what an update leaves alone."""

from typing import Any

import pytest
from course.v1 import course_pb2

from tests.conftest import Service
from tests.support.calls import call, create, failed, get

WHOLE: dict[str, Any] = {
    "title": "Biology",
    "code": "BIO 101",
    "description": "Cells.",
    "owner": "users/ann",
    "language_code": "en",
    "subjects": ["a", "b"],
    "labels": {"x": "1", "y": "2"},
    "external_ids": {"sis": "A1"},
}
READ_ONLY = {"name", "uid", "state", "create_time"}


def update(service: Service, paths: list[str] | None = None, **fields: Any) -> course_pb2.Course:
    mask = {} if paths is None else {"update_mask": {"paths": paths}}
    course: course_pb2.Course = call(service, "UpdateCourse", course={"name": "courses/bio", **fields}, **mask)
    return course


def changed(before: course_pb2.Course, after: course_pb2.Course) -> set[str]:
    fields = course_pb2.Course.DESCRIPTOR.fields
    return {field.name for field in fields if getattr(before, field.name) != getattr(after, field.name)}


@pytest.fixture
def course(service: Service) -> course_pb2.Course:
    return create(service, "bio", **WHOLE)


def test_a_mask_of_the_title_changes_the_title_only(service: Service, course: course_pb2.Course) -> None:
    after = update(service, ["title"], title="Botany", code="", description="ignored")
    assert after.title == "Botany"
    assert changed(course, after) == {"title", "etag", "update_time"}
    assert get(service, "courses/bio") == after


def test_without_a_mask_populated_fields_change(service: Service, course: course_pb2.Course) -> None:
    after = update(service, description="Plants.")
    assert changed(course, after) == {"description", "etag", "update_time"}
    assert after.title == "Biology"


@pytest.mark.parametrize("field", sorted(set(WHOLE) - {"title"}))
def test_an_empty_value_under_a_named_path_clears(service: Service, course: course_pb2.Course, field: str) -> None:
    after = update(service, [field])
    assert not getattr(after, field)
    assert changed(course, after) == {field, "etag", "update_time"}


def test_the_title_cannot_be_cleared(service: Service, course: course_pb2.Course) -> None:
    failure = failed(service, "UpdateCourse", course={"name": "courses/bio"}, update_mask={"paths": ["title"]})
    assert failure.violations == {"course.title": "FIELD_REQUIRED"}
    assert get(service, "courses/bio") == course


def test_a_star_replaces_every_mutable_field(service: Service, course: course_pb2.Course) -> None:
    after = update(service, ["*"], title="Botany", labels={"z": "3"})
    assert (after.title, dict(after.labels), list(after.subjects), after.code) == ("Botany", {"z": "3"}, [], "")
    assert after.description == after.owner == after.language_code == ""
    assert not after.external_ids
    assert not changed(course, after) & READ_ONLY


def test_a_bad_mask_hides_no_other_mistake_and_says_one_cause(service: Service) -> None:
    for paths, description in {
        ("titel",): "must name fields of a course; titel is none",
        ("*", "title"): "must have * alone, or no *",
    }.items():
        course = {"name": "courses/bio", "title": "x"}
        alone = failed(service, "UpdateCourse", course=course, update_mask={"paths": paths})
        assert (alone.reason, alone.violations) == ("FIELD_MASK_INVALID", {"update_mask": "FIELD_MASK_INVALID"})
        assert alone.message == f"update_mask: {description}"
        failure = failed(service, "UpdateCourse", course={"name": "x", "title": " "}, update_mask={"paths": paths})
        assert failure.reason == "REQUEST_INVALID"
        assert failure.violations == {
            "course.name": "FIELD_BAD_FORMAT",
            "course.title": "FIELD_BLANK",
            "update_mask": "FIELD_MASK_INVALID",
        }


@pytest.mark.parametrize("paths", [["titel"], ["labels.x"], ["subjects[0]"], ["*", "title"], ["title", "nope"], [""]])
def test_an_unknown_path_is_refused(service: Service, course: course_pb2.Course, paths: list[str]) -> None:
    failure = failed(
        service, "UpdateCourse", course={"name": "courses/bio", "title": "x"}, update_mask={"paths": paths}
    )
    assert (failure.status, failure.reason) == ("INVALID_ARGUMENT", "FIELD_MASK_INVALID")
    assert get(service, "courses/bio") == course


def test_output_only_fields_in_a_mask_are_ignored(service: Service, course: course_pb2.Course) -> None:
    after = update(service, ["state", "uid", "create_time", "title"], title="Botany", state=2, uid="x")
    assert changed(course, after) == {"title", "etag", "update_time"}
    assert update(service, ["state"], state=3) == after


def test_lists_and_maps_are_replaced_not_merged(service: Service, course: course_pb2.Course) -> None:
    after = update(service, subjects=["c"], labels={"y": "9"}, external_ids={"canvas": "7"})
    assert (list(after.subjects), dict(after.labels)) == (["c"], {"y": "9"})
    assert after.external_ids == {"canvas": "7"}


def test_an_update_that_changes_nothing_keeps_etag_and_update_time(service: Service, course: course_pb2.Course) -> None:
    assert update(service, ["*"], **WHOLE) == course
    assert update(service) == course


def test_every_mistake_of_an_update_is_told_at_once(service: Service, course: course_pb2.Course) -> None:
    failure = failed(service, "UpdateCourse", course={"name": "x", "title": " ", "language_code": "EN"}, request_id="x")
    assert failure.violations == {
        "course.name": "FIELD_BAD_FORMAT",
        "course.title": "FIELD_BLANK",
        "course.language_code": "FIELD_BAD_FORMAT",
        "request_id": "FIELD_BAD_FORMAT",
    }


def test_a_missing_course_is_not_found_or_created(service: Service) -> None:
    assert failed(service, "UpdateCourse", course={"name": "courses/bio", "title": "x"}).reason == "COURSE_NOT_FOUND"
    created = call(
        service,
        "UpdateCourse",
        course={"name": "courses/bio", "title": "Biology", "code": "B"},
        update_mask={"paths": ["code"]},
        allow_missing=True,
    )
    assert (created.name, created.title, created.code) == ("courses/bio", "Biology", "B")
    assert created.state == course_pb2.Course.DRAFT
    failure = failed(service, "UpdateCourse", course={"name": "courses/other"}, allow_missing=True)
    assert failure.violations == {"course.title": "FIELD_REQUIRED"}
    failure = failed(
        service, "UpdateCourse", course={"name": f"courses/{created.uid}", "title": "x"}, allow_missing=True
    )
    assert failure.violations == {"course.name": "FIELD_BAD_FORMAT"}
    failure = failed(
        service, "UpdateCourse", course={"name": "courses/third", "title": "x", "etag": "*"}, allow_missing=True
    )
    assert failure.reason == "ETAG_MISMATCH"


def test_a_stale_etag_is_refused_and_the_current_one_is_not(service: Service, course: course_pb2.Course) -> None:
    after = update(service, title="Botany", etag=course.etag)
    failure = failed(service, "UpdateCourse", course={"name": "courses/bio", "title": "Z", "etag": course.etag})
    assert (failure.status, failure.reason) == ("ABORTED", "ETAG_MISMATCH")
    assert failure.resource == "courses/bio"
    assert update(service, title="Zoology", etag=after.etag).title == "Zoology"


def test_archived_and_deleted_courses_are_read_only(service: Service, course: course_pb2.Course) -> None:
    call(service, "PublishCourse", name=course.name)
    call(service, "ArchiveCourse", name=course.name)
    failure = failed(service, "UpdateCourse", course={"name": course.name, "title": "x"})
    assert (failure.status, failure.reason) == ("FAILED_PRECONDITION", "COURSE_ARCHIVED")
    call(service, "DeleteCourse", name=course.name)
    failure = failed(service, "UpdateCourse", course={"name": course.name, "title": "x"})
    assert (failure.status, failure.reason) == ("FAILED_PRECONDITION", "COURSE_DELETED")
