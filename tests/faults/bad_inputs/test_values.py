"""Each case of the table ends as it says, and so do names that no course can have, in every method."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.faults.bad_inputs.cases import CASES, CHANGES, HEX, UUID, Case, T, bad
from tests.faults.bad_inputs.faces import FACES, NO_ROUTE, OK, Fields, Outcome, invalid, refused
from tests.faults.bad_inputs.world import DELETED, SEED, World


@pytest.mark.parametrize("case", CASES, ids=[f"{case.method}, {case.name}, {case.face}" for case in CASES])
def test_a_bad_value_ends_as_the_table_says(world: World, case: Case) -> None:
    fields = case.request(world) if callable(case.request) else case.request
    world.call(case.face, case.method, fields, case.expected, f"{case.method}, {case.name}")


# Names that no course can have, and how a path of HTTP with each ends where it is no path of a course.
NAMES: Mapping[str, Outcome | None] = {
    "a": NO_ROUTE, "courses/": NO_ROUTE, "courses/A": None, "courses/seed/": NO_ROUTE, "courses/a/b": NO_ROUTE,
    "courses/../a": NO_ROUTE, "courses/..": None, "courses/%2e%2e": None, "courses/.": None, "Courses/seed": NO_ROUTE,
    "/courses/seed": NO_ROUTE, "course/seed": NO_ROUTE, "courses/courses/seed": NO_ROUTE, "users/seed": NO_ROUTE,
    "//course.example.com/courses/seed": NO_ROUTE, "courses/*": None, "courses/-": None, "courses/seed ": None,
    "courses/seed\n": None, "courses/seed\0": None, f"courses/{UUID.upper()}": None, f"courses/{{{UUID}}}": None,
    f"courses/urn:uuid:{UUID}": NO_ROUTE, f"courses/{UUID[:-1]}": None, f"courses/{HEX}": None,
    "courses/\u017feed": None, f"courses/{'a' * 64}": None, "courses/seed?": None, "courses/seed#": None,
    "courses/seed;x": None,
}  # fmt: skip


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_no_course_can_have_is_refused_by_every_method(world: World, face: str, name: str) -> None:
    by_path = NAMES[name] if face == "http" else None
    for method in ("GetCourse", *CHANGES):
        expected = by_path or bad("name")
        world.call(face, method, {"name": name}, expected, f"{method} of {name!a}")
    expected = by_path or bad("course.name")
    world.call(face, "UpdateCourse", {"course": {**T, "name": name}}, expected, f"UpdateCourse of {name!a}")
    world.call(face, "BatchGetCourses", {"names": [SEED, name]}, bad("names[1]"), f"BatchGetCourses of {name!a}")


@pytest.mark.parametrize("face", FACES)
def test_an_empty_name_is_missed_by_every_method(world: World, face: str) -> None:
    required = invalid({"names[0]": "FIELD_REQUIRED"})
    world.call(face, "BatchGetCourses", {"names": [""]}, required, "BatchGetCourses of no name")
    if face == "http":
        return  # its paths without a name are other routes
    for method in ("GetCourse", *CHANGES):
        world.call(face, method, {"name": ""}, invalid({"name": "FIELD_REQUIRED"}), f"{method} of no name")
    required = invalid({"course.name": "FIELD_REQUIRED"})
    world.call(face, "UpdateCourse", {"course": T}, required, "UpdateCourse of no name")


REUSED = refused("INVALID_ARGUMENT", 422, "REQUEST_ID_REUSED", {"request_id": "REQUEST_ID_REUSED"})


@pytest.mark.parametrize("face", FACES)
def test_a_request_id_is_of_one_request(world: World, face: str) -> None:
    first: Fields = {"course": T, "course_id": "first", "request_id": UUID}
    created = world.call(face, "CreateCourse", first, OK, "request_id used first").response
    others: Mapping[str, Fields] = {
        "another title": {**first, "course": {"title": "U"}}, "another course_id": {**first, "course_id": "other"},
        "one field more": {**first, "course": {**T, "code": "x"}}, "no course_id": {"course": T, "request_id": UUID},
        "another title, in capitals": {**first, "course": {"title": "U"}, "request_id": UUID.upper()},
    }  # fmt: skip
    for name, again in others.items():
        world.call(face, "CreateCourse", again, REUSED, f"request_id used for {name}")
    # Every method has request_ids of its own.
    change = {"name": "courses/first", "request_id": UUID}
    world.call(face, "PublishCourse", change, OK, "request_id used by PublishCourse")
    world.call(face, "PublishCourse", {**change, "name": SEED}, REUSED, "request_id used for another course")
    world.call(face, "DeleteCourse", change, OK, "request_id used by DeleteCourse")
    after = world.call(face, "CreateCourse", first, OK, "request_id used again after the course was deleted").response
    assert after == created


@pytest.mark.parametrize("face", FACES)
def test_of_sixteen_at_once_with_one_request_id_one_creates(world: World, face: str) -> None:
    request = {"course": T, "request_id": UUID}
    before = world.rows()

    def send(_: int) -> Outcome:
        return FACES[face](world.service, "CreateCourse", request)

    with ThreadPoolExecutor(16) as threads:
        outcomes = list(threads.map(send, range(16)))
    assert outcomes == [OK] * 16
    assert {outcome.response["uid"] for outcome in outcomes} == {outcomes[0].response["uid"]}
    assert [after - was for after, was in zip(world.rows(), before, strict=True)] == [1, 0, 1]


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("method", ["CreateCourse", "UpdateCourse"])
def test_what_is_output_only_is_ignored(world: World, face: str, method: str) -> None:
    time = "2001-01-01T00:00:00Z" if face == "http" else {"seconds": 1}
    mine = {"uid": UUID, "state": 4 if face == "grpc" else "DELETED"} | dict.fromkeys(TIMES, time)
    seed = FACES[face](world.service, "GetCourse", {"name": SEED}).response
    name = {"name": SEED} if method == "UpdateCourse" else {"name": DELETED, "etag": '"x"'}
    course = {**mine, **name, "title": seed["title"]}
    found = world.call(face, method, {"course": course}, OK, f"{method} with what is output-only").response
    assert found["state"] == "DRAFT"
    assert found["uid"] != UUID
    assert found["name"] != DELETED
    assert not {"delete_time", "purge_time"} & {field for field, value in found.items() if value}
    assert found["update_time"] > "2002"
    if method == "UpdateCourse":
        assert found == seed


TIMES = ("create_time", "update_time", "delete_time", "purge_time")
