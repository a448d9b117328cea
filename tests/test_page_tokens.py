"""The secrets of page tokens are replaced while lists are read."""

import dataclasses
from pathlib import Path

import grpc
import pytest
from course.v1 import course_pb2, course_pb2_grpc
from sqlalchemy.engine import URL

from course_service.schemas import ListCoursesRequest
from course_service.services import list_courses
from course_service.store.database import Database
from course_service.tokens import PageTokens
from tests.support.certificates import replace
from tests.support.processes import running
from tests.support.repeating import repeating
from tests.support.waiting import until
from tests.test_repository import COURSE, add

OLD, NEW = "the-old-secret-of-both", "the-new-secret-of-both"


def add_courses(database: Database) -> None:
    for number in range(6):
        uid = f"01994a1c-0000-7000-8000-00000000000{number}"
        add(database, dataclasses.replace(COURSE, uid=uid, course_id=f"c{number}"))


def test_no_replica_loses_its_place_while_a_secret_is_replaced(database: Database) -> None:
    add_courses(database)
    here, there = PageTokens(OLD), PageTokens(OLD)  # two replicas
    token, found = "", 0
    for mine, others in (([OLD], [OLD, NEW]), ([NEW, OLD], [OLD, NEW]), ([NEW, OLD], [NEW])):
        here.use(*mine)
        there.use(*others)
        for tokens in (here, there):
            page = list_courses(database, tokens, ListCoursesRequest(page_size=1, page_token=token))
            found += len(page.courses)
            token = page.next_page_token
            if not token:
                break
    assert found == 6


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_the_file_of_secrets_is_read_again_and_a_bad_one_is_not_taken(
    database: Database, database_url: URL, tmp_path: Path
) -> None:
    add_courses(database)
    path = tmp_path / "secrets"
    path.write_text(OLD)
    with (
        running(database_url, COURSE_PAGE_TOKEN_SECRET_FILE=str(path)) as process,
        grpc.insecure_channel(process.grpc_address) as channel,
    ):
        courses = course_pb2_grpc.CourseServiceStub(channel)

        def next_token(token: str = "") -> str:
            request = course_pb2.ListCoursesRequest(page_size=1, page_token=token)
            try:
                return str(courses.ListCourses(request, timeout=20).next_page_token)
            except grpc.RpcError as error:
                return str(error.code())

        def walk() -> None:
            token = next_token()
            while token:
                assert not token.startswith("StatusCode"), token
                token = next_token(token)

        old = next_token()
        with repeating(walk):
            replace(path, f"{NEW}\n{OLD}\n".encode())
            until(lambda: next_token() != old)
            assert next_token(old) == next_token(next_token())
            replace(path, b"short")
            process.wait_for("has to have secrets of 16 characters at least, one a line; (what was read before)")
            assert next_token(old) == next_token(next_token())
        with repeating(walk):  # whose tokens all have the new signature
            replace(path, NEW.encode())
            until(lambda: next_token(old) == "StatusCode.INVALID_ARGUMENT")
