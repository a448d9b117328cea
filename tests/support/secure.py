"""A service that lets in whom a policy names, and every call that it takes."""

import contextlib
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx2
from course.v1 import course_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from course_service.auth.policy import Policy
from course_service.auth.tls import Tls
from course_service.guard.guard import Guard
from course_service.guard.steps import Identify
from course_service.health import Health
from course_service.rest.app import make_app
from course_service.rest.places import Places
from course_service.rest.server import HttpServer
from course_service.rpc.health import HealthServicer
from course_service.rpc.interceptor import identify as identify_first
from course_service.rpc.server import make_server
from course_service.rpc.threads import CallThreads
from course_service.store.database import Database
from tests.conftest import TOKENS
from tests.support.certificates import Pair
from tests.support.http import http_client
from tests.support.waiting import until

GET = "/course.v1.CourseService/GetCourse"
MISSING = "courses/missing"

REFLECTION = [
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
]
METHODS = [
    f"/{service.full_name}/{method.name}"
    for contract in (course_pb2, health_pb2)
    for service in contract.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]
"""Every method with one message; of Watch, its beginning."""


_OF_HEAD = {401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED"}


@dataclass(frozen=True)
class Answer:
    """All that a caller sees of a response but its time."""

    code: str
    reason: str = ""
    everything: object = None


@dataclass(frozen=True)
class Secure:
    """A running service."""

    grpc_port: int
    http_port: int
    authority: bytes | None = None
    """Its certificates' authority, if it has TLS."""

    @contextlib.contextmanager
    def channel(self, client: Pair | None = None) -> Iterator[Any]:
        """A connection of a caller who may show a certificate."""
        if self.authority is None:
            made = grpc.insecure_channel(f"127.0.0.1:{self.grpc_port}")
        else:
            shown = (client.key, client.certificate) if client else (None, None)
            options = [("grpc.use_local_subchannel_pool", 1)]
            made = grpc.secure_channel(
                f"127.0.0.1:{self.grpc_port}", grpc.ssl_channel_credentials(self.authority, *shown), options
            )
        with made as channel:
            yield channel

    def http(self, folder: Path, client: Pair | None = None) -> httpx2.Client:
        """A client of the HTTP face who may show a certificate."""
        if self.authority is None:
            return http_client(f"http://127.0.0.1:{self.http_port}", seconds=30)
        context = ssl.create_default_context(cadata=self.authority.decode())
        if client:
            context.load_cert_chain(*client.write(folder, "caller"))
        return httpx2.Client(base_url=f"https://127.0.0.1:{self.http_port}", verify=context, timeout=30)


@contextlib.contextmanager
def secured(
    database: Database, identify: Identify, policy: Path, tls: Tls | None = None, authority: bytes | None = None
) -> Iterator[Secure]:
    """Run a service that identifies callers so."""
    authorise = Policy(str(policy))
    guard = Guard(identify=identify, authorise=authorise)
    threads = CallThreads(4, identify=identify_first(guard))
    health = Health(database)
    server, grpc_port = make_server("127.0.0.1:0", database, TOKENS, HealthServicer(health), guard, threads, tls=tls)
    server.start()
    http_server = HttpServer("127.0.0.1:0", make_app(database, TOKENS, health, guard, Places(4)), tls=tls)
    http_server.start()
    try:
        yield Secure(grpc_port, http_server.port, authority)
    finally:
        http_server.stop()
        server.stop(None).wait()
        threads.close(5)
        authorise.close()


@contextlib.contextmanager
def callers(
    secure: Secure,
    folder: Path,
    client: Pair | None = None,
    headers: Callable[[], Sequence[tuple[str, str]]] = tuple,
) -> Iterator[list[str]]:
    """Good callers by both faces, a new connection for each call; gives what went wrong."""
    wrong: list[str] = []
    ended = threading.Event()
    asked = [0, 0]

    def by_grpc() -> None:
        while not ended.is_set():
            with secure.channel(client) as channel:
                answer = ask_grpc(channel, GET, MISSING, headers())
            asked[0] += 1
            if answer.code != "NOT_FOUND":
                wrong.append(f"gRPC: {answer}")

    def by_http() -> None:
        while not ended.is_set():
            try:
                with secure.http(folder, client) as http:
                    code = ask_http(http, "GET", f"/{MISSING}", headers()).code
            except Exception as error:  # whatever it is, it is wrong
                code = repr(error)
            asked[1] += 1
            if code != "NOT_FOUND":
                wrong.append(f"HTTP: {code}")

    threads = [threading.Thread(target=each) for each in (by_grpc, by_http)]
    for thread in threads:
        thread.start()
    try:
        yield wrong
        until(lambda: min(asked) > 5)
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def ask_grpc(
    channel: Any, path: str, course: str, headers: Sequence[tuple[str, str]] = (), timeout: float = 20
) -> Answer:
    """Call a method, about a course if it is about one."""
    try:
        if path in REFLECTION:
            request = reflection_pb2.ServerReflectionRequest(list_services="")
            requests = iter([request.SerializeToString()])
            list(channel.stream_stream(path)(requests, metadata=headers, timeout=timeout))
        elif path.endswith("/Watch"):
            call = channel.unary_stream(path)(b"", metadata=headers, timeout=timeout)
            next(call)
            call.cancel()
        else:
            channel.unary_unary(path)(_message(path, course), metadata=headers, timeout=timeout)
    except grpc.RpcError as error:
        return _answer(error)
    return Answer("OK")


def _answer(error: Any) -> Answer:
    trailers = tuple(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(dict(trailers).get("grpc-status-details-bin", b""))
    return Answer(error.code().name, _reason(status), (error.details(), trailers, error.initial_metadata()))


def ask_http(client: httpx2.Client, method: str, path: str, headers: Sequence[tuple[str, str]] = ()) -> Answer:
    """Make a request."""
    response = client.request(method, path, headers=list(headers))
    error: dict[str, Any] = response.json()["error"] if response.is_error and response.content else {}
    reason = error["details"][0]["reason"] if error else ""
    seen = sorted(each for each in response.headers.multi_items() if each[0] != "date")
    without_body = _OF_HEAD.get(response.status_code, "OK")
    return Answer(error["status"] if error else without_body, reason, (response.status_code, seen, response.content))


def http_routes(course: str) -> list[tuple[str, str]]:
    """Every route, about a course if it is about one, and what is no route."""
    of_course = f"/{course}"
    return [
        ("POST", "/courses"),
        ("GET", "/courses"),
        ("HEAD", "/courses"),
        ("GET", f"/courses:batchGet?names={course}"),
        ("POST", "/courses:batchCreate"),
        ("GET", of_course),
        ("HEAD", of_course),
        ("PATCH", of_course),
        ("DELETE", of_course),
        *(("POST", f"{of_course}:{verb}") for verb in ("undelete", "publish", "archive")),
        *(("GET", path) for path in ("/", "/docs", "/openapi.json", "/nothing", "/courses/", f"{of_course}/more")),
        ("PUT", of_course),
        ("POST", "/docs"),
    ]


def _message(path: str, course: str) -> bytes:
    service, _, method = path.removeprefix("/").rpartition("/")
    if not service.startswith("course."):
        return b""
    request: Message = getattr(course_pb2, f"{method}Request")()
    fields = request.DESCRIPTOR.fields_by_name
    if "name" in fields:
        request.name = course  # type: ignore[attr-defined]  # the contract's
    elif "names" in fields:
        request.names.append(course)  # type: ignore[attr-defined]  # the contract's
    elif method == "UpdateCourse":
        request.course.name = course  # type: ignore[attr-defined]  # the contract's
    return request.SerializeToString()


def _reason(status: status_pb2.Status) -> str:
    info = error_details_pb2.ErrorInfo()
    return info.reason if status.details and status.details[0].Unpack(info) else ""
