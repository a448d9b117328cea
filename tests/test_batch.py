"""BatchGetCourses and BatchCreateCourses: all or none."""

from typing import Any

import pytest
from course.v1 import course_pb2

from tests.conftest import Service
from tests.support.calls import call, create, failed, names


def items(count: int, **others: dict[str, Any]) -> list[dict[str, Any]]:
    """Requests to create courses, some of them with other fields, by number."""
    return [
        {"course": {"title": f"Course {number}", **others.get(f"_{number}", {})}, "course_id": f"c{number:03}"}
        for number in range(count)
    ]


DIGITS = str.maketrans("0123456789", "abcdefghij")


def test_a_hundred_courses_are_created_in_order(service: Service) -> None:
    created = call(service, "BatchCreateCourses", requests=items(100)).courses
    assert [course.title for course in created] == [f"Course {number}" for number in range(100)]
    assert len({course.uid for course in created}) == 100
    read = call(service, "BatchGetCourses", names=[course.name for course in created]).courses
    assert list(read) == list(created)


def test_bad_items_are_addressed_and_nothing_is_stored(service: Service) -> None:
    requests = items(100, _7={"title": ""}, _42={"language_code": "english", "labels": {"X": ""}})
    failure = failed(service, "BatchCreateCourses", requests=requests)
    assert (failure.status, failure.reason) == ("INVALID_ARGUMENT", "REQUEST_INVALID")
    assert failure.violations == {
        "requests[7].course.title": "FIELD_REQUIRED",
        "requests[42].course.language_code": "FIELD_BAD_FORMAT",
        'requests[42].course.labels["X"]': "FIELD_BAD_FORMAT",
    }
    assert names(service) == []


def test_a_hundred_bad_items_are_counted(service: Service) -> None:
    requests = [{"course": {"title": ""}}] * 100
    failure = failed(service, "BatchCreateCourses", requests=requests)
    assert (failure.status, failure.metadata["violationCount"]) == ("INVALID_ARGUMENT", "100")
    assert len(failure.violations) == 25


def test_what_stands_in_the_way_of_items_is_addressed_and_nothing_is_stored(service: Service) -> None:
    create(service, "c003")
    call(service, "DeleteCourse", name=create(service, "c005").name)
    create(service, "other", external_ids={"sis": "1"})
    requests = items(10, _7={"external_ids": {"sis": "1"}})
    failure = failed(service, "BatchCreateCourses", requests=requests)
    assert failure.status == "ALREADY_EXISTS"
    assert failure.reason == "COURSE_ALREADY_EXISTS"
    assert failure.violations == {
        "requests[3].course_id": "COURSE_ALREADY_EXISTS",
        "requests[5].course_id": "COURSE_ID_HELD_BY_DELETED_COURSE",
        'requests[7].course.external_ids["sis"]': "EXTERNAL_ID_IN_USE",
    }
    assert sorted(names(service)) == ["c003", "other"]


def test_two_items_cannot_have_one_external_id_or_one_course_id(service: Service) -> None:
    requests = items(3, _0={"external_ids": {"sis": "1"}}, _1={"title": ""}, _2={"external_ids": {"sis": "1"}})
    requests.append({"course": {"title": "x"}, "course_id": "c001"})
    failure = failed(service, "BatchCreateCourses", requests=requests)
    assert (failure.status, failure.reason) == ("INVALID_ARGUMENT", "REQUEST_INVALID")
    assert failure.violations == {
        "requests[1].course.title": "FIELD_REQUIRED",
        'requests[2].course.external_ids["sis"]': "FIELD_DUPLICATE",
        "requests[3].course_id": "FIELD_DUPLICATE",
    }
    alone = failed(service, "BatchCreateCourses", requests=[items(1)[0], *items(1)])
    assert alone.message == "requests[1].course_id: must not repeat that of requests[0]"
    assert names(service) == []


@pytest.mark.parametrize("key", ["k", "k" * 32])
def test_details_of_any_conflict_stay_within_their_bounds(service: Service, key: str) -> None:
    everybodys = [{key: "𝕏" * 252 + f"{number:03}"} for number in range(100)]
    for external_ids in everybodys:
        create(service, external_ids=external_ids)
    single = failed(service, "CreateCourse", course={"title": "x", "external_ids": everybodys[0]})
    assert single.violations == {f'course.external_ids["{key}"]': "EXTERNAL_ID_IN_USE"}
    requests = [{"course": {"title": "x", "external_ids": external_ids}} for external_ids in everybodys]
    batch = failed(service, "BatchCreateCourses", requests=requests)
    assert batch.metadata["violationCount"] == "100"
    # A long message and room for all details: the first conflict is large, the others are many.
    for number in range(30):
        create(service, f"{number:03}".translate(DIGITS) + "x" * 57)
    taken = [{"course": {"title": "x"}, "course_id": f"{n:03}".translate(DIGITS) + "x" * 57} for n in range(30)]
    mixed = failed(service, "BatchCreateCourses", requests=[requests[0], *taken])
    assert mixed.metadata["violationCount"] == "31"
    for failure in (single, batch, mixed):
        assert failure.details_bytes <= 4096
        assert failure.wire_bytes < 8000


def test_the_number_of_items_is_bounded(service: Service) -> None:
    assert failed(service, "BatchCreateCourses").violations == {"requests": "FIELD_REQUIRED"}
    assert failed(service, "BatchCreateCourses", requests=items(101)).violations == {"requests": "FIELD_TOO_MANY_ITEMS"}
    assert failed(service, "BatchGetCourses").violations == {"names": "FIELD_REQUIRED"}
    many = [f"courses/c{number}" for number in range(101)]
    assert failed(service, "BatchGetCourses", names=many).violations == {"names": "FIELD_TOO_MANY_ITEMS"}


def test_items_have_no_request_id_of_their_own(service: Service) -> None:
    requests = [{"course": {"title": "x"}, "request_id": "y", "validate_only": True}]
    assert failed(service, "BatchCreateCourses", requests=requests).violations == {
        "requests[0].request_id": "FIELD_NOT_ALLOWED",
        "requests[0].validate_only": "FIELD_NOT_ALLOWED",
    }


def test_courses_come_in_the_order_asked_and_as_often(service: Service) -> None:
    for course_id in "abc":
        create(service, course_id, description="d")
    call(service, "DeleteCourse", name="courses/b")
    asked = [f"courses/{course_id}" for course_id in "cabacb"]
    full = call(service, "BatchGetCourses", names=asked).courses
    assert [course.name for course in full] == asked
    assert {course.description for course in full} == {"d"}
    assert full[2].state == course_pb2.Course.DELETED
    basic = call(service, "BatchGetCourses", names=asked, view=course_pb2.COURSE_VIEW_BASIC).courses
    assert [course.name for course in basic] == asked
    assert {course.description for course in basic} == {""}


def test_every_missing_name_is_told(service: Service) -> None:
    create(service, "a")
    asked = ["courses/x", "courses/a", "courses/y", "courses/x"]
    failure = failed(service, "BatchGetCourses", names=asked)
    assert (failure.status, failure.reason, failure.resource) == ("NOT_FOUND", "COURSE_NOT_FOUND", "courses/x")
    assert failure.metadata == {
        "missingCount": "3",
        "indexes": "0,2,3",
        "names": "courses/x,courses/y,courses/x",
    }
    assert failed(service, "BatchGetCourses", names=["courses/a", "b"]).violations == {"names[1]": "FIELD_BAD_FORMAT"}


def test_a_hundred_long_missing_names_still_arrive_as_not_found(service: Service) -> None:
    asked = [f"courses/{'x' * 60}{number:03}" for number in range(100)]
    failure = failed(service, "BatchGetCourses", names=asked)
    assert (failure.status, failure.metadata["missingCount"]) == ("NOT_FOUND", "100")
    assert failure.metadata["indexes"] == ",".join(map(str, range(100)))
    assert failure.details_bytes <= 4096


def test_more_than_an_answer_holds_is_refused_with_advice(service: Service) -> None:
    course = {"title": "x", "description": "𝕏" * 30_000}
    for start in range(0, 40, 8):
        ids = [f"c{start + number}" for number in range(8)]
        call(
            service,
            "BatchCreateCourses",
            requests=[{"course": course, "course_id": course_id} for course_id in ids],
        )
    asked = [f"courses/c{number}" for number in range(40)]
    failure = failed(service, "BatchGetCourses", names=asked)
    assert (failure.status, failure.reason) == ("RESOURCE_EXHAUSTED", "RESPONSE_TOO_LARGE")
    assert len(call(service, "BatchGetCourses", names=asked[:30]).courses) == 30
    assert len(call(service, "BatchGetCourses", names=asked, view=course_pb2.COURSE_VIEW_BASIC).courses) == 40


@pytest.mark.parametrize("name", ["courses/nope"])
def test_a_single_missing_name(service: Service, name: str) -> None:
    assert failed(service, "BatchGetCourses", names=[name]).metadata["names"] == name
