"""The filter language: what each expression finds, what is refused, and that both databases agree with Python."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine
from sqlalchemy import text as sql
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool

from course_service.course import Course, State
from course_service.errors import FilterInvalid
from course_service.filters import And, Comparison, Condition, Not, Or, Present, Search, parse_filter
from course_service.schemas import ListCoursesRequest
from course_service.services import list_courses
from course_service.store.database import Database
from course_service.tokens import PageTokens
from tests.conftest import Service
from tests.support.calls import failed
from tests.support.failures import http_failure
from tests.test_repository import COURSE

DAY = datetime(2026, 1, 1, tzinfo=UTC)


def course(number: int, course_id: str, **fields: Any) -> Course:
    time = DAY + timedelta(days=number)
    uid = f"01994a1c-0000-7000-8000-{number:012}"
    return dataclasses.replace(
        COURSE, **{"uid": uid, "course_id": course_id, "title": "x", "code": "", "subjects": [], "labels": {},
                   "create_time": time, "update_time": time, **fields}
    )  # fmt: skip


# Named a, b, c, … so that a string tells which courses are found.
COURSES = [
    course(0, "a", title="Biology", code="BIO 101", subjects=["Biology", "Science"], labels={"level": "1"}),
    course(1, "b", title="Biology II", code="BIO 102", owner="users/ann", labels={"level": "2", "x-y_z": "q"}),
    course(2, "c", title="Chemistry", code="CHEM 1", owner="users/bob", language_code="en", state=State.PUBLISHED),
    course(3, "d", title="STRASSE", description="Der große Weg", language_code="de", state=State.ARCHIVED),
    course(4, "e", title='100% "quoted" \\ back_slash', code="%_", external_ids={"sis": "A1", "lms": "7"}),
    course(5, "f", title="istanbul", description="\U0001f600 emoji*", external_ids={"sis": "A2"}),
    course(6, "g", title="AND", code="OR", subjects=["biology"], labels={"level": ""}, update_time=DAY + timedelta(9)),
    course(7, "h", title="Gone biology", state=State.DELETED, state_before_delete=State.DRAFT,
           delete_time=DAY + timedelta(days=8), purge_time=DAY + timedelta(days=38),
           update_time=DAY + timedelta(days=8)),
]  # fmt: skip
EVERYTHING = "abcdefgh"

FOUND = [
    # Words and phrases.
    ("biology", "abh"), ("BIOLOGY", "abh"), ("bio", "abh"), ("biology ii", "b"), ('"biology ii"', "b"),
    ('"ii biology"', ""), ("straße", "d"), ("GROSSE", "d"), ("STRASSE", "d"), ("große weg", "d"), ("İstanbul", ""),
    ("😀", "f"), ("'CHEM 1'", "c"), ("%", "e"), ("_", "e"), ('"\\\\"', "e"), ('"\\"quoted\\""', "e"), ("bio*", "abh"),
    ("-biology", "cdefg"), ("NOT biology", "cdefg"), ("biology -ii", "ah"), ("101 102", ""), ("101 OR 102", "ab"),
    ('"AND"', "g"), ("ANDROID", ""), ("pt-br", ""), ('"x\ty"', ""), ('"emoji*"', "f"), ('"emoji\\*"', "f"),
    # Equality and beginning.
    ('title = "Biology"', "a"), ("title = Biology", "a"), ("title=Biology", "a"), ("title = biology", ""),
    ('title != "Biology"', "bcdefgh"), ("title = Bio*", "ab"), ('title = "Biology *"', "b"), ("title != Bio*", "cdefgh"),
    ('title = "Bio\\*"', ""), ("title = *", EVERYTHING), ('code = ""', "dfh"), ('code != ""', "abceg"),
    ('code = "%*"', "e"), ('code = "_*"', ""), ('code = "BIO 10*"', "ab"), ('title = "100% \\"quoted\\" \\\\ back_slash"', "e"),
    # Has.
    ("title:bio", "h"), ("title:Bio", "ab"), ('title:"logy I"', "b"), ("code:*", "abceg"), ("-code:*", "dfh"),
    ("title:%", "e"), ("owner:ann", "b"), ("title:Chem*", "c"),
    # Order, by code point.
    ('title > "Gone"', "dfh"), ('title < "Biology II"', "aeg"), ('title >= "Biology II"', "bcdfh"), ('title <= "AND"', "eg"),
    # Names, ids, owners, languages.
    ("name = courses/a", "a"), ('name = "courses/*"', EVERYTHING), ("name = a", ""), ("name != courses/a", "bcdefgh"),
    ("name > courses/f", "gh"), ("name >= zoo", ""), ("name < zoo", EVERYTHING), ("name:ses/b", "b"), ("name:b", "b"),
    ('name = "cour*"', EVERYTHING), ("name = courses/a OR name = courses/b", "ab"),
    ("uid = 01994a1c-0000-7000-8000-000000000002", "c"), ("uid != 01994A1C-0000-7000-8000-000000000002", "abdefgh"),
    ("owner = users/ann", "b"), ("owner = users/*", "bc"), ("owner:*", "bc"), ("language_code = en", "c"),
    # States.
    ("state = DRAFT", "abefg"), ("state != DRAFT", "cdh"), ("state:PUBLISHED", "c"), ('state = "DELETED"', "h"),
    ("state = PUBLISHED OR state = ARCHIVED", "cd"),
    # Subjects, labels, external ids.
    ("subjects:Biology", "a"), ("subjects:biology", "g"), ('subjects:"Bio*"', "a"), ("subjects:*", "ag"),
    ("-subjects:Biology", "bcdefgh"), ('labels.level = "1"', "a"), ("labels.level:*", "abg"), ("labels:level", "abg"),
    ("-labels:level", "cdefh"), ('labels.level != "1"', "bg"), ('NOT labels.level = "1"', "bcdefgh"),
    ("labels.level = *", "abg"), ("labels.level >= 1", "ab"), ('labels.level = ""', "g"), ("labels.x-y_z = q", "b"),
    ("labels.nope = x", ""), ('labels.level:"2"', "b"), ("external_ids.sis = A1", "e"), ("external_ids.sis = A*", "ef"),
    ("external_ids.sis != A1", "f"), ("external_ids:lms", "e"), ("external_ids.lms:*", "e"), ("-external_ids:sis", "abcdgh"),
    # Times.
    ("create_time > 2026-01-03T00:00:00Z", "defgh"), ('create_time >= "2026-01-03T00:00:00Z"', "cdefgh"),
    ("create_time = 2026-01-03T09:00:00+09:00", "c"), ("create_time < 2026-01-01T00:00:00.000001Z", "a"),
    ("update_time > 2026-01-08T00:00:00Z", "gh"), ("delete_time:*", "h"), ("delete_time > 2026-01-01T00:00:00Z", "h"),
    ("NOT delete_time > 2026-01-01T00:00:00Z", "abcdefg"), ("delete_time != 2026-01-01T00:00:00Z", "h"),
    ("create_time != 2026-01-01t00:00:00z", "bcdefgh"), ("create_time > 0001-01-01T00:00:00Z", EVERYTHING),
    ("create_time < 9999-12-31T23:59:59.999999Z", EVERYTHING),
    # Together. OR binds tighter than AND.
    ("title:Bio AND code:101", "a"), ("title:Bio code:101", "a"), ("title:Bio AND code:101 OR code:102", "ab"),
    ("code:101 OR code:102 AND title:II", "b"), ("(code:101) OR (code:102 AND title:II)", "ab"),
    ("code:1 OR title:Bio state = DRAFT", "ab"), ("NOT (title:Bio OR title:Chem)", "defgh"), ("-(title:Bio)", "cdefgh"),
    ("NOT state = DRAFT AND NOT state = DELETED", "cd"), ("((((title:Bio))))", "ab"), ("  ", EVERYTHING), ("", EVERYTHING),
    ('"; DROP TABLE courses; --"', ""), ('title = "\' OR 1=1 --"', ""), ("title = %s", ""), ('title = ":x {} %(a)s"', ""),
    ('"a AND b"', ""), ("biology\nii", "b"),
]  # fmt: skip


@pytest.fixture
def filled(database: Database) -> Database:
    database.write(lambda stored: stored.courses.add_all(COURSES))
    return database


def find(database: Database, text: str) -> str:
    request = ListCoursesRequest(filter=text, show_deleted=True)
    courses = list_courses(database, PageTokens("x" * 16), request).courses
    return "".join(sorted(course.course_id for course in courses))


def test_there_are_enough_examples() -> None:
    assert len({text for text, _ in FOUND}) == len(FOUND) >= 60


def test_every_expression_finds_its_courses(filled: Database) -> None:
    found = {text: find(filled, text) for text, _ in FOUND}
    assert found == dict(FOUND)


REFUSED = [
    ("nope = 1", 0), ("title = Biology AND nope = 1", 20), ("description = x", 0), ("labels.Level = x", 0), ("labels = x", 0),
    ("labels:*", 0), ("external_ids.a-b = x", 0), ("subjects = x", 9), ("subjects != x", 9), ("state > DRAFT", 6),
    ("state = Draft", 8), ("state = PUB*", 8), ("state = nope", 8), ("uid = x", 6), ("uid > x", 4), ("uid:x", 3),
    ("create_time = yesterday", 14), ("create_time > 2026-01-01", 14), ("create_time > 2026-13-01T00:00:00Z", 14),
    ("create_time > 2026-01-01T00:00:00", 27), ('create_time > "2026-01-01T00:00:00"', 14), ("create_time > 2026-01-01T00:00:00.1234567Z", 14),
    ("create_time < 0001-01-01T00:00:00+01:00", 14), ("create_time:2026-01-01T00:00:00Z", 11), ("title > Bio*", 8),
    ("title =", 7), ("= x", 0), ("title = = x", 8), ("(title = x", 10), ("title = x)", 9), ("()", 1), ("AND", 0),
    ("title = x AND", 13), ("OR x", 0), ("x OR", 4), ("NOT", 3), ("NOT NOT x", 4), ('"x', 0), ('title = "x', 8), ("title = 'x", 8),
    ('"title" = x', 0), ('""', 0), ("*", 0), ('title = "\x00"', 9), ("\ud800", 0), ("a\x1fb", 1), ("a" * 2_049, 2_048), ("(" * 21 + "x" + ")" * 21, 20),
    ("x " * 101, 200), ("title = a.b\\c", 11),
]  # fmt: skip


@pytest.mark.parametrize(("text", "position"), REFUSED)
def test_what_is_no_filter_is_refused_with_its_position(text: str, position: int) -> None:
    with pytest.raises(FilterInvalid) as caught:
        parse_filter(text)
    assert caught.value.metadata == {"position": str(position)}, caught.value.message


def test_limits_themselves_are_taken() -> None:
    assert parse_filter("a" * 2_048)
    assert parse_filter("(" * 20 + "x" + ")" * 20)
    assert parse_filter("x " * 100)


def test_a_refused_filter_is_an_invalid_argument_on_both_faces(service: Service) -> None:
    failure = failed(service, "ListCourses", filter="title = x AND nope = 1")
    assert (failure.status, failure.reason) == ("INVALID_ARGUMENT", "FILTER_INVALID")
    assert failure.violations == {"filter": "FILTER_INVALID"}
    assert failure.metadata == {"position": "14"}
    by_http = http_failure(service.http.get("/courses", params={"filter": "title = x AND nope = 1"}), 422)
    assert by_http == dataclasses.replace(failure, details_bytes=0, wire_bytes=0)


@pytest.mark.parametrize("text", ["(" * 1_000 + "x" + ")" * 1_000, "x OR " * 10_000 + "x", "NOT " * 500 + "x", "-" * 2_000,
    '"' * 2_047, "\\" * 2_000, "title:" * 300])  # fmt: skip
def test_a_filter_that_is_made_to_hurt_is_refused_at_once(service: Service, text: str) -> None:
    assert failed(service, "ListCourses", filter=text).reason == "FILTER_INVALID"


def test_courses_that_an_older_service_stored_are_found_by_their_words(filled: Database, database_url: URL) -> None:
    with create_engine(database_url, poolclass=NullPool).begin() as connection:
        connection.execute(sql("UPDATE courses SET search_text = '' WHERE course_id = 'a'"))
    assert find(filled, "biology") == "abh"
    assert find(filled, '"BIO 101"') == "a"
    assert find(filled, '"biologybio"') == ""


def test_nothing_that_looks_like_sql_does_anything(service: Service, filled: Database) -> None:
    for text in ("'; DELETE FROM courses; --", "%", "\\", "x' OR 'x' = 'x", "{0}", "%(a)s", ":a"):
        quoted = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
        for field in ("title", "labels.level", "external_ids.sis", "name", "code"):
            for operator_ in ("=", ":", "<"):
                find(filled, f"{field} {operator_} {quoted}")
    assert find(filled, "") == EVERYTHING


# What a condition means, in Python.

_COMPARE = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def holds(condition: Condition | None, course: Course) -> bool:
    match condition:
        case None:
            return True
        case And(parts):
            return all(holds(part, course) for part in parts)
        case Or(parts):
            return any(holds(part, course) for part in parts)
        case Not(part):
            return not holds(part, course)
        case Search(text):
            texts = (course.title, course.code, course.description)
            return any(text.casefold() in field.casefold() for field in texts)
        case Present(field, key):
            value = getattr(course, field)
            return bool(value) if key is None else key in value
        case Comparison():
            return compares(condition, course)


def compares(comparison: Comparison, course: Course) -> bool:
    value: Any = getattr(course, comparison.field)
    if isinstance(value, Mapping):
        value = value.get(comparison.key)
    if value is None:
        return False
    wanted: Any = comparison.value
    if comparison.field == "subjects":
        return any(item.startswith(wanted) if comparison.prefix else item == wanted for item in value)
    if comparison.prefix:
        return bool(value.startswith(wanted)) != (comparison.operator == "!=")
    if comparison.operator == ":":
        return bool(wanted in value) if type(value) is str else value == wanted
    return bool(_COMPARE[comparison.operator](value, wanted))


def by_python(text: str) -> str:
    condition = parse_filter(text)
    return "".join(sorted(course.course_id for course in COURSES if holds(condition, course)))


def test_python_agrees_with_the_examples() -> None:
    assert {text: by_python(text) for text, _ in FOUND} == dict(FOUND)


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("*", "\\*") + '"'


def fragments() -> Iterator[str]:
    for one in COURSES:
        for text in (one.title, one.code, one.owner, one.language_code, one.name, *one.subjects, *one.labels.values()):
            yield text
            yield text[:3]
            yield text[1:4]
            yield text.upper()


values = st.sampled_from(sorted(set(fragments()))).map(quoted) | st.text(
    st.characters(exclude_categories=["Cc", "Cs"]), max_size=3
).map(quoted)
times = st.sampled_from([one.create_time.isoformat() for one in COURSES])
fields = st.sampled_from(["title", "code", "owner", "language_code", "name", "labels.level", "labels.x-y_z",
                          "external_ids.sis", "external_ids.lms"])  # fmt: skip
prefixes = st.sampled_from(sorted({text[:2] for text in fragments()})).map(lambda text: quoted(text)[:-1] + '*"')
simple = st.one_of(
    values.filter(lambda text: text != '""'),
    st.builds("{} {} {}".format, fields, st.sampled_from(["=", "!=", "<", "<=", ">", ">=", ":"]), values),
    st.builds("{} {} {}".format, fields, st.sampled_from(["=", "!=", ":"]), prefixes),
    st.builds("{}:*".format, fields | st.sampled_from(["subjects", "delete_time", "state"])),
    st.builds("subjects:{}".format, values | prefixes),
    st.builds("state {} {}".format, st.sampled_from(["=", "!=", ":"]), st.sampled_from(State)),
    st.builds("{} {} {}".format, st.sampled_from(["create_time", "update_time", "delete_time"]),
              st.sampled_from(["=", "!=", "<", "<=", ">", ">="]), times),
)  # fmt: skip
expressions = st.recursive(
    simple,
    lambda inner: st.one_of(
        st.builds("({} AND {})".format, inner, inner),
        st.builds("({} OR {})".format, inner, inner),
        st.builds("({} {})".format, inner, inner),
        st.builds("{} AND ({} OR {})".format, inner, inner, inner).map("({})".format),
        st.builds("NOT ({})".format, inner),
        st.builds("-({})".format, inner),
    ),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=expressions)
def test_any_filter_finds_what_python_finds(filled: Database, text: str) -> None:
    try:
        expected = by_python(text)
    except FilterInvalid as error:
        assert "position" in error.metadata  # noqa: PT017  # too long or too deep
        return
    assert find(filled, text) == expected
