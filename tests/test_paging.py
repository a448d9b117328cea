"""ListCourses: pages, orders and tokens."""

import random
import string
import threading
from typing import Any

import pytest
from course.v1 import course_pb2
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool

from course_service.errors import OrderByInvalid
from course_service.paging import parse_order_by
from tests.conftest import Service
from tests.support.calls import call, create, failed, names
from tests.support.failures import http_failure


def create_many(service: Service, prefix: str, count: int, **fields: Any) -> list[str]:
    ids = [f"{prefix}{number:05}" for number in range(count)]
    for start in range(0, count, 100):
        requests = [
            {"course": {"title": "x", **fields}, "course_id": course_id} for course_id in ids[start : start + 100]
        ]
        call(service, "BatchCreateCourses", requests=requests)
    return ids


def test_a_walk_gets_every_untouched_course_once_while_others_come_and_go(service: Service, database_url: URL) -> None:
    untouched = create_many(service, "stay", 2_300)
    doomed = create_many(service, "go", 200)
    with create_engine(database_url, poolclass=NullPool).begin() as connection:
        # All in one place of the order, so that only the name tells them apart.
        time = "2026-01-01 00:00:00.000000" + ("" if database_url.drivername == "sqlite" else "+00")
        connection.execute(text("UPDATE courses SET create_time = :time, update_time = :time"), {"time": time})
    walking = threading.Event()

    def disturb() -> None:
        walking.wait()
        new = iter(range(500))
        shuffled = random.Random(7).sample(doomed, len(doomed))
        for course_id in shuffled:
            call(service, "DeleteCourse", name=f"courses/{course_id}")
            for number in (next(new, None) for _ in range(3)):
                if number is not None:
                    create(service, f"{random.choice('agmstz')}new{number}")

    disturber = threading.Thread(target=disturb)
    disturber.start()
    found: list[str] = []
    token, pages = "", 0
    while pages == 0 or token:
        page = call(service, "ListCourses", page_size=7, page_token=token)
        found += [course.name.removeprefix("courses/") for course in page.courses]
        token, pages = page.next_page_token, pages + 1
        walking.set()
    disturber.join()
    assert [course_id for course_id in found if course_id.startswith("stay")] == untouched
    assert len(found) == len(set(found))


def test_the_size_of_a_page(service: Service) -> None:
    create_many(service, "c", 1_100)

    def size(page_size: int) -> int:
        return len(call(service, "ListCourses", page_size=page_size).courses)

    assert [size(0), size(1), size(1_000), size(5_000), size(2**31 - 1)] == [50, 1, 1_000, 1_000, 1_000]
    failure = failed(service, "ListCourses", page_size=-1)
    assert (failure.status, failure.reason) == ("INVALID_ARGUMENT", "PAGE_SIZE_NEGATIVE")


def test_the_last_page_has_no_token_also_when_it_is_full(service: Service) -> None:
    create_many(service, "c", 10)
    first = call(service, "ListCourses", page_size=5)
    assert first.next_page_token
    second = call(service, "ListCourses", page_size=5, page_token=first.next_page_token)
    assert (len(second.courses), second.next_page_token) == (5, "")
    assert call(service, "ListCourses", page_size=10).next_page_token == ""


def test_a_token_of_another_list_is_refused_and_another_page_size_is_not(service: Service) -> None:
    create_many(service, "c", 10)
    token = call(service, "ListCourses", page_size=5).next_page_token
    assert len(call(service, "ListCourses", page_size=2, page_token=token).courses) == 2
    others: list[dict[str, Any]] = [
        {"filter": "state = DRAFT"},
        {"order_by": "title"},
        {"show_deleted": True},
        {"view": course_pb2.COURSE_VIEW_FULL},
    ]
    for other in others:
        failure = failed(service, "ListCourses", page_size=5, page_token=token, **other)
        assert (failure.status, failure.reason) == ("INVALID_ARGUMENT", "PAGE_TOKEN_MISMATCH"), other


def test_a_token_with_one_bit_flipped_is_refused(service: Service) -> None:
    create_many(service, "c", 10)
    token = call(service, "ListCourses", page_size=5).next_page_token.encode()
    for position in range(len(token)):
        for bit in range(7):
            flipped = bytearray(token)
            flipped[position] ^= 1 << bit
            reason = failed(service, "ListCourses", page_size=5, page_token=flipped.decode()).reason
            assert reason == "PAGE_TOKEN_INVALID", (position, bit)
    # The last character has bits that Base64 does not use; they count all the same.
    alphabet = (string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_").encode()
    last = alphabet.index(token[-1:])
    for other in {last // 4 * 4 + offset for offset in range(4)} - {last}:
        spare = token[:-1] + alphabet[other : other + 1]
        assert failed(service, "ListCourses", page_size=5, page_token=spare).reason == "PAGE_TOKEN_INVALID"


@pytest.mark.parametrize("token", ["x", "é", "a.b", "A" * 100_000, "WyJhIl0.AAAA"])
def test_a_token_of_nobodys_making_is_refused(service: Service, token: str) -> None:
    assert failed(service, "ListCourses", page_token=token).reason == "PAGE_TOKEN_INVALID"


def test_a_page_of_large_courses_ends_early_and_none_is_lost(service: Service) -> None:
    ids = []
    for start in range(0, 300, 10):
        ids += [f"c{start + number:03}" for number in range(10)]
        course = {"title": "x", "description": "é" * 30_000}
        call(
            service,
            "BatchCreateCourses",
            requests=[{"course": course, "course_id": course_id} for course_id in ids[-10:]],
        )
    found: list[str] = []
    token, pages = "", 0
    while pages == 0 or token:
        page = call(service, "ListCourses", page_size=1_000, page_token=token, view=course_pb2.COURSE_VIEW_FULL)
        assert 1 <= page.ByteSize() < 4 << 20
        assert all(len(course.description) == 30_000 for course in page.courses)
        found += [course.name.removeprefix("courses/") for course in page.courses]
        token, pages = page.next_page_token, pages + 1
    assert found == ids
    assert 5 <= pages <= 8
    basic = call(service, "ListCourses", page_size=1_000)
    assert len(basic.courses) == 300
    assert not any(course.description for course in basic.courses)


SHUFFLED = [
    ("e", {"title": "b", "code": "1"}),
    ("d", {"title": "a", "code": "2"}),
    ("c", {"title": "b", "code": "2"}),
    ("b", {"title": "é", "code": ""}),
    ("a", {"title": "Z", "code": "1"}),
    ("f", {"title": "\uffff", "code": "1"}),
    ("g", {"title": "\U00010000", "code": "1"}),
]


@pytest.mark.parametrize(
    ("order_by", "expected"),
    [
        ("", "edcbafg"),
        ("create_time", "edcbafg"),
        ("create_time desc", "gfabcde"),
        ("update_time desc", "gfabcde"),
        ("title", "adcebfg"),  # by code point: upper before lower case, é after z, and no UTF-16 order
        ("title desc", "gfbecda"),
        (" code desc , title", "dcaefgb"),
        ("code, title desc", "bgfeacd"),
        ("code,title,create_time desc", "baefgdc"),
        ("title desc, code desc", "gfbceda"),
    ],
)
@pytest.mark.parametrize("page_size", [1, 2, 100])
def test_every_order_page_by_page(service: Service, order_by: str, expected: str, page_size: int) -> None:
    for course_id, fields in SHUFFLED:
        create(service, course_id, **fields)
    assert "".join(names(service, order_by=order_by, page_size=page_size)) == expected


def test_equal_courses_are_in_the_order_of_their_names_in_the_direction_of_the_last_field(service: Service) -> None:
    for course_id in "cab":
        create(service, course_id)
    assert names(service, order_by="title") == ["a", "b", "c"]
    assert names(service, order_by="title desc", page_size=1) == ["c", "b", "a"]
    assert names(service, order_by="code, title desc", page_size=1) == ["c", "b", "a"]


@pytest.mark.parametrize(
    ("order_by", "position"),
    [("nope", 0), ("title,", 6), ("title, nope", 6), ("title; DROP TABLE courses", 0), ("title,title desc", 6),
     ("title DESC", 0), ("description", 0), (",", 0), ("title desc desc", 0), ("x" * 257, 256)],
)  # fmt: skip
def test_an_order_that_is_none_is_refused(service: Service, order_by: str, position: int) -> None:
    with pytest.raises(OrderByInvalid):
        parse_order_by(order_by)
    failure = failed(service, "ListCourses", order_by=order_by)
    assert (failure.status, failure.reason) == ("INVALID_ARGUMENT", "ORDER_BY_INVALID")
    assert failure.metadata == {"position": str(position)}


def test_an_unknown_view_is_refused(service: Service) -> None:
    assert failed(service, "ListCourses", view=7).violations == {"view": "FIELD_WRONG_TYPE"}
    assert http_failure(service.http.get("/courses?view=ALL"), 422).violations == {"view": "FIELD_WRONG_TYPE"}
