"""D4, D6: one write per request_id, and no update lost, whoever writes at the same time and whatever reply is lost."""

import functools
import random
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx2
import pytest
from course.v1 import course_pb2, course_pb2_grpc
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL, make_url

from tests.conftest import migrate
from tests.faults.support.counts import count
from tests.faults.support.figures import record
from tests.faults.support.load import code_of, courses, retrying
from tests.faults.support.postgres import Postgres
from tests.faults.support.proxy import TcpProxy
from tests.faults.support.service import running
from tests.support.at_once import at_once

DUPLICATES = 8
LOST_SHARE = 0.2
"""How many replies to a COMMIT are lost."""
ONCE = "one create per request_id, though duplicates come at once and replies to COMMIT are lost"


@dataclass(frozen=True)
class Duplicates:
    """What was seen of creates that were sent several times at once."""

    ids: int
    rows: int
    answers: int
    """Different answers, over all ids."""
    lost_replies: int

    def __str__(self) -> str:
        return (
            f"{self.ids} ids × {DUPLICATES} at once: {self.rows} courses, {self.answers} different answers;"
            f" {self.lost_replies} lost replies"
        )


def each_is_done_once(figures: Duplicates) -> None:
    assert figures.rows == figures.ids == figures.answers, figures


def send_duplicates(postgres: Postgres, ids: int, fault: str | None = None) -> Duplicates:
    chance = random.Random(4)
    answers: set[tuple[int, bytes]] = set()
    with ExitStack() as stack:
        url = stack.enter_context(postgres.new_database())
        proxy = stack.enter_context(TcpProxy(("127.0.0.1", postgres.port)))
        service = stack.enter_context(running(url.set(port=proxy.port), fault, COURSE_HTTP_ADDRESS=""))
        stubs = [stack.enter_context(courses(service.grpc_address)) for _ in range(DUPLICATES)]
        proxy.drop_replies(lambda chunk: b"COMMIT" in chunk and chance.random() < LOST_SHARE)

        def create(stub: course_pb2_grpc.CourseServiceStub, request: course_pb2.CreateCourseRequest) -> bytes:
            course = retrying(lambda seconds: stub.CreateCourse(request, timeout=seconds), seconds=30)
            return course.SerializeToString(deterministic=True)

        for number in range(ids):
            request = course_pb2.CreateCourseRequest(
                course=course_pb2.Course(title=f"Course {number}"), request_id=str(uuid.uuid4())
            )
            found = at_once(*(functools.partial(create, stub, request) for stub in stubs))
            answers.update((number, answer) for answer in found)
        return Duplicates(ids, rows_of(url), len(answers), proxy.lost_replies)


def rows_of(url: URL) -> int:
    engine = create_engine(url)
    with engine.connect() as connection:
        rows: int = connection.execute(text("SELECT count(*) FROM courses")).scalar_one()
    engine.dispose()
    return rows


def test_one_create_per_request_id_though_commit_replies_are_lost(postgres: Postgres) -> None:
    figures = send_duplicates(postgres, count(60, 500))
    each_is_done_once(figures)
    assert figures.lost_replies > 0
    record("D4", ONCE, str(figures))


def test_without_the_claim_duplicates_are_done_again(postgres: Postgres) -> None:
    figures = send_duplicates(postgres, 5, fault="no_claim")
    with pytest.raises(AssertionError):
        each_is_done_once(figures)
    record("D4", ONCE, control=f"request_id not claimed: {figures}")


NO_LOST_UPDATE = "no update is lost: read, change, write with the etag"


@dataclass(frozen=True)
class Counting:
    """What was seen of callers who count in the same course."""

    acknowledged: int
    counted: int
    mismatches: int
    """How often another caller was faster."""

    def __str__(self) -> str:
        return f"{self.acknowledged} updates acknowledged, {self.counted} counted, {self.mismatches} etags refused"


def none_is_lost(figures: Counting) -> None:
    assert figures.counted == figures.acknowledged, figures


def count_together(url: URL, updates: int, fault: str | None = None) -> Counting:
    """Let 8 callers, half of them by HTTP, add 1 to a number in the same course until each has done its share."""
    with ExitStack() as stack:
        service = stack.enter_context(running(url, fault))
        stubs = [stack.enter_context(courses(service.grpc_address)) for _ in range(4)]
        clients = [stack.enter_context(httpx2.Client(base_url=service.http_address, timeout=10)) for _ in range(4)]
        new = course_pb2.Course(title="Counter", code="0")
        name = stubs[0].CreateCourse(course_pb2.CreateCourseRequest(course=new), timeout=5).name

        def by_grpc(stub: course_pb2_grpc.CourseServiceStub) -> bool:
            course = stub.GetCourse(course_pb2.GetCourseRequest(name=name), timeout=5)
            changed = course_pb2.Course(name=name, code=str(int(course.code) + 1), etag=course.etag)
            try:
                stub.UpdateCourse(course_pb2.UpdateCourseRequest(course=changed), timeout=5)
            except grpc.RpcError as error:
                if code_of(error) is not grpc.StatusCode.ABORTED:
                    raise
                return False
            return True

        def by_http(client: httpx2.Client) -> bool:
            course = client.get(f"/{name}").json()
            changed = {"code": str(int(course["code"]) + 1)}
            response = client.patch(f"/{name}", json=changed, headers={"If-Match": course["etag"]})
            assert response.status_code in {200, 412}, response.text
            return response.status_code == 200

        def share(add: Callable[[], bool]) -> int:
            done = tries = 0
            while done < updates // 8:
                done += add()
                tries += 1
            return tries

        adds = [functools.partial(by_grpc, stub) for stub in stubs]
        adds += [functools.partial(by_http, client) for client in clients]
        tries = sum(at_once(*(functools.partial(share, add) for add in adds)))
        counted = int(stubs[0].GetCourse(course_pb2.GetCourseRequest(name=name), timeout=5).code)
    done = updates // 8 * 8
    return Counting(done, counted, tries - done)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[URL]:
    """A migrated, empty database."""
    if request.param == "sqlite":
        url = make_url(f"sqlite:///{tmp_path / 'course.db'}")
        migrate(url)
        yield url
    else:
        server: Postgres = request.getfixturevalue("postgres")
        with server.new_database() as url:
            yield url


def test_no_update_is_lost(url: URL) -> None:
    figures = count_together(url, count(160, 2_000))
    none_is_lost(figures)
    record("D6", f"{NO_LOST_UPDATE} ({url.get_backend_name()})", str(figures))


FAULTS = {
    "postgresql": ("no_revision_in_where", "revision left out of the WHERE"),
    # Its transactions exclude each other from their begin, so that only the comparison stands between two writers.
    "sqlite": ("no_etag_compared", "etag not compared"),
}


def test_without_the_etag_updates_are_lost(url: URL) -> None:
    fault, description = FAULTS[url.get_backend_name()]
    figures = count_together(url, 80, fault)
    with pytest.raises(AssertionError):
        none_is_lost(figures)
    record("D6", f"{NO_LOST_UPDATE} ({url.get_backend_name()})", control=f"{description}: {figures}")
