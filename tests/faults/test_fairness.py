"""One caller asks for more than the service can do: what another one sees of it."""

import contextlib
import random
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import httpx2
import pytest
from course.v1 import course_pb2, course_pb2_grpc

from tests.faults.support.callers import CHANNEL_OPTIONS
from tests.faults.support.counts import FULL
from tests.faults.support.figures import record
from tests.faults.support.noise import Noise
from tests.faults.support.postgres import Postgres
from tests.faults.support.service import Service, running
from tests.support.repeating import repeating
from tests.support.tokens import AUDIENCE, ISSUER, Issuer, jwks

pytestmark = pytest.mark.skipif(
    not FULL, reason="figures for FULL=1; that turns are taken is in tests/test_fairness.py"
)

LOUD = 64
"""Calls that the loud caller has in flight at all times."""
CONNECTIONS = 8
CALLS = 100
COURSES = 200
FILTER = " OR ".join(f'title = "none {number}"' for number in range(40))
"""It costs the service much, and its callers little: they must not be what limits the load."""


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, str]:
    """A service that knows its callers by tokens."""
    keys, policy = tmp_path / "keys.json", tmp_path / "policy.toml"
    keys.write_bytes(jwks(ISSUED_BY.public))
    policy.write_text('[roles]\nadmin = []\nreader = []\neditor = ["jwt:loud", "jwt:quiet"]\n')
    return {
        "COURSE_TOKEN_ISSUER": ISSUER,
        "COURSE_TOKEN_AUDIENCE": AUDIENCE,
        "COURSE_TOKEN_KEYS": str(keys),
        "COURSE_POLICY_FILE": str(policy),
    }


ISSUED_BY = Issuer()


def bearer(who: str) -> tuple[str, str]:
    return ("authorization", f"Bearer {ISSUED_BY.token(sub=who)}")


@contextlib.contextmanager
def loud(service: Service, face: str) -> Iterator[None]:
    """List courses, as many times at once as the loud caller does."""
    with contextlib.ExitStack() as stack:
        if face == "gRPC":
            channels = [
                stack.enter_context(grpc.insecure_channel(service.grpc_address, options=CHANNEL_OPTIONS))
                for _ in range(CONNECTIONS)
            ]
            listings: list[grpc.UnaryUnaryMultiCallable[bytes, bytes]] = [
                channel.unary_unary("/course.v1.CourseService/ListCourses") for channel in channels
            ]
            metadata = (bearer("loud"),)
            request = course_pb2.ListCoursesRequest(filter=FILTER).SerializeToString()

            def ask() -> None:
                with contextlib.suppress(grpc.RpcError):
                    random.choice(listings)(request, timeout=10, metadata=metadata)
        else:
            client = stack.enter_context(
                httpx2.Client(
                    base_url=service.http_address,
                    headers=[bearer("loud")],
                    timeout=30,
                    limits=httpx2.Limits(max_connections=LOUD),
                )
            )

            def ask() -> None:
                client.get("/courses", params={"filter": FILTER})

        stack.enter_context(repeating(*[ask] * LOUD))
        yield


def milliseconds(service: Service, face: str, name: str) -> list[float]:
    """How long the quiet caller's calls take, one after the other."""
    taken = []
    with quiet(service, face) as get:
        for _ in range(CALLS):
            start = time.monotonic()
            get(name)
            taken.append((time.monotonic() - start) * 1000)
    return taken


@contextlib.contextmanager
def quiet(service: Service, face: str) -> Iterator[Callable[[str], object]]:
    if face == "gRPC":
        with grpc.insecure_channel(service.grpc_address) as channel:
            stub, metadata = course_pb2_grpc.CourseServiceStub(channel), (bearer("quiet"),)
            yield lambda name: stub.GetCourse(course_pb2.GetCourseRequest(name=name), timeout=20, metadata=metadata)
    else:
        with httpx2.Client(base_url=service.http_address, headers=[bearer("quiet")], timeout=20) as client:
            yield lambda name: client.get(f"/{name}").raise_for_status()


def seen(service: Service, face: str) -> tuple[float, str]:
    """The slowest of the quiet caller's calls while the loud one calls, and what is to be said of all."""
    with grpc.insecure_channel(service.grpc_address) as channel:
        create, metadata = course_pb2_grpc.CourseServiceStub(channel).CreateCourse, (bearer("loud"),)
        request = course_pb2.CreateCourseRequest(course=course_pb2.Course(title="Biology", description="x" * 1000))
        names = [create(request, timeout=20, metadata=metadata).name for _ in range(COURSES)]
    with Noise() as noise:
        before = milliseconds(service, face, names[0])
        with loud(service, face):
            milliseconds(service, face, names[0])  # by then all of the loud one's calls are there
            during = milliseconds(service, face, names[0])
    usual, usual_now = statistics.median(before), statistics.median(during)
    return max(during), (
        f"median {usual:.1f} → {usual_now:.0f} ms, slowest {max(before):.0f} → {max(during):.0f} ms "
        f"(the machine itself: {noise.longest * 1000:.0f} ms)"
    )


def claim(face: str) -> str:
    return f"with {LOUD} lists of one caller in flight by {face}, another one's slowest GetCourse waits for few of them"


@pytest.mark.parametrize("face", ["HTTP", "gRPC"])
def test_a_loud_caller_keeps_no_other_waiting_behind_its_own_calls(
    postgres: Postgres, settings: dict[str, str], face: str
) -> None:
    with running(postgres.url, **settings) as service:
        fair, figure = seen(service, face)
    with running(postgres.url, "no_turns", **settings) as service:
        unfair, control = seen(service, face)
    record("fairness", claim(face), figure, f"in the order in which they come: {control}")
    assert fair < unfair
