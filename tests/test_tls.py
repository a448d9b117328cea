"""TLS on both ports: what is taken, what is refused, and files that are replaced under load."""

import contextlib
import logging
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509

from course_service.auth import watched
from course_service.auth.identify import by_certificate
from course_service.auth.tls import Tls
from course_service.rest import server as http_server
from course_service.startup import StartupError
from course_service.store.database import Database
from tests.support.certificates import Authority, Pair, replace
from tests.support.secure import GET, MISSING, Secure, ask_grpc, ask_http, callers, secured
from tests.support.waiting import until


class Files:
    """What a service shows and whom it lets in, as files that a test replaces."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        self.folder = folder
        self.client_ca = folder / "clients.crt"
        self.policy = folder / "policy.toml"
        self.show(authority.server())
        self.let_in(authority)
        self.policy.write_text('[roles]\nreader = ["cn:ann", "cn:bob"]\n')

    def show(self, pair: Pair) -> None:
        pair.write(self.folder, "server")

    def let_in(self, *authorities: Authority) -> None:
        replace(self.client_ca, b"".join(authority.certificate for authority in authorities))

    def tls(self) -> Tls:
        return Tls(str(self.folder / "server.crt"), str(self.folder / "server.key"), str(self.client_ca))


@pytest.fixture(autouse=True)
def _quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched, "_PAUSE_SECONDS", 0.05)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def files(tmp_path: Path, authority: Authority) -> Files:
    return Files(tmp_path, authority)


@pytest.fixture
def secure(database: Database, files: Files, authority: Authority) -> Iterator[Secure]:
    tls = files.tls()
    with secured(database, by_certificate, files.policy, tls, authority.certificate) as service:
        yield service
    tls.close()


def shown_by(port: int, client: tuple[str, str], authority: bytes) -> int:
    """The serial number of the certificate that a port shows."""
    context = ssl.create_default_context(cadata=authority.decode())
    context.set_alpn_protocols(["h2", "http/1.1"])
    context.load_cert_chain(*client)
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        certificate = connection.getpeercert(binary_form=True)
    assert certificate
    return x509.load_der_x509_certificate(certificate).serial_number


def serial_of(pair: Pair) -> int:
    return x509.load_pem_x509_certificate(pair.certificate).serial_number


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_certificates_are_replaced_under_load_and_bad_ones_are_not_taken(
    secure: Secure, files: Files, authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "caller"
    folder.mkdir()
    ann = authority.client("ann")
    client = ann.write(folder, "ann")

    def shows(pair: Pair) -> bool:
        ports = (secure.grpc_port, secure.http_port)
        return {shown_by(port, client, authority.certificate) for port in ports} == {serial_of(pair)}

    with callers(secure, folder, ann) as wrong, caplog.at_level(logging.INFO):
        for _ in range(3):
            newer = authority.server()
            files.show(newer)
            until(lambda: shows(newer))  # noqa: B023  # used before it changes
        caplog.clear()
        replace(tmp_path / "server.crt", authority.server().certificate)  # which has another key
        until(lambda: "is not that of the certificate" in caplog.text)
        assert shows(newer)
        for text, said in ((b"no PEM", "has no certificates as PEM"), (b"", "has no certificates as PEM")):
            caplog.clear()
            replace(tmp_path / "server.crt", text)
            until(lambda: said in caplog.text)  # noqa: B023  # used before it changes
            assert shows(newer)
        newest = authority.server()
        files.show(newest)
        until(lambda: shows(newest))
    assert wrong == []


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_an_authority_is_replaced_under_load_and_clients_of_the_old_one_are_shut_out(
    secure: Secure, files: Files, authority: Authority, tmp_path: Path
) -> None:
    folder, strangers, other = tmp_path / "caller", tmp_path / "strangers", Authority("the next authority")
    folder.mkdir()
    strangers.mkdir()
    old, new = authority.client("ann"), other.client("bob")

    def code(client: Pair) -> tuple[str, str]:
        with secure.channel(client) as channel:
            by_grpc = ask_grpc(channel, GET, MISSING).code
        try:
            with secure.http(strangers, client) as http:
                return by_grpc, ask_http(http, "GET", f"/{MISSING}").code
        except Exception:  # a refused handshake has many names
            return by_grpc, "UNAVAILABLE"

    assert code(new) == ("UNAVAILABLE", "UNAVAILABLE")
    with callers(secure, folder, old) as wrong:  # both are valid at once
        files.let_in(authority, other)
        until(lambda: code(new) == ("NOT_FOUND", "NOT_FOUND"))
    assert wrong == []
    with callers(secure, folder, new) as wrong:
        files.let_in(other)
        until(lambda: code(old) == ("UNAVAILABLE", "UNAVAILABLE"))
    assert wrong == []


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_the_policy_is_replaced_under_load_and_a_bad_one_is_not_taken(
    secure: Secure, files: Files, authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, others = tmp_path / "caller", tmp_path / "others"
    folder.mkdir()
    others.mkdir()
    ann, bob = authority.client("ann"), authority.client("bob")
    with (
        callers(secure, folder, ann) as wrong,
        secure.channel(bob) as live,
        secure.http(others, bob) as live_http,
    ):
        assert ask_grpc(live, GET, MISSING).code == ask_http(live_http, "GET", f"/{MISSING}").code == "NOT_FOUND"
        replace(files.policy, b'[roles]\nreader = ["cn:ann"]\n')
        until(lambda: ask_grpc(live, GET, MISSING).code == "PERMISSION_DENIED")
        assert ask_http(live_http, "GET", f"/{MISSING}").code == "PERMISSION_DENIED"
        for text, said in (
            (b'[roles]\nreader = ["ann"]', "roles.reader.0: an identity begins with"),
            (b'[roles]\nreader = ["cn:*"]', "roles.reader.0: identities are matched as they are"),
            (b'[roles]\nreaders = ["cn:ann"]', "roles.readers: Extra inputs"),
            (b'[roles]\nreader = ["cn:ann"]\neditor = ["cn:ann"]', "cn:ann is named twice"),
            (b"[roles", "it is not TOML"),
            (b"\xff", "it is not UTF-8"),
            (b"[roles]", "it gives nobody a role"),
            (b"a=" + b"[" * 5000, "cannot be read (RecursionError)"),
        ):
            replace(files.policy, text)
            until(lambda: said in caplog.text)  # noqa: B023  # used before it changes
            assert ask_grpc(live, GET, MISSING).code == "PERMISSION_DENIED"
    assert wrong == []


STARTS: dict[str, tuple[Callable[[Files, Authority], object], str]] = {
    "no file": (lambda files, _: (files.folder / "server.crt").unlink(), "server.crt cannot be read"),
    "a key that everybody may read": (
        lambda files, _: (files.folder / "server.key").chmod(0o644),
        "everybody on this machine may read",
    ),
    "another key": (
        lambda files, ca: replace(files.folder / "server.key", ca.server().key),
        "is not that of the certificate",
    ),
    "no key": (lambda files, _: replace(files.folder / "server.key", b"x"), "is not a private key as PEM"),
    "expired": (lambda files, ca: files.show(ca.server(days=-1)), "has expired"),
    "no authority": (lambda files, _: replace(files.client_ca, b"x"), "has no certificates as PEM"),
}


@pytest.mark.parametrize("what", STARTS)
def test_files_that_cannot_be_used_end_the_start_with_one_line(files: Files, authority: Authority, what: str) -> None:
    spoil, said = STARTS[what]
    spoil(files, authority)
    with pytest.raises(StartupError, match=said) as caught:
        files.tls()
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1")  # that is what is tried
@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_old_versions_and_callers_without_tls_get_nothing(secure: Secure, authority: Authority) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=authority.certificate.decode())
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    for port in (secure.grpc_port, secure.http_port):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as plain, pytest.raises(ssl.SSLError):
            context.wrap_socket(plain, server_hostname="localhost")
        with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            with contextlib.suppress(ConnectionResetError):
                assert b"HTTP/1.1" not in plain.recv(1000)


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_a_handshake_that_stalls_is_cut(
    database: Database, files: Files, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "HANDSHAKE_SECONDS", 0.2)
    tls = files.tls()
    with (
        secured(database, by_certificate, files.policy, tls, authority.certificate) as service,
        socket.create_connection(("127.0.0.1", service.http_port), timeout=10) as silent,
    ):
        assert silent.recv(1) == b""
    tls.close()


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_kept_session_does_not_outlive_the_authority_of_its_client(
    secure: Secure, files: Files, authority: Authority, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    folder = tmp_path / "caller"
    folder.mkdir()
    context = ssl.create_default_context(cadata=authority.certificate.decode())
    context.minimum_version = context.maximum_version = version
    context.load_cert_chain(*authority.client("ann").write(folder, "ann"))

    def status(session: ssl.SSLSession | None = None) -> tuple[bytes, ssl.SSLSession | None]:
        with (
            socket.create_connection(("127.0.0.1", secure.http_port), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname="localhost", session=session) as connection,
        ):
            connection.sendall(f"GET /{MISSING} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            return connection.recv(1000)[:12], connection.session

    response, session = status()
    assert response == status(session)[0] == b"HTTP/1.1 404"
    files.let_in(Authority())

    def is_refused() -> bool:
        try:
            return status(session)[0] != b"HTTP/1.1 404"
        except OSError:
            return True

    until(is_refused)


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_a_file_whose_mode_is_repaired_is_taken(
    secure: Secure, files: Files, authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    client = authority.client("ann").write(tmp_path, "ann")
    newer = authority.server()
    replace(files.folder / "server.crt", newer.certificate)
    key = files.folder / "new.key"
    key.write_bytes(newer.key)
    key.chmod(0o644)
    key.replace(files.folder / "server.key")
    until(lambda: "everybody on this machine may read" in caplog.text)
    (files.folder / "server.key").chmod(0o600)
    until(lambda: shown_by(secure.http_port, client, authority.certificate) == serial_of(newer))
    assert caplog.text.count("everybody on this machine may read") == 1
