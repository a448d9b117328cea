"""Who gets in: certificates and roles, on both faces, for every method and route."""

import re
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import h2.config
import h2.connection
import h2.events
import httpx2
import pytest
from course.v1 import course_pb2, course_pb2_grpc
from google.protobuf import descriptor_pool
from sqlalchemy.engine import URL

from course_service.auth import policy as policies
from course_service.auth.identify import by_certificate
from course_service.auth.policy import Role
from course_service.auth.tls import Tls
from course_service.call import READ_SECONDS
from course_service.guard.guard import Guard
from course_service.guard.steps import anonymous, everybody
from course_service.health import Health
from course_service.rest.app import make_app
from course_service.rest.places import Places
from course_service.rest.server import HttpServer
from course_service.store.courses import CourseRepository
from course_service.store.database import Database
from tests.conftest import ROOT, TOKENS, empty
from tests.support.certificates import SERVER, Authority, Pair, replace
from tests.support.http import http_client
from tests.support.processes import environment_of, running
from tests.support.secure import METHODS, REFLECTION, Answer, Secure, ask_grpc, ask_http, http_routes, secured
from tests.support.tokens import AUDIENCE, ISSUER, Issuer, jwks
from tests.support.waiting import until
from tests.test_repository import COURSE, add

POLICY = """
[roles]
reader = ["spiffe://prod.example/ns/edu/sa/enrolment", "dns:report.internal"]
editor = ["spiffe://prod.example/ns/edu/sa/catalogue"]
admin = ["cn:ops-console"]
"""
MISSING = "courses/missing"
PUBLIC = {f"/grpc.health.v1.Health/{method}" for method in ("Check", "List", "Watch")}
WRITES = {"Create", "BatchCreate", "Update", "Delete", "Undelete", "Publish", "Archive"}


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("policy") / "policy.toml"
    path.write_text(POLICY)
    return path


@pytest.fixture(scope="module")
def secure(
    _database: Database,
    database_url: URL,
    authority: Authority,
    policy: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Secure]:
    """A service that asks every client for a certificate; it has one course."""
    empty(database_url)
    add(_database, COURSE)
    folder = tmp_path_factory.mktemp("tls")
    client_ca = folder / "clients.crt"
    replace(client_ca, authority.certificate)
    tls = Tls(*authority.server().write(folder, "server"), str(client_ca))
    with secured(_database, by_certificate, policy, tls, authority.certificate) as service:
        yield service
    tls.close()


def reader(authority: Authority) -> Pair:
    return authority.client(uris=["spiffe://prod.example/ns/edu/sa/enrolment"])


def editor(authority: Authority) -> Pair:
    return authority.client("catalogue", uris=["spiffe://prod.example/ns/edu/sa/catalogue"])


def admin(authority: Authority) -> Pair:
    return authority.client("ops-console")


STRANGERS: dict[str, tuple[Callable[[Authority], Pair | None], str]] = {
    "two URIs": (
        lambda ca: ca.client(uris=["spiffe://prod.example/ns/edu/sa/enrolment", "spiffe://prod.example/b"]),
        "CERTIFICATE_INVALID",
    ),
    "a URI of another kind": (
        lambda ca: ca.client(uris=["https://prod.example/"], hosts=["report.internal"]),
        "CERTIFICATE_INVALID",
    ),
    "two hosts": (lambda ca: ca.client(hosts=["report.internal", "b.internal"]), "CERTIFICATE_INVALID"),
    "no name": (lambda ca: ca.client(), "CERTIFICATE_INVALID"),
    "a name of spaces": (lambda ca: ca.client(" "), "CERTIFICATE_INVALID"),
    "a name with a line break": (lambda ca: ca.client("ops-console\nINFO"), "CERTIFICATE_INVALID"),
    "a name that the policy does not have": (lambda ca: ca.client("eve"), "PERMISSION_DENIED"),
    "the name of another kind": (lambda ca: ca.client("report.internal"), "PERMISSION_DENIED"),
    "another spelling": (lambda ca: ca.client("OPS-CONSOLE"), "PERMISSION_DENIED"),
}
NOT_CONNECTED: dict[str, Callable[[Authority], Pair | None]] = {
    "nothing": lambda _: None,
    "of another authority": lambda _: admin(Authority()),
    "of another authority of the same name": lambda _: admin(Authority("throw-away authority")),
    "expired": lambda ca: ca.client("ops-console", days=-1),
    "of a server": lambda ca: ca.issue("ops-console", usage=SERVER),
}


def every_answer(
    secure: Secure, folder: Path, client: Pair | None, headers: list[tuple[str, str]]
) -> dict[str, Answer]:
    """Ask for everything, on both faces; about a course that exists, and the same about one that does not."""
    answers = {}
    with secure.channel(client) as channel, secure.http(folder, client) as http:
        for path in (*METHODS, *REFLECTION):
            answers[path], other = (ask_grpc(channel, path, name, headers) for name in (COURSE.name, MISSING))
            assert path in PUBLIC or answers[path] == other, path
        for (method, path), (_, same) in zip(http_routes(COURSE.name), http_routes(MISSING), strict=True):
            answers[f"{method} {path}"], other = (ask_http(http, method, each, headers) for each in (path, same))
            assert answers[f"{method} {path}"] == other, path
    return answers


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
@pytest.mark.parametrize("shown", STRANGERS)
def test_a_certificate_that_does_not_name_somebody_of_the_policy_opens_nothing(
    secure: Secure, authority: Authority, tmp_path: Path, shown: str
) -> None:
    make, reason = STRANGERS[shown]
    answers = every_answer(secure, tmp_path, make(authority), [])
    assert {path for path, answer in answers.items() if answer.code == "OK"} == PUBLIC
    code = "PERMISSION_DENIED" if reason == "PERMISSION_DENIED" else "UNAUTHENTICATED"
    refused = {path: (answer.code, answer.reason) for path, answer in answers.items() if path not in PUBLIC}
    assert {path: found for path, found in refused.items() if found[0] != code} == {}
    assert {reason for path, (_, reason) in refused.items() if not path.startswith("HEAD")} == {reason}


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
@pytest.mark.parametrize("headers", [[("authorization", "Bearer a.b.c")], [("authorization", "Basic YTpi")]])
def test_a_certificate_and_a_token_together_are_ambiguous(
    secure: Secure, authority: Authority, tmp_path: Path, headers: list[tuple[str, str]]
) -> None:
    answers = every_answer(secure, tmp_path, admin(authority), headers)
    reasons = {answer.reason for path, answer in answers.items() if path not in PUBLIC and not path.startswith("HEAD")}
    assert reasons == {"CREDENTIALS_AMBIGUOUS"}


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
@pytest.mark.parametrize("shown", NOT_CONNECTED)
def test_who_has_no_certificate_of_the_authority_does_not_even_connect(
    secure: Secure, authority: Authority, tmp_path: Path, shown: str
) -> None:
    client = NOT_CONNECTED[shown](authority)
    with secure.channel(client) as channel, secure.http(tmp_path, client) as http:
        for path in METHODS:
            assert ask_grpc(channel, path, COURSE.name).code == "UNAVAILABLE"
        for method, path in http_routes(COURSE.name):
            with pytest.raises((httpx2.TransportError, ssl.SSLError)):
                ask_http(http, method, path)


def may(role: Role, name: str) -> bool:
    """What the table of the README says."""
    is_write = any(name.startswith(verb) for verb in WRITES)
    return role >= (Role.EDITOR if is_write else Role.READER)


@pytest.mark.parametrize(("role", "who"), [(Role.READER, reader), (Role.EDITOR, editor), (Role.ADMIN, admin)])
def test_each_role_may_do_what_the_table_says_and_nothing_else(
    secure: Secure, authority: Authority, tmp_path: Path, role: Role, who: Callable[[Authority], Pair]
) -> None:
    client = who(authority)
    routes = {"POST": "CreateX", "PATCH": "UpdateX", "DELETE": "DeleteX", "GET": "Get", "HEAD": "Get", "PUT": "Get"}
    with secure.channel(client) as channel, secure.http(tmp_path, client) as http:
        for path in (*METHODS, *REFLECTION):
            refused = ask_grpc(channel, path, MISSING).code == "PERMISSION_DENIED"
            assert refused is not may(role, path.rpartition("/")[2]), path
        for method, path in http_routes(MISSING):
            refused = ask_http(http, method, path).code == "PERMISSION_DENIED"
            allowed = may(role, routes[method]) or path == "/docs"  # which is no route of that method
            assert refused is not allowed, (method, path)


def test_every_method_of_the_contract_has_a_row() -> None:
    pool = descriptor_pool.Default()
    services = [pool.FindServiceByName(name) for name in ("course.v1.CourseService", "grpc.health.v1.Health")]
    names = {
        method.name if service.full_name.startswith("course.") else f"{service.full_name}/{method.name}"
        for service in services
        for method in service.methods
    } | {path.removeprefix("/") for path in REFLECTION}
    assert names == {name for name in policies.METHODS if not name.startswith("http/") and name != "unknown"}


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_a_method_without_a_row_is_for_nobody(
    secure: Secure, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = {name: role for name, role in policies.METHODS.items() if name != "GetCourse"}
    monkeypatch.setattr(policies, "METHODS", rows)
    with secure.channel(admin(authority)) as channel:
        answer = ask_grpc(channel, "/course.v1.CourseService/GetCourse", COURSE.name)
        assert (answer.code, answer.reason) == ("PERMISSION_DENIED", "PERMISSION_DENIED")
        assert ask_grpc(channel, "/course.v1.CourseService/ListCourses", COURSE.name).code == "OK"


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_a_probe_needs_no_policy_and_learns_nothing_else(secure: Secure, authority: Authority, tmp_path: Path) -> None:
    with secure.http(tmp_path, authority.client("eve")) as http:
        assert ask_http(http, "GET", "/livez").code == "OK"
        assert ask_http(http, "GET", "/readyz/").code == "PERMISSION_DENIED"


def test_request_ids_belong_to_the_identity(secure: Secure, authority: Authority, tmp_path: Path) -> None:
    request = course_pb2.CreateCourseRequest(
        course=course_pb2.Course(title="x"), request_id="6f1f2a60-3e0b-4c57-9d5a-2f0f5d3b8a11"
    )
    names = set()
    for client in (editor(authority), admin(authority), editor(authority)):
        with secure.channel(client) as channel:
            names.add(course_pb2_grpc.CourseServiceStub(channel).CreateCourse(request, timeout=20).name)
        with secure.http(tmp_path, client) as http:
            headers = {"Idempotency-Key": request.request_id}
            names.add(http.post("/courses", json={"title": "x"}, headers=headers).json()["name"])
    assert len(names) == 2


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_a_refused_call_never_reaches_the_courses(
    secure: Secure, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def touched(*_: Any) -> None:
        raise AssertionError("the database was asked")

    for method in ("get", "add", "page"):
        monkeypatch.setattr(CourseRepository, method, touched, raising=False)
    every_answer(secure, tmp_path, authority.client("eve"), [])


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_without_the_step_that_identifies_everything_is_open(
    database: Database, authority: Authority, policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: what refuses in the tests above is these two steps."""
    monkeypatch.setattr("course_service.auth.policy.Policy.__call__", lambda _, call: everybody(call))
    with secured(database, anonymous, policy) as service, service.channel() as channel:
        answer = ask_grpc(channel, "/course.v1.CourseService/GetCourse", MISSING, timeout=READ_SECONDS)
        assert answer.code == "NOT_FOUND"
        with service.http(tmp_path) as http:
            assert ask_http(http, "GET", f"/{MISSING}").code == "NOT_FOUND"


def headers_only(port: int, client: tuple[str, str], authority: bytes) -> ssl.SSLSocket:
    """A call of CreateCourse whose message never comes."""
    context = ssl.create_default_context(cadata=authority.decode())
    context.set_alpn_protocols(["h2"])
    context.load_cert_chain(*client)
    connection = context.wrap_socket(
        socket.create_connection(("127.0.0.1", port), timeout=10), server_hostname="localhost"
    )
    framing = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    framing.initiate_connection()
    framing.send_headers(
        1,
        [
            (":method", "POST"),
            (":scheme", "https"),
            (":path", "/course.v1.CourseService/CreateCourse"),
            (":authority", "localhost"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
        ],
    )
    connection.sendall(framing.data_to_send())
    return connection


def trailers(connection: ssl.SSLSocket) -> dict[str, str]:
    """Read until the response has ended."""
    framing = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    framing.initiate_connection()
    framing.send_headers(1, [(":method", "POST"), (":scheme", "https"), (":path", "/"), (":authority", "x")])
    found: dict[str, str] = {}
    while True:
        for event in framing.receive_data(connection.recv(1 << 14)):
            if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
                found.update(event.headers)  # type: ignore[arg-type]  # text, by header_encoding
            if isinstance(event, h2.events.StreamEnded | h2.events.StreamReset):
                return found


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_who_is_refused_is_refused_before_the_message_and_slows_nobody(
    secure: Secure, authority: Authority, tmp_path: Path
) -> None:
    stranger = authority.client("eve").write(tmp_path, "eve")

    def slowest(channel: grpc.Channel) -> float:
        found = 0.0
        for _ in range(30):
            began = time.perf_counter()
            assert ask_grpc(channel, "/course.v1.CourseService/GetCourse", MISSING).code == "NOT_FOUND"
            found = max(found, time.perf_counter() - began)
        return found

    with secure.channel(reader(authority)) as channel:
        before = slowest(channel)
        connections = [headers_only(secure.grpc_port, stranger, authority.certificate) for _ in range(64)]
        during = slowest(channel)
    began = time.perf_counter()
    last = headers_only(secure.grpc_port, stranger, authority.certificate)
    connected = time.perf_counter()
    assert trailers(last)["grpc-status"] == "7"
    assert time.perf_counter() - connected < 0.1 + (connected - began)  # a busy machine is as slow at connecting
    assert {trailers(connection)["grpc-status"] for connection in connections} == {"7"}
    for connection in (*connections, last):
        connection.close()
    assert during < before + 0.25


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_a_certificate_that_expires_is_refused_on_a_live_connection_too(
    secure: Secure, authority: Authority, tmp_path: Path
) -> None:
    client = authority.client("ops-console", days=4 / 86_400)  # 4 s
    with secure.channel(client) as channel, secure.http(tmp_path, client) as http:

        def reasons() -> set[str]:
            return {
                ask_grpc(channel, "/course.v1.CourseService/GetCourse", MISSING).reason,
                ask_http(http, "GET", f"/{MISSING}").reason,
            }

        assert reasons() == {"COURSE_NOT_FOUND"}
        until(lambda: reasons() == {"CERTIFICATE_INVALID"})


def test_a_connection_by_http_ends_when_it_is_old(database: Database, policy: Path) -> None:
    app = make_app(database, TOKENS, Health(database), Guard(), Places(2), max_connection_age_seconds=0.2)
    server = HttpServer("127.0.0.1:0", app)
    server.start()
    with http_client(f"http://127.0.0.1:{server.port}") as http:
        assert "connection" not in http.get("/livez").headers
        until(lambda: http.get("/livez").headers.get("connection") == "close")
        assert "connection" not in http.get("/livez").headers  # it is a new one
    server.stop()


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_the_health_check_of_a_container_speaks_tls_and_says_what_it_lacks(
    database_url: URL, authority: Authority, tmp_path: Path
) -> None:
    certificate, key = authority.server().write(tmp_path, "server")
    shown = {"COURSE_TLS_CERTIFICATE_FILE": certificate, "COURSE_TLS_KEY_FILE": key}

    def check(**settings: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "course_service", "health"]
        environment = environment_of(**settings)
        return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)

    with running(database_url, **shown) as process:
        assert check(**shown, COURSE_GRPC_ADDRESS=process.grpc_address).returncode == 0
        assert check(COURSE_GRPC_ADDRESS=process.grpc_address).returncode == 1
    assert check(**shown, COURSE_GRPC_ADDRESS=process.grpc_address).returncode == 1
    lacking = check(**shown, COURSE_TLS_CLIENT_CA_FILE=certificate)
    assert lacking.returncode == 1
    assert (
        lacking.stderr == "course-service: clients need a certificate; set COURSE_HEALTH_ADDRESS for the health check\n"
    )


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_the_metrics_say_when_the_certificate_ends(database_url: URL, authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.server().write(tmp_path, "server")
    (tmp_path / "keys.json").write_bytes(jwks(Issuer().public))
    (tmp_path / "policy.toml").write_text(POLICY)
    settings = {
        "COURSE_TLS_CERTIFICATE_FILE": certificate,
        "COURSE_TLS_KEY_FILE": key,
        "COURSE_TOKEN_ISSUER": ISSUER,
        "COURSE_TOKEN_AUDIENCE": AUDIENCE,
        "COURSE_TOKEN_KEYS": str(tmp_path / "keys.json"),
        "COURSE_POLICY_FILE": str(tmp_path / "policy.toml"),
        "COURSE_METRICS_ADDRESS": "127.0.0.1:0",
    }
    with running(database_url, **settings) as process:
        (port,) = re.findall(r"metrics on port (\d+)", process.log)
        text = httpx2.get(f"http://127.0.0.1:{port}/metrics").text
        shown = dict(re.findall(r"^(course_(?:certificate|token)\w+) (\S+)$", text, re.MULTILINE))
    now = time.time()
    assert 0 < float(shown["course_certificate_expiry_timestamp_seconds"]) - now < 86_400
    assert set(shown) == {"course_certificate_expiry_timestamp_seconds"}  # keys of a file are never old
