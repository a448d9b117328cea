"""Nothing leaks: no secret and no caller's data in what failed calls and the log say, and no memory over time."""

import contextlib
import re
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx2
import pytest
from course.v1 import course_pb2, course_pb2_grpc
from sqlalchemy.engine import URL, make_url

from tests.conftest import migrate
from tests.faults.support.callers import CHANNEL_OPTIONS, create_by_grpc
from tests.faults.support.counts import count
from tests.faults.support.figures import record
from tests.faults.support.http2 import SERVICE, Connection, framed
from tests.faults.support.postgres import Postgres
from tests.faults.support.service import Service, running

# W8: canaries.

# "canary" is in what nobody may ever hear of: the database's URL, its objects, its errors, bugs, values of fields,
# headers. "parrot" is in what a failed call may say again to its caller: names, fields, paths,
# external ids that others have; but the log may not.
TRACES = (
    r"\b(SELECT|INSERT INTO|UPDATE courses|Traceback|psycopg2|sqlalchemy|site-packages)\b"
    r'|\.py\b|File "|/(usr|home|root)/'
)
NEVER_IN_RESPONSES = re.compile(f"canary|{TRACES}", re.I)
NEVER_IN_LOG = re.compile(f"canary|parrot|{TRACES}", re.I)

CALL_SECONDS = 0.5
"""How long a caller waits: as long as that if the database is frozen."""
METADATA = (("x-secret", "canary-metadata"), ("authorization", "Bearer canary-token"), ("x-secret-bin", b"canary"))
COURSE: dict[str, Any] = {
    "title": "canary title",
    "code": "canary code",
    "description": "canary description",
    "owner": "users/canary",
    "subjects": ["canary subject"],
    "labels": {"parrot": "canary label"},
    "external_ids": {"parrot": "parrot external id"},
}
WRONG_COURSE = COURSE | {
    "title": " canary\ttitle\0",
    "owner": "canary owner",
    "language_code": "canary-canary",
    "subjects": ["canary", "canary"],
    "labels": {"Parrot": "canary\n"},
    "external_ids": {"parrot": "canary\x01"},
    "etag": "canary etag",
}
REQUEST_ID = "0ca9a5f1-6b1e-4f8e-9a53-8f9b8b3f6a01"


@dataclass
class Overheard:
    """What failed calls and the log have said."""

    responses: list[str] = field(default_factory=list)
    log: str = ""

    @property
    def leaks(self) -> list[str]:
        """Where a canary sang."""
        # The line of a write has the name of its course, and nothing else that a caller has sent.
        lines = (re.sub(r" course=courses/[a-z0-9,/-]+", "", line) for line in self.log.splitlines())
        in_log = (line for line in lines if NEVER_IN_LOG.search(line))
        return [*filter(NEVER_IN_RESPONSES.search, self.responses), *in_log]

    def __str__(self) -> str:
        lines = self.log.count("\n")
        return f"{len(self.leaks):,} hits in {len(self.responses):,} failed calls and {lines:,} lines of the log"


def ask_by_grpc(service: Service, overheard: Overheard) -> None:
    """Make calls of every kind, most of which fail."""
    with grpc.insecure_channel(service.grpc_address, options=CHANNEL_OPTIONS) as channel:

        def call(method: str, message: bytes) -> None:
            unary: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"{SERVICE}/{method}")
            try:
                unary(message, timeout=CALL_SECONDS, metadata=METADATA)
            except grpc.RpcError as error:
                assert isinstance(error, grpc.Call), error  # noqa: PT017  # what the types cannot say
                pairs = [*(error.initial_metadata() or ()), *(error.trailing_metadata() or ())]
                overheard.responses.append(f"grpc {method} {error.code()} {error.details()} {pairs}")

        def ask(method: str, **fields: Any) -> None:
            call(method, getattr(course_pb2, f"{method}Request")(**fields).SerializeToString())

        ask("CreateCourse", course=COURSE, course_id="parrot", request_id=REQUEST_ID)
        ask("CreateCourse", course=COURSE)
        ask("CreateCourse", course=COURSE, course_id="parrot")
        ask("CreateCourse", course=COURSE | {"title": "canary 2"}, request_id=REQUEST_ID)
        ask("CreateCourse", course=WRONG_COURSE, course_id="Parrot", request_id="canary")
        ask("GetCourse", name="courses/parrot")
        ask("GetCourse", name="courses/no-parrot")
        ask("GetCourse", name="parrot")
        ask("ListCourses", filter='title = "canary"')
        ask("ListCourses", filter='parrot = "canary"')
        ask("ListCourses", filter='title = "canary')
        ask("ListCourses", order_by="parrot")
        ask("ListCourses", page_token="canary")
        ask("UpdateCourse", course=COURSE | {"name": "courses/parrot", "etag": '"canary"'})
        ask("UpdateCourse", course=WRONG_COURSE | {"name": "courses/parrot"}, update_mask={"paths": ["parrot"]})
        ask("PublishCourse", name="courses/parrot", etag="canary")
        ask("ArchiveCourse", name="courses/parrot")
        ask("UndeleteCourse", name="courses/parrot")
        ask("DeleteCourse", name="courses/no-parrot", etag="canary")
        ask("BatchGetCourses", names=["courses/parrot", "courses/no-parrot"])
        ask("BatchCreateCourses", requests=[{"course": COURSE}, {"course": COURSE}])
        call("CreateCourse", b"\xffcanary")
        call("CreateCourse", b"\x0a\x08\x1a\x06cana\xfe\xff")
        call("Parrot", b"canary")


def ask_by_http(service: Service, overheard: Overheard) -> None:
    """Make requests of every kind, most of which fail."""
    headers = {"X-Secret": "canary", "Authorization": "Bearer canary", "Cookie": "canary=canary"}
    with httpx2.Client(base_url=service.http_address, headers=headers, timeout=CALL_SECONDS) as client:

        def ask(method: str, path: str, *, headers: dict[str, str] | None = None, **content: Any) -> None:
            try:
                response = client.request(method, path, headers=headers, **content)
            except httpx2.TimeoutException:
                return
            if response.status_code >= 400:
                overheard.responses.append(f"http {method} {response.status_code} {response.headers} {response.text}")

        ask(
            "POST",
            "/courses",
            json=COURSE | {"external_ids": {"parrot": "parrot 2"}},
            headers={"Idempotency-Key": "canary"},
        )
        ask("POST", "/courses?course_id=parrot", json=COURSE)
        ask("POST", "/courses?course_id=Parrot", json=WRONG_COURSE)
        ask("POST", "/courses", content=b'{"title": "canary', headers={"Content-Type": "application/json"})
        ask("POST", "/courses", content=b'{"title": "canary\xff"}', headers={"Content-Type": "application/json"})
        ask("POST", "/courses", content=b"canary", headers={"Content-Type": "canary/canary"})
        ask("POST", "/courses", json=COURSE | {"parrot": "canary"})
        ask("GET", "/courses/parrot")
        ask("GET", "/courses/no-parrot")
        ask("GET", "/courses", params={"filter": 'parrot = "canary"'})
        ask("GET", "/courses", params={"filter": 'title = "canary'})
        ask("GET", "/courses", params={"page_token": "canary"})
        ask("GET", "/courses", params={"parrot": "canary"})
        ask("GET", "/courses", params={"view": "canary", "page_size": "canary"})
        ask("PATCH", "/courses/parrot", json=WRONG_COURSE, headers={"If-Match": '"canary"'})
        ask("PATCH", "/courses/parrot", json={"title": "canary"}, headers={"If-Match": '"canary"'})
        ask("POST", "/courses/parrot:publish", json={"etag": "canary"})
        ask("POST", "/courses/parrot:archive", json={"validate_only": "canary"})
        ask("DELETE", "/courses/no-parrot")
        ask("POST", "/courses:batchCreate", json={"requests": [{"course": COURSE}, {"course": WRONG_COURSE}]})
        ask("GET", "/parrot/parrot")
        ask("PUT", "/courses/parrot")
    for data in (b"canary canary\r\n\r\n", b"GET /courses HTTP/1.1\r\nHost: canary\r\nContent-Length: canary\r\n\r\n"):
        host, _, port = service.http_address.removeprefix("http://").rpartition(":")
        with socket.create_connection((host, int(port)), timeout=CALL_SECONDS) as connection:
            connection.sendall(data)
            overheard.responses.append(connection.recv(1 << 16).decode())


Situation = Callable[[Postgres], AbstractContextManager[object]]


@contextlib.contextmanager
def well(_: Postgres) -> Iterator[None]:
    """Nothing is wrong but with the calls."""
    yield


@contextlib.contextmanager
def away(postgres: Postgres) -> Iterator[None]:
    """The database is down."""
    postgres.stop()
    try:
        yield
    finally:
        postgres.start()


def frozen(postgres: Postgres) -> AbstractContextManager[None]:
    """The database does not respond."""
    return postgres.frozen()


def changed(change: str, back: str) -> Situation:
    """Make a situation of two statements."""

    @contextlib.contextmanager
    def situation(postgres: Postgres) -> Iterator[None]:
        postgres.execute(change, DATABASE)
        try:
            yield
        finally:
            postgres.execute(back, DATABASE)

    return situation


DATABASE = "canarydatabase"
SITUATIONS: dict[str, Situation] = {
    "well": well,
    "away": away,
    "frozen": frozen,
    "a column is missing": changed(
        "ALTER TABLE courses RENAME title TO canarytitle", "ALTER TABLE courses RENAME canarytitle TO title"
    ),
    "a trigger raises": changed(
        "CREATE FUNCTION canary() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'canary of %', NEW.title; END $$;"
        " CREATE TRIGGER canary BEFORE INSERT OR UPDATE ON courses FOR EACH ROW EXECUTE FUNCTION canary()",
        "DROP FUNCTION canary CASCADE",
    ),
    "a rule is broken": changed(
        "ALTER TABLE courses ADD CONSTRAINT canary CHECK (title NOT LIKE 'canary%') NOT VALID",
        "ALTER TABLE courses DROP CONSTRAINT canary",
    ),
    "no permission": changed(
        "REVOKE ALL ON courses FROM canaryuser", "GRANT ALL ON ALL TABLES IN SCHEMA public TO canaryuser"
    ),
    "the user is gone": changed("ALTER ROLE canaryuser NOLOGIN", "ALTER ROLE canaryuser LOGIN"),
}


@pytest.fixture
def canary_url(postgres: Postgres) -> Iterator[URL]:
    """A migrated database, in whose URL everything is secret."""
    postgres.execute("CREATE ROLE canaryuser LOGIN PASSWORD 'canarypassword'", "postgres")
    postgres.execute(f"CREATE DATABASE {DATABASE}", "postgres")
    url = postgres.url.set(database=DATABASE)
    migrate(url)
    postgres.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO canaryuser", DATABASE)
    try:
        yield url.set(
            username="canaryuser",
            password="canarypassword",
            host="canaryhost",
            query={"hostaddr": "127.0.0.1", "application_name": "canaryapplication"},
        )
    finally:
        postgres.mend()
        postgres.execute(f"DROP DATABASE {DATABASE} WITH (FORCE)", "postgres")
        postgres.execute("DROP ROLE canaryuser", "postgres")


def overheard_in(postgres: Postgres, url: URL, fault: str | None, *situations: Situation) -> Overheard:
    """Ask by both faces in each situation."""
    overheard = Overheard()
    with running(url, fault, COURSE_LOG_LEVEL="DEBUG") as service:
        for situation in situations:
            with situation(postgres):
                ask_by_grpc(service, overheard)
                ask_by_http(service, overheard)
        service.stop()
        overheard.log = service.log
    return overheard


def nothing_leaks(overheard: Overheard) -> None:
    assert overheard.leaks == []


CLAIM = "no secret and no caller's data in responses and log"


def test_failed_calls_and_the_log_give_nothing_away(postgres: Postgres, canary_url: URL) -> None:
    overheard = overheard_in(postgres, canary_url, None, *SITUATIONS.values())
    record("W8", CLAIM, f"{overheard}, in {len(SITUATIONS)} states of the database")
    assert len(overheard.responses) > 20 * len(SITUATIONS)
    nothing_leaks(overheard)


def test_bugs_give_nothing_away(postgres: Postgres, canary_url: URL) -> None:
    overheard = overheard_in(postgres, canary_url, "bugs", well)
    record("W8", f"{CLAIM}, whatever a bug raises", str(overheard))
    nothing_leaks(overheard)


def test_bugs_and_statements_give_everything_away_if_errors_are_passed_on(postgres: Postgres, canary_url: URL) -> None:
    overheard = overheard_in(postgres, canary_url, "telling", SITUATIONS["a column is missing"], SITUATIONS["away"])
    record("W8", CLAIM, control=f"texts of exceptions passed on: {overheard}")
    with pytest.raises(AssertionError):
        nothing_leaks(overheard)


# W9: over time.


@dataclass(frozen=True)
class Grown:
    """What a service takes after many calls, against what it took after a fifth of them."""

    calls: int
    errors: int
    connections: int
    memory: float
    """As a fraction of what it was."""
    threads: int
    descriptors: int

    def __str__(self) -> str:
        growth = f"memory {self.memory:+.1%}, threads {self.threads:+}, descriptors {self.descriptors:+}"
        errors = f"{self.errors / self.calls:.0%} errors"
        return f"{growth} after {self.calls:,} calls ({errors}) and {self.connections:,} connections"


def worn(service: Service, *, calls: int, connections: int) -> Grown:
    """Make many calls, and connect many times, by both faces."""
    names = [create_by_grpc(service.grpc_address, f"Course {number}") for number in range(20)]
    errors = 0
    with contextlib.ExitStack() as stack:
        threads = stack.enter_context(ThreadPoolExecutor(_CALLERS))
        callers = [stack.enter_context(mixed_calls(service, names)) for _ in range(_CALLERS)]
        before = None
        share = range(calls // _PARTS // _CALLERS)
        for part in range(_PARTS):
            errors += sum(threads.map(lambda make: sum(make(number) for number in share), callers))
            for number in range(connections // _PARTS):
                connect(service, names[0], by_http=number % 2 == 0)
            service.log = ""  # or it would be the test that grows
            if part == 0:
                before = taken_by(service)
        assert before
        after = taken_by(service)
    memory, threads_more, descriptors = (now - then for now, then in zip(after, before, strict=True))
    return Grown(calls, errors, connections, memory / before[0], threads_more, descriptors)


_CALLERS = 4
_PARTS = 5


def taken_by(service: Service) -> tuple[int, int, int]:
    """Return the memory, threads and descriptors of a service that has just had nothing to do."""
    threading.Event().wait(0.5)  # connections that were closed are noticed as closed
    return service.memory_bytes(), service.threads(), service.descriptors()


@contextlib.contextmanager
def mixed_calls(service: Service, names: list[str]) -> Iterator[Callable[[int], bool]]:
    """A caller by both faces: makes one call after the other, three of ten wrong, and says whether it failed."""
    with (
        grpc.insecure_channel(service.grpc_address, options=CHANNEL_OPTIONS) as channel,
        httpx2.Client(base_url=service.http_address, timeout=10) as http,
    ):
        stub = course_pb2_grpc.CourseServiceStub(channel)
        raw: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"{SERVICE}/CreateCourse")

        def get(name: str, seconds: float = 10) -> None:
            stub.GetCourse(course_pb2.GetCourseRequest(name=name), timeout=seconds)

        def leave(name: str) -> None:
            stub.GetCourse.future(course_pb2.GetCourseRequest(name=name)).cancel()
            raise grpc.RpcError

        def update(name: str) -> None:
            course = course_pb2.Course(name=name, title=str(uuid.uuid4()))
            stub.UpdateCourse(course_pb2.UpdateCourseRequest(course=course), timeout=10)

        def page(_: str, text: str = "") -> None:
            stub.ListCourses(course_pb2.ListCoursesRequest(page_size=5, filter=text), timeout=10)

        calls: list[Callable[[str], object]] = [
            *[lambda _: get("courses/no-such")] * 2,
            *[lambda _: raw(b"\xff\xff\xff", timeout=10)] * 2,
            lambda _: page("", "title ="),
            lambda name: get(name, 0.0001),
            leave,
            lambda name: http.get(f"/{name}").raise_for_status(),
            update,
            page,
            *[get] * 10,
        ]

        def make(number: int) -> bool:
            try:
                calls[number % len(calls)](names[number % 7])
            except grpc.RpcError:
                return True
            return False

        yield make


def connect(service: Service, name: str, *, by_http: bool) -> None:
    """Open a connection, make a call, and close it or just go."""
    if by_http:
        host, _, port = service.http_address.removeprefix("http://").rpartition(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(f"GET /{name} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200")
    else:
        with Connection(service.grpc_address) as connection_2:
            request = course_pb2.GetCourseRequest(name=name).SerializeToString()
            assert connection_2.call(f"{SERVICE}/GetCourse", framed(request)).grpc_status == 0


def nothing_grows(grown: Grown) -> None:
    assert grown.memory < 0.05
    assert grown.threads <= 2
    assert grown.descriptors <= 2


@pytest.fixture
def url(tmp_path: Path) -> URL:
    found = make_url(f"sqlite:///{tmp_path / 'course.db'}")
    migrate(found)
    return found


GROWTH = "a service takes no more after many calls and connections"


def test_a_service_does_not_grow(url: URL) -> None:
    with running(url) as service:
        grown = worn(service, calls=count(10_000, 1_000_000), connections=count(500, 5_000))
    record("W9", GROWTH, str(grown))
    assert grown.errors >= 0.3 * grown.calls
    nothing_grows(grown)


def test_a_service_grows_if_something_keeps_what_it_was_called_with(url: URL) -> None:
    with running(url, "growing_list") as service:
        grown = worn(service, calls=5_000, connections=50)
    record("W9", GROWTH, control=f"a list that grows by 10 KB a call: {grown}")
    with pytest.raises(AssertionError):
        nothing_grows(grown)
