"""What happens when the database goes away, is not what it should be, or waits."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic.util import CommandError
from psycopg2.extensions import TRANSACTION_STATUS_IDLE as IDLE
from sqlalchemy import create_engine, event, text
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool

from course_service.call import Call, deadline_after, remaining, working_on
from course_service.course import State
from course_service.errors import DatabaseUnavailable, DeadlineExceeded
from course_service.schemas import ChangeCourseRequest, CreateCourseRequest, UpdateCourseRequest
from course_service.services import archive_course, create_course, get_course_by_id, publish_course, update_course
from course_service.store.courses import CourseRepository
from course_service.store.database import Database, Repositories
from course_service.store.usability import DatabaseUnusable
from course_service.validation import validated
from tests.conftest import PostgresServer, migrate

REQUEST_ID = "0b5f2c1e-7d34-4c86-9a1f-3e8d2b7c6a59"


@pytest.fixture
def postgresql_url(postgres_server: PostgresServer) -> Iterator[URL]:
    with postgres_server.new_database() as url:
        migrate(url)
        yield url


@pytest.fixture
def postgresql(postgresql_url: URL) -> Iterator[Database]:
    database = Database(postgresql_url, connections=2)
    yield database
    database.close()


def request(course_id: str = "", request_id: str = "", **fields: object) -> CreateCourseRequest:
    fields = {"course": {"title": "Biology", **fields}, "course_id": course_id, "request_id": request_id}
    return validated(CreateCourseRequest, fields)


def end_sessions(server: PostgresServer, url: URL) -> None:
    """End every session of a database, as a restart would."""
    server.execute(
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{url.database}'"  # the tests' own
    )


def rows(url: URL) -> int:
    with create_engine(url, poolclass=NullPool).connect() as connection:
        return int(connection.execute(text("SELECT count(*) FROM courses")).scalar_one())


def test_sessions_that_were_ended_are_replaced_without_anybody_noticing(
    postgresql: Database, postgresql_url: URL, postgres_server: PostgresServer
) -> None:
    course = create_course(postgresql, request())
    end_sessions(postgres_server, postgresql_url)
    assert get_course_by_id(postgresql, course.course_id) == course
    end_sessions(postgres_server, postgresql_url)
    assert create_course(postgresql, request()).title == "Biology"
    end_sessions(postgres_server, postgresql_url)
    postgresql.check()
    assert rows(postgresql_url) == 2


@pytest.fixture
def lost_commit(postgresql: Database, postgresql_url: URL, postgres_server: PostgresServer) -> Callable[..., None]:
    """Have the next statement that commits carried out, but its answer lost; then something may happen."""

    def lose(meanwhile: Callable[[], None] = lambda: None) -> None:
        def commit_and_cut(cursor: Any, statement: str, parameters: object, context: object) -> bool:
            is_alone = not cursor.connection.begins and cursor.connection.info.transaction_status == IDLE
            if statement != "COMMIT" and not (is_alone and statement.startswith("INSERT")):
                return False
            event.remove(postgresql._writer, "do_execute", commit_and_cut)
            cursor.execute(statement, parameters)
            meanwhile()
            end_sessions(postgres_server, postgresql_url)
            cursor.execute("SELECT 1")  # fails as a statement would that is not answered
            return True

        event.listen(postgresql._writer, "do_execute", commit_and_cut)

    return lose


@pytest.mark.parametrize(
    ("how", "sent"),
    [
        ({"course_id": "bio"}, 1),
        ({"request_id": REQUEST_ID}, 1),
        ({"request_id": REQUEST_ID, "course_id": "bio"}, 3),
        ({"external_ids": {"sis": "A1"}}, 3),
        ({"request_id": REQUEST_ID, "external_ids": {"sis": "A1"}}, 4),
    ],
)
def test_a_create_goes_to_the_database_as_few_times_as_can_be(
    postgresql: Database, how: dict[str, Any], sent: int
) -> None:
    """Its statements and a COMMIT; a BEGIN goes with the first of them, and what is sent at once needs neither."""
    statements = []
    event.listen(postgresql._writer, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))
    course = create_course(postgresql, request(**how))
    assert len(statements) == sent
    assert get_course_by_id(postgresql, course.course_id) == course


@pytest.mark.parametrize("request_id", ["", REQUEST_ID])
def test_the_second_try_of_a_create_takes_no_external_id_that_was_given_away_meanwhile(
    postgresql: Database,
    postgresql_url: URL,
    lost_commit: Callable[..., None],
    request_id: str,
) -> None:
    def give_away() -> None:
        other = Database(postgresql_url, connections=1)
        course = {"name": "courses/bio", "external_ids": {}}
        update_course(other, validated(UpdateCourseRequest, {"course": course, "update_mask": ["external_ids"]}))
        other.close()

    lost_commit(give_away)
    create_course(postgresql, request("bio", request_id, external_ids={"sis": "A1"}))
    assert get_course_by_id(postgresql, "bio").external_ids == {}
    assert create_course(postgresql, request("heir", external_ids={"sis": "A1"})).external_ids == {"sis": "A1"}


def test_a_write_that_may_have_been_stored_is_never_said_not_to_be(
    postgresql: Database, lost_commit: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*_: object) -> None:
        raise DeadlineExceeded

    def second_try_is_slow() -> None:
        monkeypatch.setattr(CourseRepository, "add", slow)

    lost_commit(second_try_is_slow)
    with pytest.raises(DatabaseUnavailable):
        create_course(postgresql, request("bio"))
    assert get_course_by_id(postgresql, "bio").title == "Biology"


@pytest.mark.parametrize("request_id", ["", REQUEST_ID])
@pytest.mark.parametrize("course_id", ["", "bio"])
def test_a_create_whose_commit_was_not_answered_is_made_once(
    postgresql: Database, postgresql_url: URL, lost_commit: Callable[..., None], course_id: str, request_id: str
) -> None:
    lost_commit()
    course = create_course(postgresql, request(course_id, request_id))
    assert rows(postgresql_url) == 1
    assert get_course_by_id(postgresql, course.course_id) == course


def test_a_step_whose_commit_was_not_answered_is_repeated_only_under_a_request_id(
    postgresql: Database, lost_commit: Callable[..., None]
) -> None:
    create_course(postgresql, request("bio"))
    lost_commit()
    with pytest.raises(DatabaseUnavailable):
        publish_course(postgresql, ChangeCourseRequest(name="courses/bio"))
    assert get_course_by_id(postgresql, "bio").state is State.PUBLISHED
    lost_commit()
    archive = ChangeCourseRequest(name="courses/bio", request_id=REQUEST_ID)
    archived = archive_course(postgresql, archive)
    assert archived == get_course_by_id(postgresql, "bio")
    assert archived.state is State.ARCHIVED


def test_a_transaction_cut_off_in_the_middle_is_done_again(
    postgresql: Database, postgresql_url: URL, postgres_server: PostgresServer
) -> None:
    tries = []

    def work(stored: Repositories) -> int:
        tries.append(stored.courses.get("bio"))
        if len(tries) == 1:
            end_sessions(postgres_server, postgresql_url)
            stored.courses.get("bio")
        return len(tries)

    assert postgresql.write(work) == 2


def test_nothing_is_tried_again_after_the_deadline(
    postgresql: Database, postgresql_url: URL, postgres_server: PostgresServer
) -> None:
    tries = []

    def work(stored: Repositories) -> None:
        tries.append(1)
        end_sessions(postgres_server, postgresql_url)
        while remaining() > 0:
            threading.Event().wait(remaining())
        stored.courses.get("bio")

    with working_on(Call(deadline=deadline_after(0.5))), pytest.raises((DatabaseUnavailable, DeadlineExceeded)):
        postgresql.write(work)
    assert len(tries) == 1


def test_two_transactions_that_wait_for_each_other_both_succeed(
    postgresql: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    for course_id in ("a", "b"):
        create_course(postgresql, request(course_id))
    both_hold_one = threading.Barrier(2)
    tries = {"ab": 0, "ba": 0}

    def swap(order: str) -> None:
        def work(stored: Repositories) -> None:
            tries[order] += 1
            stored.courses.get(order[0], lock=True)
            if tries[order] == 1:
                both_hold_one.wait()
            stored.courses.get(order[1], lock=True)

        postgresql.write(work)

    threads = [threading.Thread(target=swap, args=[order]) for order in tries]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(tries.values()) == [1, 2]
    assert [record.getMessage() for record in caplog.records] == ["a transaction is tried again: deadlock (40P01)"]


def test_a_pool_that_is_used_up_is_unavailability(postgresql: Database) -> None:
    def hold_both(depth: int) -> object:
        if depth == 0:
            with pytest.raises(DatabaseUnavailable):
                postgresql.read(lambda courses: courses.get("x"))
            return None
        return postgresql.read(lambda _: hold_both(depth - 1))

    hold_both(2)
    assert postgresql.read(lambda courses: courses.get("x")) is None


def test_a_query_that_takes_too_long_is_told_from_a_database_that_is_not_there(postgresql: Database) -> None:
    def sleep(courses: CourseRepository) -> None:
        courses._connection.exec_driver_sql("SET statement_timeout = '50ms'")
        courses._connection.exec_driver_sql("SELECT pg_sleep(5)")

    with pytest.raises(DeadlineExceeded):
        postgresql.read(sleep)


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Database]:
    url = URL.create("sqlite", database=str(tmp_path / "course.db"))
    migrate(url)
    database = Database(url, connections=2)
    yield database
    database.close()


def test_a_query_on_sqlite_ends_at_its_deadline(sqlite: Database) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"

    def count(courses: CourseRepository) -> object:
        return courses._connection.exec_driver_sql(endless).scalar()

    start = time.monotonic()
    with working_on(Call(deadline=deadline_after(0.2))), pytest.raises(DeadlineExceeded):
        sqlite.read(count)
    assert 0.2 <= time.monotonic() - start < 1
    assert sqlite.read(lambda courses: courses.get("x")) is None


def test_a_write_on_sqlite_waits_for_a_lock_until_its_deadline_and_no_longer(sqlite: Database) -> None:
    create_course(sqlite, request("before"))
    engine = create_engine(sqlite._url, poolclass=NullPool)
    with engine.connect() as holder:
        holder.connection.dbapi_connection.isolation_level = None  # type: ignore[union-attr]  # it is connected
        holder.exec_driver_sql("BEGIN IMMEDIATE")
        start = time.monotonic()
        threads = [threading.Thread(target=expect_deadline, args=[sqlite]) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert time.monotonic() - start < 1  # though three waited in turn for one connection
        holder.exec_driver_sql("ROLLBACK")
    assert create_course(sqlite, request("after")).course_id == "after"


def expect_deadline(database: Database) -> None:
    with working_on(Call(deadline=deadline_after(0.2))), pytest.raises(DeadlineExceeded):
        create_course(database, request())


def test_a_database_of_another_encoding_is_refused(postgres_server: PostgresServer) -> None:
    postgres_server.execute("CREATE DATABASE latin ENCODING LATIN1 LOCALE 'C' TEMPLATE template0")
    try:
        database = Database(postgres_server.url.set(database="latin"), connections=1)
        with pytest.raises(DatabaseUnusable, match="UTF8 and is LATIN1"):
            database.check()
        database.close()
        with pytest.raises(CommandError, match="UTF8 and is LATIN1"):
            migrate(postgres_server.url.set(database="latin"))
    finally:
        postgres_server.execute("DROP DATABASE latin")


def test_sessions_are_in_utc_with_time_limits_whatever_the_url_adds(postgresql_url: URL) -> None:
    def shown(database: Database, name: str) -> object:
        with database._reader.connect() as connection:
            return connection.execute(text(f"SHOW {name}")).scalar()

    database = Database(postgresql_url.set(query={**postgresql_url.query, "options": "-c work_mem=5MB"}), connections=1)
    names = ("timezone", "statement_timeout", "lock_timeout", "work_mem")
    assert [shown(database, name) for name in names] == ["UTC", "5s", "2s", "5MB"]
    database.close()
    plain = Database(postgresql_url, connections=1, session_settings=False)
    assert shown(plain, "timezone") == "Asia/Tokyo"
    course = create_course(plain, request())
    assert get_course_by_id(plain, course.course_id).create_time.isoformat().endswith("+00:00")
    plain.close()
