"""What each field may hold: each rule at its limit and one beyond."""

import re

import pytest

from course_service.errors import RequestInvalid
from course_service.schemas import CourseCreate, CreateCourseRequest, GetCourseRequest
from course_service.validation import validated

UUID = "01994a1c-0000-7000-8000-000000000000"


def reasons(**fields: object) -> dict[str, str]:
    """Reason by field of what is wrong with a course of these fields."""
    try:
        validated(CourseCreate, {"title": "Biology", **fields})
    except RequestInvalid as error:
        return {violation.field: violation.reason for violation in error.violations}
    return {}


@pytest.mark.parametrize(
    "title",
    ["x", "é" * 750, "𝕏" * 750, "a  b", "\u202eabc", "e\u0301", "\u200bx", "'; DROP TABLE courses; --", "null",
     "%s %(x)s :x {}", "\uffff\U0010ffff", "İßſ", "👩‍👩‍👧", "a\u0301" * 300, "line\u2028separator"],
)  # fmt: skip
def test_a_title_that_keeps_the_rules_is_taken_as_it_is(title: str) -> None:
    assert validated(CourseCreate, {"title": title}).title == title


@pytest.mark.parametrize(
    ("title", "reason"),
    [
        ("", "FIELD_REQUIRED"),
        (None, "FIELD_REQUIRED"),
        ("é" * 751, "FIELD_TOO_LONG"),
        ("   ", "FIELD_BLANK"),
        ("\u200b\ufeff", "FIELD_BLANK"),
        ("\u3000", "FIELD_BLANK"),
        (" x", "FIELD_NOT_TRIMMED"),
        ("x\u00a0", "FIELD_NOT_TRIMMED"),
        ("\x00x", "FIELD_BAD_CHARACTER"),
        ("x\x00y", "FIELD_BAD_CHARACTER"),
        ("x\x00", "FIELD_BAD_CHARACTER"),
        ("x\ny", "FIELD_BAD_CHARACTER"),
        ("x\x1by", "FIELD_BAD_CHARACTER"),
        ("x\x85y", "FIELD_BAD_CHARACTER"),
        ("x\ud800", "FIELD_BAD_CHARACTER"),
        (3, "FIELD_WRONG_TYPE"),
        (["x"], "FIELD_WRONG_TYPE"),
    ],
)
def test_a_title_that_breaks_a_rule_is_refused(title: object, reason: str) -> None:
    assert reasons(title=title) == {"title": reason}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("code", "x" * 255),
        ("code", " padded "),
        ("description", "𝕏" * 30_000),
        ("description", "a\r\n\tb "),
        ("owner", "users/ann@example.edu"),
        ("owner", "users/" + "x" * 249),
        ("language_code", "en"),
        ("language_code", "zh-Hant-TW"),
        ("language_code", "es-419"),
        ("subjects", [str(number) for number in range(20)]),
        ("subjects", ["x" * 100]),
        ("labels", {f"k{number}": "" for number in range(64)}),
        ("labels", {"a" + "-_9z" * 15 + "zz": "é" * 63}),
    ],
)
def test_an_optional_field_is_taken_up_to_its_limit(field: str, value: object) -> None:
    assert getattr(validated(CourseCreate, {"title": "Biology", field: value}), field) == value


@pytest.mark.parametrize(
    ("field", "value", "violations"),
    [
        ("code", "x" * 256, {"code": "FIELD_TOO_LONG"}),
        ("code", "a\tb", {"code": "FIELD_BAD_CHARACTER"}),
        ("description", "x" * 30_001, {"description": "FIELD_TOO_LONG"}),
        ("description", "a\x0bb", {"description": "FIELD_BAD_CHARACTER"}),
        ("description", "a\x00b", {"description": "FIELD_BAD_CHARACTER"}),
        ("owner", "users/" + "x" * 250, {"owner": "FIELD_TOO_LONG"}),
        ("owner", "ann", {"owner": "FIELD_BAD_FORMAT"}),
        ("owner", "users/a/b", {"owner": "FIELD_BAD_FORMAT"}),
        ("owner", "users/ann\n", {"owner": "FIELD_BAD_FORMAT"}),
        ("language_code", "english", {"language_code": "FIELD_BAD_FORMAT"}),
        ("language_code", "en\x00", {"language_code": "FIELD_BAD_FORMAT"}),
        ("language_code", "en-" + "x" * 98, {"language_code": "FIELD_TOO_LONG"}),
        ("subjects", [str(number) for number in range(21)], {"subjects": "FIELD_TOO_MANY_ITEMS"}),
        ("subjects", ["x" * 101], {"subjects[0]": "FIELD_TOO_LONG"}),
        ("subjects", ["a", "", "a"], {"subjects[1]": "FIELD_REQUIRED", "subjects[2]": "FIELD_DUPLICATE"}),
        ("subjects", "abc", {"subjects": "FIELD_WRONG_TYPE"}),
        ("labels", {f"k{number}": "" for number in range(65)}, {"labels": "FIELD_TOO_MANY_ITEMS"}),
        ("labels", {'Bad "key"': "v"}, {'labels["Bad \\"key\\""]': "FIELD_BAD_FORMAT"}),
        ("labels", {"": "v"}, {'labels[""]': "FIELD_BAD_FORMAT"}),
        ("labels", {"a" * 64: "v"}, {f'labels["{"a" * 64}"]': "FIELD_BAD_FORMAT"}),
        ("labels", {"ok": "v" * 64}, {'labels["ok"]': "FIELD_TOO_LONG"}),
        ("labels", {"ok": "\x00"}, {'labels["ok"]': "FIELD_BAD_CHARACTER"}),
        ("titel", "x", {"titel": "FIELD_UNKNOWN"}),
    ],
)  # fmt: skip
def test_an_optional_field_beyond_its_limit_is_refused(field: str, value: object, violations: dict[str, str]) -> None:
    assert reasons(**{field: value}) == violations


@pytest.mark.parametrize(
    ("tag", "canonical"), [("EN", "en"), ("en-us", "en-US"), ("pt_BR", "pt-BR"), ("eng", "en"), ("iw", "he")]
)
def test_another_form_of_a_language_is_refused_with_the_canonical_one(tag: str, canonical: str) -> None:
    with pytest.raises(RequestInvalid) as caught:
        validated(CourseCreate, {"title": "Biology", "language_code": tag})
    (violation,) = caught.value.violations
    assert re.search(rf"\b{canonical}\.$", violation.description)


def test_everything_wrong_is_told_at_once_under_its_path_in_the_request() -> None:
    with pytest.raises(RequestInvalid) as caught:
        validated(
            CreateCourseRequest,
            {"course": {"subjects": ["a", "a"], "labels": {"X": ""}, "owner": "x"}, "course_id": "Bad"},
        )
    assert {violation.field for violation in caught.value.violations} == {
        "course.title", "course.subjects[1]", 'course.labels["X"]', "course.owner", "course_id",
    }  # fmt: skip


def test_output_only_fields_and_null_count_as_not_sent() -> None:
    course = validated(
        CourseCreate,
        {"title": "x", "name": "courses/y", "uid": "z", "state": 7, "create_time": "t", "update_time": 1, "etag": "e",
         "code": None},
    )  # fmt: skip
    assert course == validated(CourseCreate, {"title": "x"})


@pytest.mark.parametrize("course_id", ["a", "a1", "bio-101", "a" * 63, "a--b", ""])
def test_an_id_of_the_callers_own_is_taken(course_id: str) -> None:
    assert validated(CreateCourseRequest, {"course": {"title": "x"}, "course_id": course_id}).course_id == course_id


@pytest.mark.parametrize(
    "course_id",
    ["A", "1a", "a-", "-a", "a_b", "a/b", "../a", "%2e%2e", "a.b", "a\n", "é", "a" * 64, "a" * 32,
     "deadbeef-0000-4000-8000-000000000000", "deadbeef-0000-4000-8000-00000000000"[:-1] + "00"],
)  # fmt: skip
def test_an_id_of_another_form_or_that_reads_as_a_uuid_is_refused(course_id: str) -> None:
    with pytest.raises(RequestInvalid) as caught:
        validated(CreateCourseRequest, {"course": {"title": "x"}, "course_id": course_id})
    assert [violation.field for violation in caught.value.violations] == ["course_id"]


@pytest.mark.parametrize("name", ["courses/a", "courses/bio-101", f"courses/{UUID}"])
def test_a_name_that_a_course_can_have_is_taken(name: str) -> None:
    assert validated(GetCourseRequest, {"name": name}).course_id == name.removeprefix("courses/")


@pytest.mark.parametrize(
    "name",
    ["courses/", "a", "courses/a/b", "courses/../a", "courses/%2e%2e", "/courses/a", "xcourses/a", "courses/a\n",
     f"courses/{UUID.upper()}", f"courses/{{{UUID}}}", f"courses/urn:uuid:{UUID}", "courses/-", "courses/" + "a" * 64],
)  # fmt: skip
def test_a_name_that_no_course_can_have_is_refused(name: str) -> None:
    with pytest.raises(RequestInvalid) as caught:
        validated(GetCourseRequest, {"name": name})
    assert [(violation.field, violation.reason) for violation in caught.value.violations] == [
        ("name", "FIELD_BAD_FORMAT")
    ]


def test_no_name_is_told_from_a_bad_one() -> None:
    with pytest.raises(RequestInvalid) as caught:
        validated(GetCourseRequest, {"name": ""})
    assert [(violation.field, violation.reason) for violation in caught.value.violations] == [
        ("name", "FIELD_REQUIRED")
    ]


def test_a_huge_collection_is_refused_by_its_size_alone() -> None:
    assert reasons(subjects=[""] * 100_000, labels={f"K{number}": "" for number in range(100_000)}) == {
        "subjects": "FIELD_TOO_MANY_ITEMS",
        "labels": "FIELD_TOO_MANY_ITEMS",
    }
