"""Ids, numbers, times, paging, masks and etags that are wrong, and how a request with each ends."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from tests.faults.bad_inputs.faces import MISMATCH, NOT_FOUND, OK, Outcome, invalid, refused, wrong
from tests.faults.bad_inputs.world import ARCHIVED, DELETED, OTHER, SEED, World

Request: TypeAlias = Mapping[str, Any] | Callable[[World], Mapping[str, Any]]


@dataclass(frozen=True)
class Case:
    """A request by one face and how it ends. A request that needs an etag is made of the world."""

    name: str
    face: str
    method: str
    request: Request
    expected: Outcome


def both(name: str, method: str, request: Request, expected: Outcome, by_http: Outcome | None = None) -> list[Case]:
    """A case of both faces; `by_http` is how it ends there, if that is not the same."""
    return [Case(name, "grpc", method, request, expected), Case(name, "http", method, request, by_http or expected)]


def grpc_only(name: str, method: str, request: Request, expected: Outcome) -> list[Case]:
    """A case that HTTP has no way to send."""
    return [Case(f"{name} (not by HTTP)", "grpc", method, request, expected)]


def http_only(name: str, method: str, request: Request, expected: Outcome) -> list[Case]:
    """A case that gRPC has no way to send."""
    return [Case(f"{name} (not by gRPC)", "http", method, request, expected)]


T = {"title": "T"}
UUID = "6f1f2a60-3e0b-4c57-9d5a-2f0f5d3b8a11"
HEX = UUID.replace("-", "")
NIL = "00000000-0000-0000-0000-000000000000"
CHANGES = ("DeleteCourse", "UndeleteCourse", "PublishCourse", "ArchiveCourse")


WRONG_TEXTS: Sequence[object] = (None, 5, {}, ["a"], True)


def bad(field: str) -> Outcome:
    return invalid({field: "FIELD_BAD_FORMAT"})


def ids() -> list[Case]:
    """What a caller may not choose, and what is taken."""
    cases: list[Case] = []
    for text in (
        "A", "1a", "-a", "a-", "a_b", "a.b", "a b", "a\n", "é", "ａ", "١", "a/b", "a%2fb", "../", "..", "%2e%2e",
        "courses/a", UUID, UUID.upper(), "a" + UUID[1:], "a" + HEX[1:], f"{{{UUID}}}", f"urn:uuid:{UUID}", NIL, "-",
        "a:publish", "*",
    ):  # fmt: skip
        cases += both(f"course_id {text!a}", "CreateCourse", {"course": T, "course_id": text}, bad("course_id"))
    exists = refused("ALREADY_EXISTS", 409, "COURSE_ALREADY_EXISTS")
    held = refused("ALREADY_EXISTS", 409, "COURSE_ID_HELD_BY_DELETED_COURSE")
    path = 'course.external_ids["seed"]'
    in_use = refused("ALREADY_EXISTS", 409, "EXTERNAL_ID_IN_USE", {path: "EXTERNAL_ID_IN_USE"})
    long = invalid({"course_id": "FIELD_TOO_LONG"})
    cases += both("course_id of 64", "CreateCourse", {"course": T, "course_id": "a" * 64}, long)
    cases += both("course_id taken", "CreateCourse", {"course": T, "course_id": "seed"}, exists)
    cases += both("course_id of a deleted course", "CreateCourse", {"course": T, "course_id": "seed-deleted"}, held)
    taken = {"course": {**T, "external_ids": {"seed": DELETED}}}
    cases += both("external id taken", "CreateCourse", taken, in_use)
    for name in (f"courses/{UUID}", f"courses/{NIL}", "courses/nobody", "courses/" + "a" * 63):
        cases += both(f"no course {name}", "GetCourse", {"name": name}, NOT_FOUND)
        cases += both(f"no course {name}", "BatchGetCourses", {"names": [SEED, name]}, NOT_FOUND)
        cases += both(f"no course {name}", "UpdateCourse", {"course": {**T, "name": name}}, NOT_FOUND)
        for method in CHANGES:
            cases += both(f"no course {name}", method, {"name": name}, NOT_FOUND)
    return cases


def request_ids() -> list[Case]:
    """What is no UUID, or none of the caller's making."""
    cases: list[Case] = []
    for text in (
        "1", HEX, UUID[:-1], HEX + "a", UUID + "a", UUID + "0", f"{{{UUID}}}", f"urn:uuid:{UUID}", NIL,
        UUID.replace("-", "_"), UUID.replace("6", "g"), "null",
    ):  # fmt: skip
        cases += both(f"request_id {text}", "CreateCourse", {"course": T, "request_id": text}, bad("request_id"))
        cases += both(f"request_id {text}", "ArchiveCourse", {"name": SEED, "request_id": text}, bad("request_id"))
    # Of 36 characters: Python's own UUID reads these, some as other ids than they look like.
    for text in (
        HEX + "----", "-" + UUID[:8] + UUID[9:], f"{{{HEX[:12]}-{HEX[12:16]}-{HEX[16:]}}}", f"urn:{HEX}",
        UUID[:-2] + "_" + UUID[-1], "+" + UUID[1:], "0x" + UUID[2:], " " + UUID[1:], UUID[:-1] + " ",
        UUID[:-1] + "\u0661",
    ):  # fmt: skip
        # By HTTP in the body: a header has not all of these.
        cases += both(f"request_id {text!a}", "ArchiveCourse", {"name": SEED, "request_id": text}, bad("request_id"))
    return cases


def numbers() -> list[Case]:
    """Enums and sizes."""
    cases: list[Case] = []
    unknown = invalid({"view": "FIELD_WRONG_TYPE"})
    for view in (3, -1, 2**31 - 1, -(2**31)):
        cases += both(f"view {view}", "ListCourses", {"view": view}, unknown)
        cases += both(f"view {view}", "BatchGetCourses", {"names": [SEED], "view": view}, unknown)
    for text in ("", "basic", "COURSE_VIEW_BASIC", "1", "0", "NaN"):
        cases += http_only(f"view {text!r}", "ListCourses", {"view": text}, unknown)
    cases += grpc_only("view 0", "ListCourses", {"view": 0}, OK)
    for state in (0, 4, 99, -1):
        course = {"course": {**T, "state": state}, "validate_only": True}
        cases += both(f"state {state}", "CreateCourse", course, OK)
    negative = wrong("page_size", "PAGE_SIZE_NEGATIVE")
    for size in (-1, -50, -(2**31)):
        cases += both(f"page_size {size}", "ListCourses", {"page_size": size}, negative)
    for size in (0, 1, 1000, 1001, 2**31 - 1):
        cases += both(f"page_size {size}", "ListCourses", {"page_size": size}, OK)
    cases += http_only("page_size -10^40", "ListCourses", {"page_size": -(10**40)}, negative)
    for text in ("", "x", "1.5", "1e3", "NaN", "null", "0x10", "9" * 5000, "1;2", "1 2"):
        cases += http_only(
            f"page_size {text[:20]!r}", "ListCourses", {"page_size": text}, invalid({"page_size": "FIELD_WRONG_TYPE"})
        )
    for text in ("", "x", "2", "null"):
        not_bool = invalid({"show_deleted": "FIELD_WRONG_TYPE"})
        cases += http_only(f"show_deleted {text!r}", "ListCourses", {"show_deleted": text}, not_bool)
    cases += http_only("a parameter that is none", "ListCourses", {"nope": "1"}, invalid({"nope": "FIELD_UNKNOWN"}))
    twice = invalid({"page_size": "FIELD_DUPLICATE"})
    cases += http_only("page_size twice", "ListCourses", {"page_size": [1, 2]}, twice)
    return cases


def flipped(token: str) -> str:
    """A token with one bit of its middle flipped."""
    middle = len(token) // 2
    return token[:middle] + chr(ord(token[middle]) ^ 1) + token[middle + 1 :]


def paging() -> list[Case]:
    """Tokens, filters and orders."""
    cases: list[Case] = []
    invalid_token = wrong("page_token", "PAGE_TOKEN_INVALID")
    for name, text in {"16,385": "a" * 16_385, "100 KB": "a" * 100_000}.items():  # more than HTTP takes in a line
        cases += grpc_only(f"page_token {name}", "ListCourses", {"page_token": text}, invalid_token)
    for name, text in {
        "word": "x", "dots": "...", "dot": ".", "base64": "e30.AAAA", "JSON": '["x"]', "null": "null",
        "JWT": "eyJhbGciOiJub25lIn0.e30.", "path": "../../etc/passwd",
    }.items():  # fmt: skip
        cases += both(f"page_token {name}", "ListCourses", {"page_token": text}, invalid_token)

    def token(world: World, **query: Any) -> str:
        """The token of a second page of one course."""
        page = world.service.http.get("/courses", params={"page_size": 1, **query}).json()
        found: str = page["next_page_token"]
        return found

    cases += both(
        "page_token with a bit flipped", "ListCourses", lambda w: {"page_token": flipped(token(w))}, invalid_token
    )
    cases += both("page_token cut", "ListCourses", lambda w: {"page_token": token(w)[:-1]}, invalid_token)
    cases += both("page_token twice", "ListCourses", lambda w: {"page_token": token(w) * 2}, invalid_token)
    mismatch = wrong("page_token", "PAGE_TOKEN_MISMATCH")
    queries: Sequence[tuple[str, object]] = (("filter", "title = T"), ("order_by", "title"), ("show_deleted", True))
    for field, value in queries:

        def made_for_another(world: World, field: str = field, value: object = value) -> Mapping[str, Any]:
            return {"page_token": token(world), field: value}

        cases += both(f"page_token of another {field}", "ListCourses", made_for_another, mismatch)
    return cases + filters() + orders()


def filters() -> list[Case]:
    cases: list[Case] = []
    for text in (
        "title =", "= T", "title = = T", "title == T", "title => T", "title <> T", "AND", "OR",
        "NOT", "title = T AND", "title = T OR", "()", "(", ")", "(title = T", "title = T)", "((title = T)", '"', "'",
        'title = "T', "title = T'", "\\", "title = \\", '""', "nope = 1", "TITLE = T", "title.x = 1", "description = x",
        "uid = x", "uid:x", "uid = urn", "labels = x", "labels.A = x", "labels. = x", "labels.x.y = 1", "labels:*A",
        "external_ids = x", "external_ids.a-b = x", "subjects = x", "subjects > x", "state = NOPE", "state = draft",
        "state = 1", "state > DRAFT", "state = DR*", '"title" = T', "name = a AND (", "-", "--title = T",
        "NOT NOT title = T", "'; DROP TABLE courses; --", "title = 'a' OR 1=1", "title > a*",
        "create_time = x", "create_time = *", "create_time:2026-01-01T00:00:00Z", "create_time = 2026-01-01",
        "create_time = 2026-13-01T00:00:00Z", "create_time = 2026-02-30T00:00:00Z",
        "create_time = 2026-01-01T24:00:00Z", "create_time = 2026-01-01T00:00:60Z",
        "create_time = 0000-01-01T00:00:00Z", 'create_time = "10000-01-01T00:00:00Z"',
        "create_time = 2026-01-01T00:00:00", "create_time = 2026-01-01T00:00:00+24:00",
        "create_time = 2026-01-01T00:00:00+99:99", "create_time = 2026-01-01T00:00:00.1234567Z",
        "create_time > 0001-01-01T00:00:00+00:01", "create_time < 9999-12-31T23:59:59-00:01",
        'create_time = "٢٠٢٦-01-01T00:00:00Z"', "title = \0", "title:\x7f", "title = T\ud7ff AND \x01",
        "(" * 21 + "a" + ")" * 21, "(" * 1000 + "a" + ")" * 1000, "(" * 2000, "-(" * 1000 + "a" + ")" * 48,
        "NOT " * 500 + "a", " ".join("a" * 101), " OR ".join("a" * 101), " AND ".join("a" * 101), "a" * 2049,
        " OR ".join(["title = T"] * 200),
    ):  # fmt: skip
        cases += both(f"filter {text[:40]!a}", "ListCourses", {"filter": text}, wrong("filter", "FILTER_INVALID"))
    terms = " OR ".join(["a"] * 10_000)
    cases += grpc_only("filter of 10,000 terms", "ListCourses", {"filter": terms}, wrong("filter", "FILTER_INVALID"))
    for text in ("(" * 20 + "a" + ")" * 20, " ".join("a" * 100), '"' + "a" * 2046 + '"', "   ", "\n"):
        cases += both(f"filter {text[:30]!r} of the limit", "ListCourses", {"filter": text}, OK)
    for text in ("title", "title ~ T", "title = T;", "and", "%", "{}", "*a"):  # words, not syntax
        cases += both(f"filter {text}", "ListCourses", {"filter": text}, OK)
    return cases


def orders() -> list[Case]:
    cases: list[Case] = []
    expected = wrong("order_by", "ORDER_BY_INVALID")
    for text in (
        "nope", "name", "uid", "description", "labels.x", "title;", "title; DROP TABLE courses", "title--",
        "title,title", "title, title desc", "title desc desc", "title DESC", "TITLE", "title,", ",", ",title",
        "title,,code", "-title", "+title", "1", "title asc desc", "title descending", "title\0", "ｔitle", "(title)",
        "title nulls first", "create_time,create_time", "title, " * 40,
    ):  # fmt: skip
        cases += both(f"order_by {text[:40]!a}", "ListCourses", {"order_by": text}, expected)
    return cases


def times() -> list[Case]:
    """Times that a caller sends are ignored, whatever they are."""
    cases: list[Case] = []
    for seconds, nanos in ((2**63 - 1, 0), (-(2**63), 0), (253_402_300_800, 0), (0, -1), (0, 10**9), (0, 2**31 - 1)):
        time = Timestamp(seconds=seconds, nanos=nanos)
        course = {**T, "create_time": time, "update_time": time, "delete_time": time, "purge_time": time}
        request = {"course": course, "validate_only": True}
        cases += grpc_only(f"times of {seconds} s and {nanos} ns", "CreateCourse", request, OK)
    no_times: Sequence[object] = ("x", "", "10000-01-01T00:00:00Z", 5, -1, {}, [], None, True, "9999-99-99T99:99:99Z")
    for value in no_times:
        course = {**T, "create_time": value, "update_time": value, "delete_time": value, "purge_time": value}
        request = {"course": course, "validate_only": True}
        cases += http_only(f"times of {value!r}", "CreateCourse", request, OK)
    return cases


def collections() -> list[Case]:
    """Lists and maps that are too large, hold something twice, or hold what they must not."""
    cases: list[Case] = []

    def course(**fields: Any) -> dict[str, Any]:
        return {"course": {**T, **fields}}

    for size in (21, 10_001):
        many = invalid({"course.subjects": "FIELD_TOO_MANY_ITEMS"})
        cases += both(f"{size} subjects", "CreateCourse", course(subjects=[f"s{n}" for n in range(size)]), many)
    for field, size in (("labels", 65), ("labels", 10_000), ("external_ids", 21), ("external_ids", 10_000)):
        many = invalid({f"course.{field}": "FIELD_TOO_MANY_ITEMS"})
        cases += both(f"{size} {field}", "CreateCourse", course(**{field: {f"k{n}": "v" for n in range(size)}}), many)
    twice = invalid({"course.subjects[2]": "FIELD_DUPLICATE"})
    cases += both("a subject twice", "CreateCourse", course(subjects=["a", "b", "a"]), twice)
    wrong_types: Mapping[str, Sequence[object]] = {
        "title": [5, 1.5, True, [], {}, ["T"]], "code": [5, False, [], {}], "subjects": ["a", 5, {}, {"0": "a"}],
        "labels": ["a", 5, [], [["a", "b"]], True], "external_ids": ["a", [], 0], "owner": [0, [], {}],
        "language_code": [0, ["en"]], "description": [0, {}],
    }  # fmt: skip
    for field, values in wrong_types.items():
        for item in values:
            kind = invalid({f"course.{field}": "FIELD_WRONG_TYPE"})
            cases += http_only(f"{field} {item!r}", "CreateCourse", course(**{field: item}), kind)
    for value in WRONG_TEXTS:
        kind = invalid({"course.subjects[0]": "FIELD_WRONG_TYPE"})
        cases += http_only(f"a subject {value!r}", "CreateCourse", course(subjects=[value]), kind)
        kind = invalid({'course.labels["k"]': "FIELD_WRONG_TYPE"})
        cases += http_only(f"a label {value!r}", "CreateCourse", course(labels={"k": value}), kind)
        kind = invalid({'course.external_ids["k"]': "FIELD_WRONG_TYPE"})
        cases += http_only(f"an external id {value!r}", "CreateCourse", course(external_ids={"k": value}), kind)
    cases += http_only("a field that is none", "CreateCourse", course(nope=1), invalid({"nope": "FIELD_UNKNOWN"}))
    cases += http_only("__proto__", "CreateCourse", course(__proto__={}), invalid({"__proto__": "FIELD_UNKNOWN"}))
    return cases + batches()


def batches() -> list[Case]:
    cases: list[Case] = []
    for size, reason in ((0, "FIELD_REQUIRED"), (101, "FIELD_TOO_MANY_ITEMS"), (10_001, "FIELD_TOO_MANY_ITEMS")):
        request = {"requests": [{"course": T}] * size}
        cases += both(f"{size} to create", "BatchCreateCourses", request, invalid({"requests": reason}))
    for size, reason in ((0, "FIELD_REQUIRED"), (101, "FIELD_TOO_MANY_ITEMS")):
        cases += both(f"{size} to get", "BatchGetCourses", {"names": [SEED] * size}, invalid({"names": reason}))
    many = invalid({"names": "FIELD_TOO_MANY_ITEMS"})
    cases += grpc_only("10,001 to get", "BatchGetCourses", {"names": [SEED] * 10_001}, many)
    for name, item, path, reason in (
        ("no course", {"course_id": "b"}, "course", "FIELD_REQUIRED"),
        ("no title", {"course": {"code": "x"}}, "course.title", "FIELD_REQUIRED"),
        ("a request_id", {"course": T, "request_id": UUID}, "request_id", "FIELD_NOT_ALLOWED"),
        ("validate_only", {"course": T, "validate_only": True}, "validate_only", "FIELD_NOT_ALLOWED"),
        ("the course_id of another", {"course": T, "course_id": "a"}, "course_id", "FIELD_DUPLICATE"),
        ("an external id of another", {"course": {**T, "external_ids": {"k": "1"}}}, 'course.external_ids["k"]',
         "FIELD_DUPLICATE"),
        ("a NUL", {"course": {"title": "a\0b"}}, "course.title", "FIELD_BAD_CHARACTER"),
    ):  # fmt: skip
        first = {"course": {**T, "external_ids": {"k": "1"}}, "course_id": "a"}
        expected = invalid({f"requests[1].{path}": reason})
        cases += both(f"an item with {name}", "BatchCreateCourses", {"requests": [first, item]}, expected)
    exists = refused("ALREADY_EXISTS", 409, "COURSE_ALREADY_EXISTS", {"requests[1].course_id": "COURSE_ALREADY_EXISTS"})
    taken = {"requests": [{"course": T}, {"course": T, "course_id": "seed"}]}
    cases += both("an item whose course_id is taken", "BatchCreateCourses", taken, exists)
    cases += grpc_only("no course", "CreateCourse", {}, invalid({"course": "FIELD_REQUIRED"}))
    cases += http_only("no course", "CreateCourse", {"course": {}}, invalid({"course.title": "FIELD_REQUIRED"}))
    return cases


def masks() -> list[Case]:
    """gRPC's update_mask; HTTP has none, for what is sent is what is changed."""
    cases: list[Case] = []
    for path in (
        "nope", "", " ", "Title", " title", "title ", "course.title", "title.x", "title[0]", "labels.x", "labels['x']",
        "subjects[0]", "subjects.0", "create_time.seconds", "title,code", "title\0", "**", "*.title",
        "'; DROP TABLE courses", "ｔitle", "a" * 100_000,
    ):  # fmt: skip
        request = {"course": {**T, "name": SEED}, "update_mask": FieldMask(paths=[path])}
        expected = refused("INVALID_ARGUMENT", 422, "FIELD_MASK_INVALID", {"update_mask": "FIELD_MASK_INVALID"})
        cases += grpc_only(f"update_mask {path[:40]!a}", "UpdateCourse", request, expected)
        request = {"course": {**T, "name": SEED}, "update_mask": FieldMask(paths=["title", path])}
        cases += grpc_only(f"update_mask title and {path[:40]!a}", "UpdateCourse", request, expected)
    for name, paths in {
        "title and *": ["title", "*"], "* and title": ["*", "title"], "* twice": ["*", "*"],
        "10,000 of none": ["x"] * 10_000,
    }.items():  # fmt: skip
        request = {"course": {**T, "name": SEED}, "update_mask": FieldMask(paths=paths)}
        expected = refused("INVALID_ARGUMENT", 422, "FIELD_MASK_INVALID", {"update_mask": "FIELD_MASK_INVALID"})
        cases += grpc_only(f"update_mask {name}", "UpdateCourse", request, expected)
    for name, paths in {
        "title twice": ["title", "title"], "title 10,000 times": ["title"] * 10_000, "name": ["name"], "uid": ["uid"],
        "etag": ["etag"], "state and times": ["state", "create_time", "purge_time"],
    }.items():  # fmt: skip
        request = {
            "course": {"title": "№", "name": SEED, "uid": NIL, "state": 4},
            "update_mask": FieldMask(paths=paths),
        }
        cases += grpc_only(f"update_mask {name}", "UpdateCourse", request, OK)
    cleared = {"course": {"name": SEED}, "update_mask": FieldMask(paths=["title"])}
    no_title = invalid({"course.title": "FIELD_REQUIRED"})
    cases += grpc_only("update_mask that clears the title", "UpdateCourse", cleared, no_title)
    everything = {"course": {"name": SEED}, "update_mask": FieldMask(paths=["*"])}
    cases += grpc_only("update_mask * that clears the title", "UpdateCourse", everything, no_title)
    for field in ("nope", "title.x", "update_mask", "*", ""):
        expected = invalid({field if field.isidentifier() else f'"{field}"': "FIELD_UNKNOWN"})
        cases += http_only(f"a field {field!r}", "UpdateCourse", {"course": {field: "T", "name": SEED}}, expected)
    return cases


def etags() -> list[Case]:
    """Etags that the course does not have."""
    cases: list[Case] = []

    def requests(method: str, etag: Callable[[World], str]) -> Callable[[World], Mapping[str, Any]]:
        if method == "UpdateCourse":
            return lambda world: {"course": {**T, "name": SEED, "etag": etag(world)}}
        return lambda world: {"name": SEED, "etag": etag(world)}

    for method in ("UpdateCourse", "DeleteCourse", "PublishCourse", "ArchiveCourse", "UndeleteCourse"):
        for name, etag in {
            "wrong": lambda _: '"x"', "comma": lambda _: ",", "a list": lambda _: '"a", "b", "*"',
            "another course's": lambda world: world.etag(OTHER), "weak": lambda world: "W/" + world.etag(SEED),
            "without quotes": lambda world: world.etag(SEED).strip('"'), "of 10 KB": lambda _: f'"{"a" * 10_000}"',
            "with one more": lambda world: world.etag(SEED) + "x", "cut": lambda world: world.etag(SEED)[:-2] + '"',
        }.items():  # fmt: skip
            cases += both(f"etag {name}", method, requests(method, etag), MISMATCH)
    for method, name, expected in (
        ("UpdateCourse", ARCHIVED, refused("FAILED_PRECONDITION", 400, "COURSE_ARCHIVED")),
        ("UpdateCourse", DELETED, refused("FAILED_PRECONDITION", 400, "COURSE_DELETED")),
        ("PublishCourse", DELETED, refused("FAILED_PRECONDITION", 400, "INVALID_STATE_TRANSITION")),
        ("ArchiveCourse", SEED, refused("FAILED_PRECONDITION", 400, "INVALID_STATE_TRANSITION")),
        ("ArchiveCourse", ARCHIVED, refused("FAILED_PRECONDITION", 400, "INVALID_STATE_TRANSITION")),
        ("UndeleteCourse", SEED, refused("ALREADY_EXISTS", 409, "COURSE_NOT_DELETED")),
        ("DeleteCourse", DELETED, NOT_FOUND),
    ):
        request = {"course": {**T, "name": name}} if method == "UpdateCourse" else {"name": name}
        cases += both(f"of {name}", method, request, expected)
    return cases


CASES = [case for kind in (ids, request_ids, numbers, paging, times, collections, masks, etags) for case in kind()]
