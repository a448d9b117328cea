"""Between protobuf messages and the service's own types."""

import dataclasses
from datetime import UTC, datetime

import pytest
from course.v1 import course_pb2

from course_service.course import State
from course_service.errors import RequestInvalid
from course_service.rpc import converters
from tests.test_repository import COURSE


def test_every_field_of_a_course_is_written() -> None:
    course = dataclasses.replace(
        COURSE,
        description="d",
        owner="users/a",
        language_code="en",
        external_ids={"sis": "A1"},
        delete_time=COURSE.create_time,
        purge_time=COURSE.create_time,
    )
    message = converters.course_message(course)
    assert {field.name for field, _ in message.ListFields()} == {
        field.name for field in course_pb2.Course.DESCRIPTOR.fields
    }
    assert message.name == "courses/bio-101"
    assert message.subjects == ["b", "a"]
    assert message.labels == {"a": "2", "b": "1"}
    assert message.etag == course.etag


@pytest.mark.parametrize(
    "time",
    [
        datetime(1969, 12, 31, 23, 59, 59, 1, tzinfo=UTC),
        datetime(2026, 11, 23, 12, 0, 0, 999_999, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    ],
)
def test_a_time_is_written_to_the_microsecond(time: datetime) -> None:
    message = converters.course_message(dataclasses.replace(COURSE, create_time=time))
    assert message.create_time.ToDatetime(UTC) == time


@pytest.mark.parametrize("state", State)
def test_every_state_is_written_by_its_name(state: State) -> None:
    message = converters.course_message(dataclasses.replace(COURSE, state=state))
    assert course_pb2.Course.State.Name(message.state) == state.value


def test_a_create_request_is_read_whole() -> None:
    message = course_pb2.CreateCourseRequest(
        course=course_pb2.Course(
            title="t", code="c", description="d", owner="users/o", language_code="en", subjects=["s"], labels={"l": "v"}
        ),
        course_id="bio-101",
    )
    request = converters.create_course_request(message)
    assert request.course_id == "bio-101"
    assert request.course.model_dump() == {
        "title": "t", "code": "c", "description": "d", "owner": "users/o", "language_code": "en", "subjects": ["s"],
        "labels": {"l": "v"}, "external_ids": {},
    }  # fmt: skip


def test_a_course_that_is_there_but_empty_lacks_its_title_only() -> None:
    with pytest.raises(RequestInvalid) as caught:
        converters.create_course_request(course_pb2.CreateCourseRequest(course=course_pb2.Course()))
    assert [violation.field for violation in caught.value.violations] == ["course.title"]
