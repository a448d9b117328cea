"""D4, A5: what is said of a write that was cut off is true; one connection that hangs costs one call."""

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import grpc
import pytest
from course.v1 import course_pb2
from sqlalchemy.engine import URL

from course_service.call import Call, deadline_after, working_on
from course_service.errors import CourseError, DeadlineExceeded
from course_service.schemas import CreateCourseRequest
from course_service.services import create_course
from course_service.store import database as database_module
from course_service.store.database import Database
from course_service.validation import validated
from tests.faults.support.counts import count
from tests.faults.support.figures import record
from tests.faults.support.load import code_of, courses
from tests.faults.support.postgres import Postgres
from tests.faults.support.proxy import TcpProxy
from tests.faults.support.service import running

NOTHING = "a write that ends in DEADLINE_EXCEEDED has stored nothing, one that succeeds is stored"
SECONDS = 0.3
MOMENTS = 8
"""More than the messages that a create sends to the database."""


@dataclass(frozen=True)
class CutOff:
    """How creates ended whose database froze at one of their messages, and which of them are stored after all."""

    ended: Counter[str]
    stored: Counter[str]

    def __str__(self) -> str:
        return ", ".join(f"{n} {how} ({self.stored[how]} stored)" for how, n in sorted(self.ended.items()))


def is_true(figures: CutOff) -> None:
    assert figures.stored["DeadlineExceeded"] == 0, figures
    assert figures.stored["OK"] == figures.ended["OK"] > 0, figures
    assert figures.ended.keys() <= {"OK", "DeadlineExceeded", "DatabaseUnavailable"}, figures
    assert figures.ended["DeadlineExceeded"] > 0, figures
    assert figures.ended["DatabaseUnavailable"] > 0, figures


def cut_off(postgres: Postgres, url: URL, rounds: int) -> CutOff:
    """Freeze PostgreSQL at the first, second, … message of a create, until the create has given up."""
    ended: Counter[str] = Counter()
    stored: Counter[str] = Counter()
    with TcpProxy(("127.0.0.1", postgres.port)) as proxy:
        database = Database(url.set(port=proxy.port), connections=2)
        for number in range(rounds * MOMENTS):
            request_id = f"00000000-0000-4000-8000-{number:012}" if number // MOMENTS % 2 else ""
            course_id = f"c{number}"
            new = {"course": {"title": "A"}, "course_id": course_id, "request_id": request_id}
            request = validated(CreateCourseRequest, new)
            database.read(lambda courses: courses.get("none"))  # so that a connection is open
            proxy.drop_replies(freezing(postgres, number % MOMENTS))
            how = "OK"
            try:
                with working_on(Call(deadline=deadline_after(SECONDS))):
                    create_course(database, request)
            except CourseError as error:
                how = type(error).__name__
            proxy.drop_replies(None)
            postgres.thaw()
            ended[how] += 1
            stored[how] += is_stored(postgres, url, course_id)
        database.close()
    return CutOff(ended, stored)


def freezing(postgres: Postgres, moment: int) -> Callable[[bytes], bool]:
    """Freeze PostgreSQL just before it gets the message of a moment; the message is then delivered and lies there."""
    seen = 0

    def look(_: bytes) -> bool:
        nonlocal seen
        if seen == moment:
            postgres.freeze()
        seen += 1
        return False

    return look


def is_stored(postgres: Postgres, url: URL, course_id: str) -> bool:
    """Whether a course is stored once every transaction has ended."""
    others = f"datname = '{url.database}' AND pid <> pg_backend_pid()"
    while postgres.execute(f"SELECT 1 FROM pg_stat_activity WHERE {others} AND state <> 'idle'", url.database or ""):
        time.sleep(0.01)
    return bool(postgres.execute(f"SELECT 1 FROM courses WHERE course_id = '{course_id}'", url.database or ""))


def test_a_write_that_ends_in_deadline_exceeded_has_stored_nothing(postgres: Postgres) -> None:
    with postgres.new_database() as url:
        figures = cut_off(postgres, url, rounds=count(2, 20))
    is_true(figures)
    record("D4", NOTHING, str(figures))


def test_a_commit_without_a_response_is_no_deadline_exceeded(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "DatabaseUnavailable", lambda _: DeadlineExceeded())
    with postgres.new_database() as url:
        figures = cut_off(postgres, url, rounds=2)
    with pytest.raises(AssertionError):
        is_true(figures)
    record("D4", NOTHING, control=f"a lost COMMIT counts as not done: {figures}")


ONE = "one connection that hangs costs its call and no other"


def freeze_one(postgres: Postgres, url: URL, fault: str | None = None) -> Counter[str]:
    """Freeze the one process of PostgreSQL that works for the service; returns how 20 calls end."""
    ended: Counter[str] = Counter()
    with ExitStack() as stack:
        service = stack.enter_context(running(url, fault, COURSE_HTTP_ADDRESS="", COURSE_THREADS="1"))
        stub = stack.enter_context(courses(service.grpc_address))
        name = stub.CreateCourse(course_pb2.CreateCourseRequest(course=course_pb2.Course(title="A")), timeout=5).name
        ((pid,),) = postgres.execute(
            f"SELECT pid FROM pg_stat_activity WHERE datname = '{url.database}' AND query LIKE 'INSERT%'"
        )
        os.kill(pid, signal.SIGSTOP)
        stack.callback(os.kill, pid, signal.SIGCONT)
        for _ in range(20):
            try:
                stub.GetCourse(course_pb2.GetCourseRequest(name=name), timeout=0.5)
                ended["OK"] += 1
            except grpc.RpcError as error:
                ended[code_of(error).name] += 1
    return ended


def costs_one(ended: Counter[str]) -> None:
    assert ended == {"OK": 19, "DEADLINE_EXCEEDED": 1}, ended


def in_words(ended: Counter[str]) -> str:
    return ", ".join(f"{n} {code}" for code, n in ended.items())


def test_one_connection_that_hangs_costs_one_call(postgres: Postgres) -> None:
    with postgres.new_database() as url:
        ended = freeze_one(postgres, url)
    costs_one(ended)
    record("A5", ONE, in_words(ended))


def test_a_driver_that_waits_without_limit_hangs_with_its_connection(postgres: Postgres) -> None:
    with postgres.new_database() as url:
        ended = freeze_one(postgres, url, fault="no_wait_callback")
    with pytest.raises(AssertionError):
        costs_one(ended)
    record("A5", ONE, control=f"the driver waits without limit: {in_words(ended)}")
