"""From DRAFT to purged: every state and every step."""

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from course.v1 import course_pb2
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool

from course_service.call import MAX_SECONDS, is_working, remaining
from course_service.services import purge
from course_service.store.courses import CourseRepository
from course_service.store.database import Database
from tests.conftest import Service
from tests.support.calls import call, create, failed, get, names

WAY_TO = {
    "DRAFT": [],
    "PUBLISHED": ["PublishCourse"],
    "ARCHIVED": ["PublishCourse", "ArchiveCourse"],
    "DELETED": ["DeleteCourse"],
}


def course_in(service: Service, state: str, course_id: str = "bio") -> course_pb2.Course:
    course = create(service, course_id)
    for step in WAY_TO[state]:
        course = call(service, step, name=course.name)
    assert course_pb2.Course.State.Name(course.state) == state
    return course


@pytest.mark.parametrize("state", WAY_TO)
@pytest.mark.parametrize(
    ("step", "target", "allowed_from", "refusal"),
    [
        ("PublishCourse", "PUBLISHED", {"DRAFT", "ARCHIVED"}, ("FAILED_PRECONDITION", "INVALID_STATE_TRANSITION")),
        ("ArchiveCourse", "ARCHIVED", {"PUBLISHED"}, ("FAILED_PRECONDITION", "INVALID_STATE_TRANSITION")),
        ("DeleteCourse", "DELETED", {"DRAFT", "PUBLISHED", "ARCHIVED"}, ("NOT_FOUND", "COURSE_NOT_FOUND")),
        ("UndeleteCourse", "DRAFT", {"DELETED"}, ("ALREADY_EXISTS", "COURSE_NOT_DELETED")),
    ],
)
def test_every_step_from_every_state(
    service: Service, state: str, step: str, target: str, allowed_from: set[str], refusal: tuple[str, str]
) -> None:
    before = course_in(service, state)
    if state in allowed_from:
        after = call(service, step, name=before.name)
        assert course_pb2.Course.State.Name(after.state) == target
        assert after.etag != before.etag
        assert after.update_time.ToDatetime() >= before.update_time.ToDatetime()
        assert get(service, before.name) == after
    else:
        failure = failed(service, step, name=before.name)
        assert (failure.status, failure.reason) == refusal
        if refusal[0] == "FAILED_PRECONDITION":
            assert (failure.metadata["from"], failure.metadata["to"]) == (state, target)
        assert get(service, before.name) == before


@pytest.mark.parametrize("step", ["PublishCourse", "ArchiveCourse", "DeleteCourse", "UndeleteCourse"])
def test_a_step_of_no_course_or_of_another_version_is_refused(service: Service, step: str) -> None:
    assert failed(service, step, name="courses/nope").reason == "COURSE_NOT_FOUND"
    assert failed(service, step, name="courses/A").violations == {"name": "FIELD_BAD_FORMAT"}
    course = course_in(service, {"ArchiveCourse": "PUBLISHED", "UndeleteCourse": "DELETED"}.get(step, "DRAFT"))
    other = create(service)
    failure = failed(service, step, name=course.name, etag=other.etag)
    assert (failure.status, failure.reason) == ("ABORTED", "ETAG_MISMATCH")
    assert call(service, step, name=course.name, etag=course.etag).etag != course.etag


def test_deleting_and_bringing_back(service: Service) -> None:
    archived = course_in(service, "ARCHIVED")
    deleted = call(service, "DeleteCourse", name=archived.name)
    assert deleted.state == course_pb2.Course.DELETED
    assert deleted.purge_time.ToDatetime() - deleted.delete_time.ToDatetime() == timedelta(days=30)
    assert get(service, archived.name) == deleted
    assert names(service) == []
    assert names(service, show_deleted=True) == ["bio"]

    assert failed(service, "DeleteCourse", name=archived.name).reason == "COURSE_NOT_FOUND"
    assert call(service, "DeleteCourse", name=archived.name, allow_missing=True) == deleted
    assert call(service, "DeleteCourse", name="courses/never", allow_missing=True) == course_pb2.Course()

    failure = failed(service, "CreateCourse", course={"title": "x"}, course_id="bio")
    assert (failure.status, failure.reason) == ("ALREADY_EXISTS", "COURSE_ID_HELD_BY_DELETED_COURSE")

    back = call(service, "UndeleteCourse", name=archived.name)
    assert (back.state, back.uid) == (course_pb2.Course.ARCHIVED, archived.uid)
    assert not back.HasField("delete_time")
    assert not back.HasField("purge_time")
    failure = failed(service, "UndeleteCourse", name=archived.name)
    assert (failure.status, failure.reason) == ("ALREADY_EXISTS", "COURSE_NOT_DELETED")


def test_an_external_id_has_one_holder_until_purged(service: Service, database: Database, database_url: URL) -> None:
    create(service, "a", external_ids={"sis": "A1", "canvas": "7"})
    failure = failed(service, "CreateCourse", course={"title": "x", "external_ids": {"lms": "1", "sis": "A1"}})
    assert (failure.status, failure.reason) == ("ALREADY_EXISTS", "EXTERNAL_ID_IN_USE")
    assert failure.metadata == {"key": "sis", "value": "A1"}
    create(service, "b", external_ids={"other": "A1"})
    failure = failed(service, "UpdateCourse", course={"name": "courses/b", "external_ids": {"sis": "A1"}})
    assert failure.metadata["key"] == "sis"
    assert names(service, filter='external_ids.sis = "A1"') == ["a"]

    call(service, "DeleteCourse", name="courses/a")
    assert failed(service, "CreateCourse", course={"title": "x", "external_ids": {"sis": "A1"}}).status == (
        "ALREADY_EXISTS"
    )
    let_time_pass(database_url)
    assert purge(database).courses == 1
    assert create(service, "c", external_ids={"sis": "A1"}).external_ids == {"sis": "A1"}


def test_external_ids_change_hands_without_a_false_conflict(service: Service) -> None:
    create(service, "a", external_ids={"sis": "1", "lms": "2"})
    create(service, "b", external_ids={"sis": "3"})

    def update(course_id: str, external_ids: dict[str, str]) -> None:
        after = call(
            service,
            "UpdateCourse",
            course={"name": f"courses/{course_id}", "external_ids": external_ids},
            update_mask={"paths": ["external_ids"]},
        )
        assert after.external_ids == external_ids

    update("a", {"sis": "2", "lms": "1"})  # values swapped within one course
    update("a", {"lms": "1"})
    update("b", {"sis": "2"})  # free since the step before
    update("a", {"lms": "1", "sis": "3"})  # and so is b's old one
    assert names(service, filter='external_ids.sis = "3"') == ["a"]
    assert names(service, filter='external_ids.sis = "2"') == ["b"]


def test_an_external_id_that_changes_hands_is_never_held_by_two_or_none(service: Service) -> None:
    flipper = create(service, "flip", external_ids={"sis": "1"}).name
    done = threading.Event()

    def flip() -> None:
        while not done.is_set():
            for external_ids in ({}, {"sis": "1"}):
                with contextlib.suppress(grpc.RpcError):  # somebody else may have it just then
                    course = {"name": flipper, "external_ids": external_ids}
                    call(service, "UpdateCourse", course=course, update_mask={"paths": ["external_ids"]})

    def take(number: int) -> None:
        for attempt in range(40):
            try:
                course = create(service, f"c{number}-{attempt}", external_ids={"sis": "1"})
            except grpc.RpcError as error:
                assert error.code() is grpc.StatusCode.ALREADY_EXISTS  # noqa: PT017  # either outcome is right
                continue
            assert names(service, filter="external_ids.sis = 1") == [course.name.removeprefix("courses/")]
            course_without = {"name": course.name}
            call(service, "UpdateCourse", course=course_without, update_mask={"paths": ["external_ids"]})

    flipping = threading.Thread(target=flip)
    flipping.start()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(take, range(4)))
    done.set()
    flipping.join()
    holders = [
        course.name
        for course in call(service, "ListCourses", page_size=1_000).courses
        if course.external_ids.get("sis") == "1"
    ]
    assert len(holders) <= 1
    assert [f"courses/{name}" for name in names(service, filter="external_ids.sis = 1")] == holders


def let_time_pass(url: URL) -> None:
    """Make everything 31 days older."""
    engine = create_engine(url, poolclass=NullPool)
    columns = ("create_time", "update_time", "delete_time", "purge_time")
    earlier = (
        "strftime('%Y-%m-%d %H:%M:%f000', {0}, '-31 days')"
        if url.drivername == "sqlite"
        else "{0} - interval '31 days'"
    )
    with engine.begin() as connection:
        changes = ", ".join(f"{column} = {earlier.format(column)}" for column in columns)
        connection.execute(text(f"UPDATE courses SET {changes}"))
        connection.execute(text(f"UPDATE answers SET create_time = {earlier.format('create_time')}"))


def test_purge_waits_for_no_database_for_ever(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of its transactions has the deadline of a call, which bounds whatever it waits for."""
    bounded: list[bool] = []

    def nothing(*_: object) -> int:
        bounded.append(is_working() and remaining() <= MAX_SECONDS)
        return 0

    monkeypatch.setattr(CourseRepository, "purge", nothing)
    purge(database)
    assert bounded == [True]


def test_purge_removes_what_is_past_its_time_and_nothing_else(
    service: Service, database: Database, database_url: URL
) -> None:
    old_id = "11111111-1111-4111-8111-111111111111"
    call(service, "CreateCourse", course={"title": "x"}, request_id=old_id)
    for number in range(1_001):
        if number % 100 == 0:
            requests = [{"course": {"title": "x"}, "course_id": f"d{number + index}"} for index in range(100)]
            call(service, "BatchCreateCourses", requests=requests)
    engine = create_engine(database_url, poolclass=NullPool)
    delete = "UPDATE courses SET state = 'DELETED', state_before_delete = 'DRAFT', delete_time = :t, purge_time = :p"
    with engine.begin() as connection:
        now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f") + ("" if engine.dialect.name == "sqlite" else "+00")
        times = {"t": now, "p": now}
        connection.execute(text(f"{delete} WHERE course_id LIKE 'd%'"), times)
    let_time_pass(database_url)
    create(service, "live")
    call(service, "DeleteCourse", name=create(service, "fresh").name)
    call(service, "CreateCourse", course={"title": "x"}, request_id=old_id.replace("1", "2"))

    purged = purge(database)
    assert (purged.courses, purged.records) == (1_100, 1)
    assert purge(database).courses == 0
    assert {"live", "fresh"} <= set(names(service, show_deleted=True))
    assert len(names(service, show_deleted=True)) == 4
