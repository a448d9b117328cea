"""Odd texts in every field that takes text: refused for the reason that the table gives, or stored as they are."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from pydantic import BaseModel

from course_service import fields, schemas
from course_service.rpc import converters
from tests.faults.bad_inputs.faces import (
    FACES,
    MISMATCH,
    NO_ROUTE,
    NOT_FOUND,
    OK,
    TOO_LARGE,
    Outcome,
    invalid,
    wrong,
)
from tests.faults.bad_inputs.world import DELETED, SEED, Tally, World

REASONS = {
    "R": "FIELD_REQUIRED", "L": "FIELD_TOO_LONG", "B": "FIELD_BLANK", "T": "FIELD_NOT_TRIMMED",
    "C": "FIELD_BAD_CHARACTER", "F": "FIELD_BAD_FORMAT",
}  # fmt: skip

# What becomes of a text in each field of a course, by the first letters of the reasons; "." is stored. The columns:
# title, code, description, owner, language_code, a subject, a label's key and value, an external id's key and value.
# After it the same for fields of requests: courses/ and the text as a name, and as one of names; course_id, request_id,
# etag (M: ETAG_MISMATCH), value in a filter (I: FILTER_INVALID), order_by (O: ORDER_BY_INVALID), page_token (P:
# PAGE_TOKEN_INVALID).
# fmt: off
TEXTS = {
    #                         ti co de ow la su lk lv ek ev     na ns id rq et fi or to
    "empty":              ("", "R . . . . R F . F R",           "F F - - - . . ."),
    "space":              (" ", "B . . F F . F . F .",          "F F F F M . . P"),
    "spaces":             ("   ", "B . . F F . F . F .",        "F F F F M . . P"),
    "U+00A0":             ("\u00a0", "B . . F F . F . F .",     "F F F F M . . P"),
    "U+200B":             ("\u200b", "B . . F F . F . F .",     "F F F F M . O P"),
    "U+FEFF":             ("\ufeff", "B . . F F . F . F .",     "F F F F M . O P"),
    "U+3000":             ("\u3000", "B . . F F . F . F .",     "F F F F M . . P"),
    "U+2028":             ("\u2028", "B . . F F . F . F .",     "F F F F M . . P"),
    "U+202E alone":       ("\u202e", "B . . F F . F . F .",     "F F F F M . O P"),
    "space first":        (" a", "T . . F F . F . F .",         "F F F F M . O P"),
    "space last":         ("a ", "T . . F F . F . F .",         "F F F F M . O P"),
    "U+3000 last":        ("a\u3000", "T . . F F . F . F .",    "F F F F M . O P"),
    "NUL alone":          ("\0", "C C C F F C F C F C",         "F F F F M I O P"),
    "NUL first":          ("\0ab", "C C C F F C F C F C",       "F F F F M I O P"),
    "NUL middle":         ("a\0b", "C C C F F C F C F C",       "F F F F M I O P"),
    "NUL last":           ("ab\0", "C C C F F C F C F C",       "F F F F M I O P"),
    "CR":                 ("a\rb", "C C . F F C F C F C",       "F F F F M . O P"),
    "LF":                 ("a\nb", "C C . F F C F C F C",       "F F F F M . O P"),
    "LF last":            ("ab\n", "C C . F F C F C F C",       "F F F F M . O P"),
    "CRLF and a header":  ("a\r\nX: b", "C C . F F C F C F C",  "F F F F M . O P"),
    "TAB":                ("a\tb", "C C . F F C F C F C",       "F F F F M . O P"),
    "ESC":                ("\x1b[31mred", "C C C F F C F C F C", "F F F F M I O P"),
    "BS":                 ("ab\b", "C C C F F C F C F C",       "F F F F M I O P"),
    "DEL":                ("a\x7fb", "C C C F F C F C F C",     "F F F F M I O P"),
    "U+0085":             ("a\x85b", "C C C F F C F C F C",     "F F F F M I O P"),
    "U+009F":             ("a\x9fb", "C C C F F C F C F C",     "F F F F M I O P"),
    "NFC":                ("\u00e9t\u00e9", ". . . F F . F . F .",   "F F F F M . O P"),
    "NFD":                ("e\u0301te\u0301", ". . . F F . F . F .", "F F F F M . O P"),
    "İ":                  ("İ", ". . . F F . F . F .",          "F F F F M . O P"),
    "ß":                  ("ß", ". . . F F . F . F .",          "F F F F M . O P"),
    "ſ":                  ("ſ", ". . . F F . F . F .",          "F F F F M . O P"),
    "Kelvin sign":        ("\u212a", ". . . F F . F . F .",     "F F F F M . O P"),
    "full-width":         ("ａｂｃ", ". . . F F . F . F .",       "F F F F M . O P"),
    "Arabic digits":      ("\u0661\u0662", ". . . F F . F . F .", "F F F F M . O P"),
    "U+202E":             ("\u202egnp.exe", ". . . F F . F . F .", "F F F F M . O P"),
    "500 marks":          ("a" + "\u0301" * 500, ". L . L L L - L - L", "F F L F M . O P"),
    "20 marks":           ("a" + "\u0301" * 20, ". . . F F . F . F .", "F F F F M . O P"),
    "emoji ZWJ":          ("👩🏽\u200d🔬 👨\u200d👩\u200d👧", ". . . F F . F . F .", "F F F F M . O P"),
    "flag":               ("🇹🇷", ". . . F F . F . F .",         "F F F F M . O P"),
    "U+FFFD":             ("\ufffd", ". . . F F . F . F .",     "F F F F M . O P"),
    "U+FFFE":             ("\ufffe", ". . . F F . F . F .",     "F F F F M . O P"),
    "U+FFFF":             ("\uffff", ". . . F F . F . F .",     "F F F F M . O P"),
    "U+E000":             ("\ue000", ". . . F F . F . F .",     "F F F F M . O P"),
    "U+0378":             ("\u0378", ". . . F F . F . F .",     "F F F F M . O P"),
    "U+10FFFF":           ("\U0010ffff", ". . . F F . F . F .", "F F F F M . O P"),
    "SQL":                ("'; DROP TABLE courses; --", ". . . F F . F . F .", "F F F F M . O P"),
    "SQL or":             ("' OR 1=1", ". . . F F . F . F .",   "F F F F M . O P"),
    "double quote":       ('a"b', ". . . F F . F . F .",        "F F F F M . O P"),
    "%s":                 ("%s", ". . . F F . F . F .",         "F F F F M . O P"),
    "%(x)s":              ("%(x)s", ". . . F F . F . F .",      "F F F F M . O P"),
    ":x":                 (":x", ". . . F F . F . F .",         "F F F F M . O P"),
    "$1":                 ("$1", ". . . F F . F . F .",         "F F F F M . O P"),
    "?":                  ("?", ". . . F F . F . F .",          "F F F F M . O P"),
    "{}":                 ("{}", ". . . F F . F . F .",         "F F F F M . O P"),
    "{0.__class__}":      ("{0.__class__}", ". . . F F . F . F .", "F F F F M . O P"),
    "${jndi}":            ("${jndi:ldap://x}", ". . . F F . F . F .", "F F F F M . O P"),
    "<script>":           ("<script>", ". . . F F . F . F .",   "F F F F M . O P"),
    "%":                  ("%", ". . . F F . F . F .",          "F F F F M . O P"),
    "_":                  ("_", ". . . F F . F . F .",          "F F F F M . O P"),
    "backslash":          ("\\", ". . . F F . F . F .",         "F F F F M . O P"),
    "backslash last":     ("100%\\", ". . . F F . F . F .",     "F F F F M . O P"),
    "star":               ("*", ". . . F F . F . F .",          "F F F F - . O P"),
    "null":               ("null", ". . . F F . . . . .",       "N N - F M . O P"),
    "NaN":                ("NaN", ". . . F F . F . F .",        "F F F F M . O P"),
    "true":               ("true", ". . . F F . . . . .",       "N N - F M . O P"),
    "0":                  ("0", ". . . F F . F . F .",          "F F F F M . O P"),
    "-1":                 ("-1", ". . . F F . F . F .",         "F F F F M . O P"),
    "../":                ("../", ". . . F F . F . F .",        "F F F F M . O P"),
    "%2e%2e":             ("%2e%2e", ". . . F F . F . F .",     "F F F F M . O P"),
    "users/%00":          ("users/%00", ". . . F F . F . F .",  "F F F F M . O P"),
    "users/":             ("users/", ". . . F F . F . F .",     "F F F F M . O P"),
    "users/a/b":          ("users/a/b", ". . . F F . F . F .",  "F F F F M . O P"),
    "users/a, LF":        ("users/a\n", "C C . F F C F C F C",  "F F F F M . O P"),
    "users/a":            ("users/a", ". . . . F . F . F .",    "F F F F M . O P"),
    "users/..":           ("users/..", ". . . . F . F . F .",   "F F F F M . O P"),
    "language":           ("pt-BR", ". . . F . . F . F .",      "F F F F M . O P"),
    "language, not canonical": ("pt_br", ". . . F F . . . . .", "F F F F M . O P"),
}
# fmt: on

# By column: what is sent, the path of a violation, the filter that finds it.
COURSE_FIELDS: Mapping[str, tuple[Callable[[str], dict[str, Any]], str, str]] = {
    "title": (lambda text: {"title": text}, "title", "title = {}"),
    "code": (lambda text: {"code": text}, "code", "code = {}"),
    "description": (lambda text: {"description": text}, "description", "{}"),
    "owner": (lambda text: {"owner": text}, "owner", "owner = {}"),
    "language_code": (lambda text: {"language_code": text}, "language_code", "language_code = {}"),
    "subject": (lambda text: {"subjects": [text]}, "subjects[0]", "subjects:{}"),
    "label key": (lambda text: {"labels": {text: "x"}}, "labels[{}]", "labels:{}"),
    "label": (lambda text: {"labels": {"key": text}}, 'labels["key"]', "labels.key = {}"),
    "external id key": (lambda text: {"external_ids": {text: "x"}}, "external_ids[{}]", "external_ids:{}"),
    "external id": (lambda text: {"external_ids": {"key": text}}, 'external_ids["key"]', "external_ids.key = {}"),
}


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("name", TEXTS)
def test_a_text_is_refused_in_each_field_by_its_reason(world: World, face: str, name: str) -> None:
    text, letters, _ = TEXTS[name]
    course: dict[str, Any] = {"title": "T"}
    violations = {}
    for (make, path, _), letter in zip(COURSE_FIELDS.values(), letters.split(), strict=True):
        if letter in REASONS:
            add(course, make(text))
            violations["course." + path.format(json.dumps(text[:80]))] = REASONS[letter]
    cases = [f"{name} in {path}" for path in violations]
    world.call(face, "CreateCourse", {"course": course}, invalid(violations), *cases)


def add(course: dict[str, Any], values: Mapping[str, Any]) -> None:
    """Set fields of a course; a map gets one more key."""
    for field, value in values.items():
        course[field] = {**course.get(field, {}), **value} if isinstance(value, dict) else value


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("name", [name for name, (_, letters, _) in TEXTS.items() if "." in letters])
def test_a_legal_text_is_stored_byte_for_byte_found_and_deleted(world: World, face: str, name: str) -> None:
    text, letters, _ = TEXTS[name]
    course: dict[str, Any] = {"title": "T"}
    searches = []
    cases = []
    for (column, (make, _, search)), letter in zip(COURSE_FIELDS.items(), letters.split(), strict=True):
        if letter == ".":
            add(course, make(text))
            searches += [search.format(quoted(text))] if text else []
            cases.append(f"{name} in {column}")
    created = world.call(face, "CreateCourse", {"course": course, "course_id": "text"}, OK, *cases).response
    for view, by in (2, FACES["grpc"]), ("FULL", FACES["http"]):
        assert contents(by(world.service, "GetCourse", {"name": "courses/text"}).response) == contents(course)
        found = [by(world.service, "ListCourses", {"filter": search, "view": view}).response for search in searches]
        assert [[contents(course) for course in page["courses"]] for page in found] == [[contents(course)]] * len(found)
    assert FACES[face](world.service, "DeleteCourse", {"name": "courses/text"}) == OK
    for by in FACES.values():
        deleted = by(world.service, "GetCourse", {"name": "courses/text"}).response
        assert (deleted["state"], deleted["uid"], contents(deleted)) == ("DELETED", created["uid"], contents(course))


def contents(course: Mapping[str, Any]) -> Mapping[str, Any]:
    """What callers set of a course. By gRPC what is empty is not sent."""
    return {field: course[field] for field in CONTENTS if course.get(field)}


CONTENTS = ("title", "code", "description", "owner", "language_code", "subjects", "labels", "external_ids")


def quoted(text: str) -> str:
    """Write a text in a filter."""
    return '"' + re.sub(r'(["\\*])', r"\\\1", text) + '"'


# By column: the method, its request, the field that is refused.
REQUEST_FIELDS: Mapping[str, tuple[str, Callable[[str], dict[str, Any]], str]] = {
    "name": ("GetCourse", lambda text: {"name": f"courses/{text}"}, "name"),
    "names": ("BatchGetCourses", lambda text: {"names": [f"courses/{text}"]}, "names[0]"),
    "course_id": ("CreateCourse", lambda text: {"course": {"title": "T"}, "course_id": text}, "course_id"),
    "request_id": ("PublishCourse", lambda text: {"name": DELETED, "request_id": text}, "request_id"),
    "etag": ("PublishCourse", lambda text: {"name": SEED, "etag": text}, "etag"),
    "filter": ("ListCourses", lambda text: {"filter": f"title = {quoted(text)}"}, "filter"),
    "order_by": ("ListCourses", lambda text: {"order_by": text}, "order_by"),
    "page_token": ("ListCourses", lambda text: {"page_token": text}, "page_token"),
}
REFUSALS = {
    "M": MISMATCH, "N": NOT_FOUND, "I": wrong("filter", "FILTER_INVALID"),
    "O": wrong("order_by", "ORDER_BY_INVALID"), "P": wrong("page_token", "PAGE_TOKEN_INVALID"),
}  # fmt: skip


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("name", TEXTS)
def test_a_text_in_a_field_of_a_request_is_refused_by_its_reason(world: World, face: str, name: str) -> None:
    text, _, letters = TEXTS[name]
    for (column, (method, make, path)), letter in zip(REQUEST_FIELDS.items(), letters.split(), strict=True):
        if letter == "-":  # it is fine, and what it does is told elsewhere
            continue
        expected = REFUSALS.get(letter) or (OK if letter == "." else invalid({path: REASONS[letter]}))
        if face == "http" and column == "name" and (not text or set(text) & {"/", ":"}):
            expected = NO_ROUTE  # another path than a course's
        world.call(face, method, make(text), expected, f"{name} in {column}")


FOUR_BYTES = "\U0001f984"
# By column: the longest text, and what is refused of one code point more.
LIMITS = {
    "title": (FOUR_BYTES * 750, "L"),
    "code": (FOUR_BYTES * 255, "L"),
    "description": (FOUR_BYTES * 30_000, "L"),
    "owner": ("users/" + "a" * 249, "L"),
    "language_code": ("en-x" + "-abcdefgh" * 10 + "-abcde", "L"),
    "subject": (FOUR_BYTES * 100, "L"),
    "label key": ("a" * 63, "F"),
    "label": (FOUR_BYTES * 63, "L"),
    "external id key": ("a" * 32, "F"),
    "external id": (FOUR_BYTES * 255, "L"),
}


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("column", LIMITS)
def test_a_text_of_the_limit_is_stored_and_of_one_more_is_refused(world: World, face: str, column: str) -> None:
    text, letter = LIMITS[column]
    make, path, _ = COURSE_FIELDS[column]
    course = {"title": "T", **make(text)}
    created = world.call(face, "CreateCourse", {"course": course}, OK, f"{column} of the limit").response
    for by in FACES.values():
        assert contents(by(world.service, "GetCourse", {"name": created["name"]}).response) == contents(course)
    longer = {"title": "T", **make(text + text[-1])}
    violations = {"course." + path.format(json.dumps(text + text[-1])): REASONS[letter]}
    world.call(face, "CreateCourse", {"course": longer}, invalid(violations), f"{column} of the limit and one more")


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("column", COURSE_FIELDS)
def test_a_mebibyte_of_text_is_more_than_a_request(world: World, face: str, column: str) -> None:
    course = {"title": "T", **COURSE_FIELDS[column][0]("a" * (1 << 20))}
    expected = replace(TOO_LARGE, reason="") if face == "grpc" else TOO_LARGE  # gRPC refuses it before the service
    world.call(face, "CreateCourse", {"course": course}, expected, f"1 MiB in {column}")


# Texts that some database, collation or library takes for another of them, in the order of their code points.
# fmt: off
LOOK_ALIKES = sorted([
    "I", "i", "ı", "İ", "i\u0307", "ß", "ss", "ẞ", "ſ", "s", "S", "e\u0301", "\u00e9", "E", "e", "K", "\u212a", "k",
    "Å", "A\u030a", "\u212b", "ﬁ", "fi", "①", "1", "\u0661", "ａ", "a", "a\u200b", "a\u00ad", "æ", "ae", "%", "_", "a%",
    "a_", "ab", "\\", "\\%", "*", "?", "a b", "a  b", "a\u00a0b", "\U0010ffff", "\uffff", "\U00010000",
])
# fmt: on


def test_texts_that_look_alike_are_distinct_and_sorted_by_code_point(world: World) -> None:
    for text in LOOK_ALIKES:
        course = {"title": text, "code": "look-alike", "external_ids": {"key": text}}
        assert FACES["grpc"](world.service, "CreateCourse", {"course": course}) == OK, text
    for face in FACES:
        listed = FACES[face](
            world.service, "ListCourses", {"filter": "code = look-alike", "order_by": "title", "page_size": 999}
        )
        assert [course["title"] for course in listed.response["courses"]] == LOOK_ALIKES
        for text in LOOK_ALIKES:
            for search in f"title = {quoted(text)}", f"external_ids.key = {quoted(text)}":
                found = world.call(face, "ListCourses", {"filter": search}, OK, f"{text!a}, {search[:5]}").response
                assert [course["title"] for course in found["courses"]] == [text]


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("text", ["%", "_", "\\", "\\%", "a%", "%%", "__", "*"])
def test_a_search_takes_wildcards_of_sql_for_what_they_are(world: World, face: str, text: str) -> None:
    for title in ("abc", "a%c", "a_c", "a\\c", "a\\%c", "%%", "__", "a*c"):
        assert FACES["grpc"](world.service, "CreateCourse", {"course": {"title": title}}) == OK
    for search in quoted(text), f"title:{quoted(text)}":
        found = world.call(face, "ListCourses", {"filter": search}, OK, f"{text!a} searched by {search}").response
        expected = {title for title in ("abc", "a%c", "a_c", "a\\c", "a\\%c", "%%", "__", "a*c") if text in title}
        assert {course["title"] for course in found["courses"]} == expected


def unchecked(model: type[BaseModel], data: Mapping[str, Any]) -> BaseModel:
    """Take a request as it comes."""
    course = {"course": schemas.CourseCreate.model_construct(**data["course"])} if "course" in data else {}
    return model.model_construct(**{**data, **course})


# What goes through by either face without the check of characters, and what by gRPC without any.
NEED_CHARACTERS: Sequence[tuple[dict[str, Any], str]] = [
    ({"title": "a\0b"}, "course.title"),
    ({"code": "a\0b"}, "course.code"),
    ({"code": "\x1b[31mred"}, "course.code"),
    ({"description": "a\0b"}, "course.description"),
    ({"subjects": ["a\0b"]}, "course.subjects[0]"),
    ({"labels": {"key": "a\0b"}}, 'course.labels["key"]'),
    ({"external_ids": {"key": "a\0b"}}, 'course.external_ids["key"]'),
]
NEED_ALL: Sequence[tuple[dict[str, Any], Outcome]] = [
    ({"course": {"title": ""}}, invalid({"course.title": "FIELD_REQUIRED"})),
    ({"course": {"title": "a" * 751}}, invalid({"course.title": "FIELD_TOO_LONG"})),
    ({"course": {"title": "T", "code": "a" * 256}}, invalid({"course.code": "FIELD_TOO_LONG"})),
    ({"course": {"title": "T", "owner": "ann"}}, invalid({"course.owner": "FIELD_BAD_FORMAT"})),
    ({"course": {"title": "T"}, "course_id": "A B"}, invalid({"course_id": "FIELD_BAD_FORMAT"})),
    ({"course": {"title": "T"}, "request_id": "1"}, invalid({"request_id": "FIELD_BAD_FORMAT"})),
]


def test_with_the_validator_off_the_same_checks_go_red(
    world: World, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    off = World(world.service, world.engine, Tally())
    checks = 0
    with monkeypatch.context() as patch:
        patch.setattr(fields, "_refuse", lambda *_: None)
        for face in FACES:
            for course, path in NEED_CHARACTERS:
                expected = invalid({path: "FIELD_BAD_CHARACTER"})
                with pytest.raises(AssertionError):
                    off.call(face, "CreateCourse", {"course": {"title": "T", **course}}, expected)
                checks += 1
    with monkeypatch.context() as patch:
        patch.setattr(converters, "validated", unchecked)
        for request, expected in NEED_ALL:
            with pytest.raises(AssertionError):
                off.call("grpc", "CreateCourse", request, expected)
            checks += 1
    tally.control = f"validator off: {checks} of {checks} checks go red"
