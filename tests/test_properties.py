"""Whatever text callers send is stored exactly or refused, on both databases."""

import grpc
import pytest
from course.v1 import course_pb2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from course_service import course as limits
from course_service.errors import RequestInvalid
from course_service.schemas import CreateCourseRequest
from course_service.services import create_course, get_course_by_id
from course_service.store.database import Database
from course_service.validation import validated
from tests.conftest import Service

# One database serves all examples: each makes courses of its own.
on_one_database = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))

lines = st.text(st.characters(exclude_categories=["Cc", "Cs"]))
texts = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("\n\r\t")).filter(
    lambda text: not set(text) - {"\n", "\r", "\t"} & set(map(chr, [*range(32), *range(127, 160)]))
)
valid_courses = st.fixed_dictionaries(
    {
        "title": lines.map(lambda text: text[: limits.TITLE_MAX_LENGTH].strip()).filter(
            lambda text: any(character.isalnum() for character in text)
        )
    },
    optional={
        "code": lines.map(lambda text: text[: limits.CODE_MAX_LENGTH]),
        "description": texts,
        "owner": st.from_regex(r"users/[a-z0-9@.]{1,200}", fullmatch=True),
        "language_code": st.sampled_from(["en", "pt-BR", "zh-Hant-TW", "es-419"]),
        "subjects": st.lists(
            lines.map(lambda text: text[: limits.SUBJECT_MAX_LENGTH]).filter(bool),
            max_size=limits.SUBJECTS_MAX_ITEMS,
            unique=True,
        ),
        "labels": st.dictionaries(
            st.from_regex(r"[a-z][a-z0-9_-]{0,62}", fullmatch=True),
            lines.map(lambda text: text[: limits.LABEL_VALUE_MAX_LENGTH]),
            max_size=8,
        ),
    },
)


@on_one_database
@given(fields=valid_courses)
def test_any_valid_course_comes_back_byte_for_byte(database: Database, fields: dict[str, object]) -> None:
    created = create_course(database, validated(CreateCourseRequest, {"course": fields}))
    read = get_course_by_id(database, created.course_id)
    assert read == created
    assert {field: getattr(read, field) for field in fields} == fields


@on_one_database
@given(text=st.text(max_size=800), field=st.sampled_from(["title", "code", "description", "subjects", "labels"]))
def test_any_text_is_stored_exactly_or_refused(database: Database, text: str, field: str) -> None:
    value = {"subjects": [text], "labels": {"key": text}}.get(field, text)
    try:
        request = validated(CreateCourseRequest, {"course": {"title": "t", field: value}})
    except RequestInvalid as error:
        assert {violation.field.partition("[")[0] for violation in error.violations} == {f"course.{field}"}  # noqa: PT017  # either outcome is right
    else:
        created = create_course(database, request)
        assert getattr(get_course_by_id(database, created.course_id), field) == value


@on_one_database
@given(message=st.binary(max_size=200) | st.builds(
    lambda title: course_pb2.CreateCourseRequest(course=course_pb2.Course(title=title)).SerializeToString() + b"\x1a",
    lines,
))  # fmt: skip
def test_any_bytes_are_a_course_or_an_invalid_argument(service: Service, message: bytes) -> None:
    call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = service.channel.unary_unary(
        "/course.v1.CourseService/CreateCourse"
    )
    try:
        course_pb2.Course.FromString(call(message))
    except grpc.RpcError as error:
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT  # noqa: PT017  # either outcome is right


@pytest.mark.parametrize("title", ["\u0645\u0627\u062f\u0629", "e\u0301", "\u00e9", "\u202eabc", "\U0010ffff"])
def test_text_is_not_normalised(database: Database, title: str) -> None:
    created = create_course(database, validated(CreateCourseRequest, {"course": {"title": title}}))
    assert get_course_by_id(database, created.course_id).title == title
