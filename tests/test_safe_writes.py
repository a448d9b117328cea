"""Writes that may be repeated, tried out, or made by two at once."""

import dataclasses
import json
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from course.v1 import course_pb2
from pydantic import Field
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import IntegrityError
from sqlalchemy.pool import NullPool

from course_service.call import Call, working_on
from course_service.course import Course
from course_service.errors import CourseNotDeleted
from course_service.schemas import CourseCreate, CreateCourseRequest
from course_service.services import create_course
from course_service.store.courses import CourseRepository
from course_service.store.database import Database
from course_service.store.idempotency_records import ABSENT_FIELDS, IdempotencyRecord, IdempotencyRecords, RecordKey
from course_service.validation import validated
from tests.conftest import Service
from tests.support.calls import call, create, failed, get, names
from tests.test_repository import COURSE


def new_id() -> str:
    return str(uuid.uuid4())


def test_two_writers_with_one_etag_make_one_change(service: Service) -> None:
    course = create(service, "bio")
    start = threading.Barrier(2)

    def write(title: str) -> str:
        start.wait()
        try:
            call(service, "UpdateCourse", course={"name": course.name, "title": title, "etag": course.etag})
        except grpc.RpcError as error:
            code: str = error.code().name
            return code
        return "OK"

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(write, ["A", "B"])) == ["ABORTED", "OK"]


def test_read_modify_write_with_etags_loses_no_update(service: Service) -> None:
    create(service, "bio", labels={"count": "0"})

    def work(_: int) -> int:
        done = 0
        for _ in range(50):
            course = get(service, "courses/bio")
            labels = {"count": str(int(course.labels["count"]) + 1)}
            try:
                call(service, "UpdateCourse", course={"name": course.name, "labels": labels, "etag": course.etag})
                done += 1
            except grpc.RpcError as error:
                assert error.code() is grpc.StatusCode.ABORTED  # noqa: PT017  # either outcome is right
        return done

    with ThreadPoolExecutor(8) as pool:
        done = sum(pool.map(work, range(8)))
    assert done >= 50
    assert get(service, "courses/bio").labels["count"] == str(done)


def test_updates_without_an_etag_all_succeed_and_change_only_their_own_field(service: Service) -> None:
    create(service, "bio")

    def work(field: str) -> None:
        for number in range(20):
            call(service, "UpdateCourse", course={"name": "courses/bio", field: f"{field} {number}"})

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(work, ["title", "code", "description"]))
    course = get(service, "courses/bio")
    assert (course.title, course.code, course.description) == ("title 19", "code 19", "description 19")


# Every write with its request, for a course "bio" in the right state.
WRITES: dict[str, dict[str, Any]] = {
    "CreateCourse": {"course": {"title": "New"}, "course_id": "new"},
    "BatchCreateCourses": {"requests": [{"course": {"title": "New"}, "course_id": "new"}]},
    "UpdateCourse": {"course": {"name": "courses/bio", "title": "New"}},
    "DeleteCourse": {"name": "courses/bio"},
    "UndeleteCourse": {"name": "courses/bio"},
    "PublishCourse": {"name": "courses/bio"},
    "ArchiveCourse": {"name": "courses/bio"},
}
ANOTHER: dict[str, dict[str, Any]] = {
    "CreateCourse": {"course": {"title": "Other"}},
    "BatchCreateCourses": {"requests": [{"course": {"title": "New"}}]},
    "UpdateCourse": {"course": {"name": "courses/bio"}},
    **{method: {"name": "courses/other"} for method in WRITES if "name" in WRITES[method]},
}


def ready(service: Service, method: str) -> course_pb2.Course:
    course = create(service, "bio")
    if method == "UndeleteCourse":
        course = call(service, "DeleteCourse", name=course.name)
    if method == "ArchiveCourse":
        course = call(service, "PublishCourse", name=course.name)
    return course


def everything(service: Service) -> list[course_pb2.Course]:
    return list(call(service, "ListCourses", show_deleted=True, view=course_pb2.COURSE_VIEW_FULL).courses)


@pytest.mark.parametrize("method", WRITES)
def test_the_same_request_again_gets_the_same_answer_and_does_nothing(service: Service, method: str) -> None:
    ready(service, method)
    request_id = new_id()
    first = call(service, method, **WRITES[method], request_id=request_id)
    state = everything(service)
    assert call(service, method, **WRITES[method], request_id=request_id) == first
    assert call(service, method, **WRITES[method], request_id=request_id.upper()) == first
    assert everything(service) == state


@pytest.mark.parametrize("method", WRITES)
def test_another_request_under_the_same_id_is_refused(service: Service, method: str) -> None:
    ready(service, method)
    request_id = new_id()
    call(service, method, **WRITES[method], request_id=request_id)
    failure = failed(service, method, **ANOTHER[method], request_id=request_id)
    assert (failure.status, failure.reason) == ("INVALID_ARGUMENT", "REQUEST_ID_REUSED")
    assert failure.violations == {"request_id": "REQUEST_ID_REUSED"}


@pytest.mark.parametrize("method", WRITES)
def test_trying_out_answers_as_the_real_call_and_stores_nothing(service: Service, method: str) -> None:
    ready(service, method)
    state = everything(service)
    request_id = new_id()
    would_be = call(service, method, **WRITES[method], request_id=request_id, validate_only=True)
    assert everything(service) == state
    real = call(service, method, **WRITES[method], request_id=request_id)  # the id was not used up
    assert everything(service) != state
    for answer in (would_be, real):
        for course in answer.courses if hasattr(answer, "courses") else [answer]:
            for field in ("uid", "etag", "create_time", "update_time", "delete_time", "purge_time"):
                course.ClearField(field)
    assert would_be == real


@pytest.mark.parametrize("method", WRITES)
def test_trying_out_heeds_what_was_answered_under_the_id(service: Service, method: str) -> None:
    ready(service, method)
    request_id = new_id()
    first = call(service, method, **WRITES[method], request_id=request_id)
    assert call(service, method, **WRITES[method], request_id=request_id, validate_only=True) == first
    failure = failed(service, method, **ANOTHER[method], request_id=request_id, validate_only=True)
    assert failure.reason == "REQUEST_ID_REUSED"


def test_many_may_create_by_update_at_once(service: Service) -> None:
    for number in range(10):
        start = threading.Barrier(8)

        def put(client: int, number: int = number, start: threading.Barrier = start) -> str:
            start.wait()
            course = {"name": f"courses/c{number}", "title": f"by {client}"}
            title: str = call(service, "UpdateCourse", course=course, allow_missing=True).title
            return title

        with ThreadPoolExecutor(8) as pool:
            assert sorted(pool.map(put, range(8))) == [f"by {client}" for client in range(8)]


def test_an_answer_that_is_purged_while_it_is_asked_for_is_made_again(
    service: Service, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = validated(CreateCourseRequest, {"course": {"title": "x"}, "request_id": new_id()})
    first = create_course(database, request)
    find = IdempotencyRecords.find

    def purged_before(self: IdempotencyRecords, key: RecordKey) -> IdempotencyRecord | None:
        self.purge(datetime.now(UTC) + timedelta(days=1), 10)
        return find(self, key)

    monkeypatch.setattr(IdempotencyRecords, "find", purged_before)
    assert create_course(database, request).uid != first.uid


def test_trying_out_tells_what_stands_in_the_way(service: Service) -> None:
    create(service, "bio", external_ids={"sis": "1"})
    failure = failed(service, "CreateCourse", course={"title": "x"}, course_id="bio", validate_only=True)
    assert failure.reason == "COURSE_ALREADY_EXISTS"
    course = {"title": "x", "external_ids": {"sis": "1"}}
    assert failed(service, "CreateCourse", course=course, validate_only=True).reason == "EXTERNAL_ID_IN_USE"
    assert failed(service, "ArchiveCourse", name="courses/bio", validate_only=True).status == "FAILED_PRECONDITION"


@pytest.mark.parametrize("course_id", ["", "bio"])
def test_twenty_at_once_with_one_request_id_make_one_course(service: Service, course_id: str) -> None:
    request_id = new_id()
    start = threading.Barrier(20)

    def write(_: int) -> course_pb2.Course:
        start.wait()
        course: course_pb2.Course = call(
            service, "CreateCourse", course={"title": "x"}, course_id=course_id, request_id=request_id
        )
        return course

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(write, range(20)))
    assert all(answer == answers[0] for answer in answers)
    assert names(service) == [answers[0].name.removeprefix("courses/")]


def test_twenty_steps_at_once_with_one_request_id_are_one_step(service: Service) -> None:
    course = create(service, "bio")
    request_id = new_id()
    start = threading.Barrier(20)

    def publish(_: int) -> course_pb2.Course:
        start.wait()
        published: course_pb2.Course = call(
            service, "PublishCourse", name=course.name, etag=course.etag, request_id=request_id
        )
        return published

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(publish, range(20)))
    assert all(answer == get(service, course.name) for answer in answers)


def test_a_request_id_belongs_to_one_method_and_one_caller(service: Service, database: Database) -> None:
    request_id = new_id()
    course = call(service, "CreateCourse", course={"title": "x"}, request_id=request_id)
    assert call(service, "PublishCourse", name=course.name, request_id=request_id).state == course_pb2.Course.PUBLISHED
    request = validated(CreateCourseRequest, {"course": {"title": "x"}, "request_id": request_id})
    others = set()
    for caller in ("ann", "bob", "ann"):
        with working_on(Call(caller=caller)):
            others.add(create_course(database, request).uid)
    assert len(others) == 2
    assert course.uid not in others


def test_a_failed_call_does_not_use_up_its_request_id(service: Service) -> None:
    request_id = new_id()
    create(service, "bio")
    request: dict[str, Any] = {"course": {"title": "x"}, "course_id": "bio", "request_id": request_id}
    assert failed(service, "CreateCourse", **request).reason == "COURSE_ALREADY_EXISTS"
    request["course_id"] = "other"
    assert call(service, "CreateCourse", **request).name == "courses/other"


def test_the_stored_answer_comes_back_after_the_course_was_changed(service: Service) -> None:
    request: dict[str, Any] = {
        "course": {"title": "x", "labels": {"b": "1", "a": "2"}, "subjects": ["b", "a"], "description": "é\n"},
        "request_id": new_id(),
    }
    first = call(service, "CreateCourse", **request)
    call(service, "UpdateCourse", course={"name": first.name, "title": "y"})
    call(service, "DeleteCourse", name=first.name)
    assert call(service, "CreateCourse", **request) == first


FIRST_FIELDS = {"uid", "course_id", "title", "state", "create_time", "update_time", "revision"}
"""What every record has had from the first release on."""


def test_a_record_of_an_older_or_newer_release_is_replayed(service: Service, database_url: URL) -> None:
    request: dict[str, Any] = {"course": {"title": "x", "code": "C", "labels": {"a": "1"}}, "request_id": new_id()}
    first = call(service, "CreateCourse", **request)
    engine = create_engine(database_url, poolclass=NullPool)
    with engine.begin() as connection:
        (kept,) = json.loads(connection.execute(text("SELECT courses FROM answers")).scalar_one())
        older = {field: value for field, value in kept.items() if field in FIRST_FIELDS}
        record = json.dumps([{**older, "a_field_that_comes_later": 1}])
        connection.execute(text("UPDATE answers SET courses = :record"), {"record": record})
    replayed = call(service, "CreateCourse", **request)
    assert (replayed.name, replayed.title, replayed.etag) == (first.name, first.title, first.etag)
    assert (replayed.code, dict(replayed.labels)) == ("", {})


def test_a_field_that_is_added_changes_no_fingerprint(service: Service, database_url: URL) -> None:
    class LaterCourse(CourseCreate):
        level: str = Field(default_factory=str)

    class LaterRequest(CreateCourseRequest):
        course: LaterCourse

    asked: dict[str, Any] = {"course": {"title": "x", "labels": {"a": "1"}}, "request_id": new_id()}
    now, later = validated(CreateCourseRequest, asked), validated(LaterRequest, asked)
    assert later.fingerprint == now.fingerprint
    other = {"course": {"title": "x", "labels": {"a": "1"}, "level": "1"}}
    assert validated(LaterRequest, other).fingerprint != now.fingerprint
    # The release before counted defaults too, and its records are still replayed.
    first = call(service, "CreateCourse", **asked)
    with create_engine(database_url, poolclass=NullPool).begin() as connection:
        connection.execute(text("UPDATE answers SET fingerprint = :older"), {"older": now.fingerprints[1]})
    assert now.fingerprints[1] != now.fingerprint
    assert call(service, "CreateCourse", **asked) == first


def test_every_field_that_records_may_lack_has_a_value() -> None:
    assert {field.name for field in dataclasses.fields(Course)} - FIRST_FIELDS == set(ABSENT_FIELDS)


def test_grpc_and_http_share_their_request_ids(service: Service) -> None:
    request_id = new_id()
    created = call(service, "CreateCourse", course={"title": "x", "labels": {"a": "1"}}, request_id=request_id)
    headers = {"Idempotency-Key": request_id}
    again = service.http.post("/courses", json={"title": "x", "labels": {"a": "1"}}, headers=headers)
    assert again.json()["name"] == created.name
    fields: dict[str, Any] = {"title": "y", "code": ""}
    by_http = service.http.patch(f"/{created.name}", json=fields, headers={**headers, "If-Match": created.etag})
    mask = {"paths": ["code", "title"]}
    course = {"name": created.name, "etag": created.etag, **fields}
    by_grpc = call(service, "UpdateCourse", course=course, update_mask=mask, request_id=request_id)
    assert by_http.json()["etag"] == by_grpc.etag


_UUID = "0b5f2c1e-7d34-4c86-9a1f-3e8d2b7c6a59"


@pytest.mark.parametrize("request_id", ["x", "0" * 36, "00000000-0000-0000-0000-000000000000", _UUID[1:],
    _UUID + "0", "{" + _UUID[2:] + "}", _UUID.replace("-", ""), "urn:uuid:" + _UUID])  # fmt: skip
def test_a_request_id_that_is_no_uuid_is_refused(service: Service, request_id: str) -> None:
    failure = failed(service, "CreateCourse", course={"title": "x"}, request_id=request_id)
    assert failure.violations == {"request_id": "FIELD_BAD_FORMAT"}


@pytest.mark.parametrize(
    ("method", "repository", "step"),
    [("CreateCourse", CourseRepository, "add"), ("PublishCourse", IdempotencyRecords, "complete")],
)
def test_a_write_that_fails_after_it_claimed_its_id_leaves_nothing_and_the_id_free(
    service: Service, monkeypatch: pytest.MonkeyPatch, method: str, repository: type[object], step: str
) -> None:
    def fail(*_: object) -> None:
        raise CourseNotDeleted("at the last moment")

    ready(service, method)
    state = everything(service)
    request = {**WRITES[method], "request_id": new_id()}
    with monkeypatch.context() as patch:
        patch.setattr(repository, step, fail)
        assert failed(service, method, **request).reason == "COURSE_NOT_DELETED"
    assert everything(service) == state
    assert call(service, method, **request)
    assert everything(service) != state


# A course and its record in one round trip


KEY = RecordKey("ann", "CreateCourse", "00000000-0000-4000-8000-000000000001")


def add(database: Database, course: Course) -> bool:
    now = datetime.now(UTC)
    return database.write_at_once(lambda stored: stored.records.add_with_course(KEY, "fingerprint", now, course))


def new_course(title: str) -> Course:
    uid = str(uuid.uuid4())
    return dataclasses.replace(COURSE, uid=uid, course_id=uid, title=title)


def recorded(database: Database) -> list[Course]:
    record = database.write(lambda stored: stored.records.find(KEY))
    return list(record.outcome.courses) if record else []


def exists(database: Database, course: Course) -> bool:
    return bool(database.read(lambda courses: courses.get(course.course_id)))


def test_a_course_comes_with_its_record_and_only_if_there_is_none(database: Database) -> None:
    first, second = new_course("Biology"), new_course("Chemistry")
    assert add(database, first)
    assert not add(database, first)  # as after a COMMIT whose answer was lost
    assert not add(database, second)
    assert exists(database, first)
    assert not exists(database, second)
    assert recorded(database) == [first]


def test_a_record_is_not_kept_without_its_course(database: Database) -> None:
    course = new_course("")  # which the table refuses
    with pytest.raises(IntegrityError):
        add(database, course)
    assert not exists(database, course)
    assert recorded(database) == []
    assert add(database, new_course("Biology"))
