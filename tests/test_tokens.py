"""Bearer tokens: which are taken, which are refused and why, and keys that are replaced."""

import http.server
import json
import logging
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from google.rpc import code_pb2
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.engine import URL

from course_service.auth import keys as key_sets
from course_service.auth import watched
from course_service.auth.errors import TokenExpired, TokenInvalid, TokenKeyUnknown, TokenMalformed
from course_service.auth.identify import ByToken
from course_service.auth.keys import KeySet, read_keys
from course_service.auth.tokens import Tokens
from course_service.auth.watched import Unusable
from course_service.call import Call
from course_service.errors import CourseError
from course_service.guard import status
from course_service.guard.steps import Credentials
from course_service.startup import StartupError
from course_service.store.database import Database
from tests.conftest import empty
from tests.support.certificates import Authority, replace
from tests.support.fuzzing import fuzzed
from tests.support.secure import (
    GET,
    METHODS,
    MISSING,
    REFLECTION,
    Secure,
    ask_grpc,
    ask_http,
    callers,
    http_routes,
    secured,
)
from tests.support.tokens import AUDIENCE, ISSUER, Issuer, decoded, encoded, jwk, jwks, new_key
from tests.support.waiting import until
from tests.test_repository import COURSE, add

GOOD = Issuer()
OTHER = Issuer(kid="k2")
HEADER = {"alg": "ES256", "kid": "k1", "typ": "JWT"}
PEM = GOOD.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
NOW = int(time.time())


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Tokens:
    path = tmp_path_factory.mktemp("keys") / "keys.json"
    path.write_bytes(jwks(GOOD.public))
    return Tokens(ISSUER, AUDIENCE, KeySet(str(path)))


def with_hmac(key: bytes) -> str:
    """Signed as if the public key, which everybody has, were a secret."""
    signed = ".".join(encoded(json.dumps(part).encode()) for part in ({**HEADER, "alg": "HS256"}, GOOD.claims()))
    return f"{signed}.{encoded(jwt.get_algorithm_by_name('HS256').sign(signed.encode(), key))}"


def spelled_otherwise(token: str) -> str:
    """The same bytes in another spelling: the last character of base64 has spare bits."""
    *others, signature = token.split(".")
    for last in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_":
        same = signature[:-1] + last
        if same != signature and decoded(same) == decoded(signature):
            return ".".join((*others, same))
    raise AssertionError("there is none")


def with_other_signature(token: str, other: str) -> str:
    return f"{token.rpartition('.')[0]}.{other.rpartition('.')[2]}"


REFUSED: dict[str, tuple[Callable[[], str], type[CourseError]]] = {
    "expired": (lambda: GOOD.token(exp=NOW - 60), TokenExpired),
    "not yet valid": (lambda: GOOD.token(nbf=NOW + 600), TokenInvalid),
    "made in the future": (lambda: GOOD.token(iat=NOW + 600), TokenInvalid),
    "for somebody else": (lambda: GOOD.token(aud="billing"), TokenInvalid),
    "for somebody else and others": (lambda: GOOD.token(aud=["billing", "report"]), TokenInvalid),
    "of another issuer": (lambda: GOOD.token(iss="https://evil.example"), TokenInvalid),
    "of another environment": (lambda: OTHER.token({"kid": "k1"}, iss="https://issuer.test.example"), TokenInvalid),
    "of another key": (lambda: OTHER.token({"kid": "k1"}), TokenInvalid),
    "with the signature of another": (lambda: with_other_signature(GOOD.token(), GOOD.token(sub="b")), TokenInvalid),
    "expired and wrongly signed": (lambda: OTHER.token({"kid": "k1"}, exp=NOW - 60), TokenInvalid),
    "alg none": (lambda: f"{GOOD.raw({**HEADER, 'alg': 'none'}, GOOD.claims()).rpartition('.')[0]}.", TokenMalformed),
    "alg none with a signature": (lambda: GOOD.raw({**HEADER, "alg": "none"}, GOOD.claims()), TokenInvalid),
    "HS256 with the public key": (lambda: with_hmac(PEM), TokenInvalid),
    "alg of another kind": (lambda: GOOD.raw({**HEADER, "alg": "RS256"}, GOOD.claims()), TokenInvalid),
    "alg missing": (lambda: GOOD.raw({"kid": "k1"}, GOOD.claims()), TokenInvalid),
    "unknown kid": (lambda: OTHER.token(), TokenKeyUnknown),
    "kid with a path": (lambda: GOOD.token({"kid": "../../etc/passwd"}), TokenKeyUnknown),
    "kid missing": (lambda: jwt.encode(GOOD.claims(), GOOD.key, "ES256"), TokenMalformed),
    "kid that is a number": (lambda: GOOD.raw({**HEADER, "kid": 1}, GOOD.claims()), TokenMalformed),
    "jwk in the header": (lambda: OTHER.token({"kid": "k1", "jwk": OTHER.public}), TokenMalformed),
    "jku in the header": (lambda: GOOD.token({"jku": "https://evil.example"}), TokenMalformed),
    "crit": (lambda: GOOD.raw({**HEADER, "crit": ["x"], "x": 1}, GOOD.claims()), TokenMalformed),
    "zip": (lambda: GOOD.token({"zip": "DEF"}), TokenMalformed),
    "typ of something else": (lambda: GOOD.token({"typ": "secevent+jwt"}), TokenMalformed),
    "header twice": (lambda: GOOD.raw('{"alg":"ES256","kid":"k2","kid":"k1"}', GOOD.claims()), TokenMalformed),
    "header no object": (lambda: GOOD.raw("[]", GOOD.claims()), TokenMalformed),
    "header nested": (lambda: GOOD.raw("[" * 1500, GOOD.claims()), TokenMalformed),
    "padded": (lambda: GOOD.token() + "=", TokenMalformed),
    "padded inside": (lambda: GOOD.token().replace(".", "=.", 1), TokenMalformed),
    "spelled otherwise": (lambda: spelled_otherwise(GOOD.token()), TokenMalformed),
    "with a space": (lambda: " " + GOOD.token(), TokenMalformed),
    "with a line break": (lambda: GOOD.token() + "\n", TokenMalformed),
    "four parts": (lambda: GOOD.token() + ".x", TokenMalformed),
    "no signature": (lambda: GOOD.token().rpartition(".")[0] + ".", TokenMalformed),
    "two parts": (lambda: GOOD.token().rpartition(".")[0], TokenMalformed),
    "empty": (lambda: "", TokenMalformed),
    "10 KB": (lambda: GOOD.token(x="x" * 10_000), TokenMalformed),
    "100 KB": (lambda: GOOD.token(x="x" * 100_000), TokenMalformed),
    "empty sub": (lambda: GOOD.token(sub=""), TokenInvalid),
    "sub of spaces": (lambda: GOOD.token(sub="a b"), TokenInvalid),
    "sub with a line break": (lambda: GOOD.token(sub="a\nb"), TokenInvalid),
    "long sub": (lambda: GOOD.token(sub="x" * 257), TokenInvalid),
    "sub that is a number": (lambda: GOOD.raw(HEADER, GOOD.claims(sub=1)), TokenInvalid),
    "numeric-string exp": (lambda: GOOD.raw(HEADER, GOOD.claims(exp=str(NOW + 600))), TokenInvalid),
    "boolean exp": (lambda: GOOD.raw(HEADER, GOOD.claims(exp=True)), TokenExpired),
    "boolean iat": (lambda: GOOD.raw(HEADER, GOOD.claims(iat=True)), TokenInvalid),
    "claims twice": (lambda: GOOD.raw(HEADER, json.dumps(GOOD.claims())[:-1] + ', "sub": "root"}'), TokenInvalid),
    "claims no object": (lambda: GOOD.raw(HEADER, "[]"), TokenInvalid),
    "claims no JSON": (lambda: GOOD.raw(HEADER, "{"), TokenInvalid),
    "claims nested": (lambda: GOOD.raw(HEADER, "[" * 1500), TokenInvalid),
    **{
        f"without {name}": ((lambda name=name: GOOD.token(**{name: None})), TokenInvalid)  # type: ignore[misc]  # bound now
        for name in ("exp", "iat", "sub", "iss", "aud")
    },
    **{
        f"exp {text}": (
            (lambda text=text: GOOD.raw(HEADER, json.dumps(GOOD.claims(exp="@")).replace('"@"', text))),  # type: ignore[misc]  # bound now
            TokenInvalid,
        )
        for text in ("NaN", "Infinity", "1e999", "9" * 400, "-1e999", "null", "[]")
    },
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_token_that_is_not_right_is_refused(tokens: Tokens, what: str) -> None:
    make, error = REFUSED[what]
    for _ in range(2):  # the second time from what was remembered, if anything was
        with pytest.raises((TokenExpired, TokenInvalid, TokenKeyUnknown, TokenMalformed)) as caught:
            tokens.subject(make())
        assert type(caught.value) is error


@pytest.mark.parametrize("algorithm", ["ES256", "RS256", "EdDSA"])
def test_a_right_token_of_each_algorithm_is_taken(tmp_path: Path, algorithm: str) -> None:
    issuer = Issuer(algorithm)
    path = tmp_path / "keys.json"
    path.write_bytes(jwks(issuer.public))
    tokens = Tokens(ISSUER, AUDIENCE, KeySet(str(path)))
    now = int(time.time())
    for token in (
        issuer.token(),
        issuer.token({"typ": "at+jwt"}),
        issuer.token(aud=["x", AUDIENCE], nbf=now),
        issuer.token(exp=now - 10),  # a clock that is a little late
        issuer.token(iat=now + 10),
        issuer.token(exp=now + 0.5),
    ):
        assert [tokens.subject(token) for _ in range(2)] == ["svc-enrol"] * 2


def test_a_remembered_token_expires_in_time(tokens: Tokens, monkeypatch: pytest.MonkeyPatch) -> None:
    token = GOOD.token()
    assert tokens.subject(token)
    monkeypatch.setattr(time, "time", lambda: NOW + 300 + 3600.0)
    with pytest.raises(TokenExpired):
        tokens.subject(token)


LEFT_OUT: dict[str, Callable[[], dict[str, Any]]] = {
    "a secret": lambda: {"kty": "oct", "k": "c2VjcmV0", "kid": "bad"},
    "a private key": lambda: jwk(new_key(), "bad"),
    "a short RSA key": lambda: jwk(new_key("RS256", bits=1024).public_key(), "bad"),
    "a key of another curve": lambda: {**GOOD.public, "crv": "P-384", "kid": "bad"},
    "a key for encryption": lambda: {**GOOD.public, "use": "enc", "kid": "bad"},
    "a key without id": lambda: {**GOOD.public, "kid": ""},
    "a key for another algorithm": lambda: {**GOOD.public, "alg": "HS256", "kid": "bad"},
    "no point of the curve": lambda: {**GOOD.public, "x": GOOD.public["y"], "kid": "bad"},
    "half a key": lambda: {"kty": "EC", "crv": "P-256", "kid": "bad"},
    "a key of no kind": lambda: {"kid": "bad"},
}


@pytest.mark.parametrize("what", LEFT_OUT)
def test_a_key_that_is_no_public_key_for_tokens_is_left_out(caplog: pytest.LogCaptureFixture, what: str) -> None:
    assert set(read_keys(jwks(LEFT_OUT[what](), GOOD.public))) == {"k1"}
    assert "is left out" in caplog.text
    with pytest.raises(Unusable, match="no key that can be used"):
        read_keys(jwks(LEFT_OUT[what]()))


def test_a_key_whose_id_is_there_twice_is_left_out() -> None:
    assert set(read_keys(jwks(GOOD.public, {**OTHER.public, "kid": "k1"}, OTHER.public))) == {"k2"}


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"{}", b'{"keys": 1}', b'{"keys": []}', b"[" * 5000])
def test_what_is_no_key_set_ends_the_start(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(text)
    with pytest.raises(StartupError, match=r"^COURSE_TOKEN_KEYS: .*"):
        KeySet(str(path))
    with pytest.raises(StartupError, match="a file or an https URL"):
        KeySet("http://issuer.example/keys")


def test_keys_are_replaced_and_a_bad_file_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watched, "_PAUSE_SECONDS", 0.05)
    path = tmp_path / "keys.json"
    path.write_bytes(jwks(GOOD.public))
    tokens = Tokens(ISSUER, AUDIENCE, KeySet(str(path)))
    old, new = GOOD.token(), OTHER.token()
    assert tokens.subject(old)
    assert refusal(tokens, new) is TokenKeyUnknown
    replace(path, jwks(GOOD.public, OTHER.public))  # both at once
    until(lambda: refusal(tokens, new) is None)
    assert tokens.subject(old)
    replace(path, jwks(OTHER.public))
    until(lambda: refusal(tokens, old) is TokenKeyUnknown)  # though it was remembered
    assert tokens.subject(new)
    replace(path, b"{")
    until(lambda: "still in use" in caplog.text)
    assert tokens.subject(new)


def refusal(tokens: Tokens, token: str) -> type[Exception] | None:
    try:
        tokens.subject(token)
    except CourseError as error:
        return type(error)
    return None


class Endpoint:
    """A JWKS by https, on this machine."""

    def __init__(self, folder: Path) -> None:
        authority = Authority()
        self.body, self.status, self.asked = jwks(GOOD.public), 200, 0
        self.may_respond = threading.Event()
        self.may_respond.set()
        endpoint = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # the name that http.server asks for
                endpoint.asked += 1
                endpoint.may_respond.wait(20)
                self.send_response(endpoint.status)
                self.send_header("Location", "https://127.0.0.1/elsewhere")
                self.end_headers()
                self.wfile.write(endpoint.body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*authority.server().write(folder, "endpoint"))
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self.server.server_port}/keys"
        self.trust = ssl.create_default_context(cadata=authority.certificate.decode())
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self._keys: list[KeySet] = []

    def keys(self) -> KeySet:
        """Keys that are fetched here until the test ends."""
        self._keys.append(KeySet(self.url, self.trust))
        return self._keys[-1]

    def close(self) -> None:
        """End, after those who fetch: the connection of one that is cut off would stay open for a while."""
        self.may_respond.set()
        for keys in self._keys:
            keys.close()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    monkeypatch.setattr(key_sets, "_FETCH_AGAIN_SECONDS", 0.05)
    endpoint = Endpoint(tmp_path)
    yield endpoint
    endpoint.close()


def test_keys_come_by_https_and_an_unknown_one_has_them_fetched_again(endpoint: Endpoint) -> None:
    keys = endpoint.keys()
    tokens = Tokens(ISSUER, AUDIENCE, keys)
    assert 0 < time.time() - keys.fetched < 10
    assert tokens.subject(GOOD.token())
    endpoint.body = jwks(OTHER.public)
    until(lambda: refusal(tokens, OTHER.token()) is None)
    asked = endpoint.asked
    assert tokens.subject(OTHER.token())
    assert endpoint.asked == asked


def test_an_endpoint_that_fails_or_hangs_leaves_good_tokens_good_and_slows_nobody(
    endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = Tokens(ISSUER, AUDIENCE, endpoint.keys())
    good, unknown = GOOD.token(), OTHER.token()
    for code, body in ((500, b"canary"), (200, b"canary"), (302, b""), (200, b"x" * 300_000)):
        endpoint.status, endpoint.body = code, body
        caplog.clear()
        assert refusal(tokens, unknown) is TokenKeyUnknown
        until(lambda: "still in use" in caplog.text)
        asked = endpoint.asked
        until(lambda: endpoint.asked > asked + 2)  # noqa: B023  # used before it changes
        assert caplog.text.count("still in use") == 1  # though it is tried again and again
        assert tokens.subject(good)
    assert "canary" not in caplog.text
    endpoint.may_respond.clear()
    assert refusal(tokens, unknown) is TokenKeyUnknown
    asked = endpoint.asked
    until(lambda: endpoint.asked > asked or refusal(tokens, unknown) is None)
    began = time.perf_counter()
    assert [tokens.subject(good) for _ in range(100)]
    assert refusal(tokens, unknown) is TokenKeyUnknown
    assert time.perf_counter() - began < 0.5


def test_a_service_starts_though_its_endpoint_is_down(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        tokens = Tokens(ISSUER, AUDIENCE, KeySet("https://127.0.0.1:9/keys"))
    assert "cannot be fetched (URLError)" in caplog.text
    assert refusal(tokens, GOOD.token()) is TokenKeyUnknown


@fuzzed
@given(st.one_of(st.text(max_size=200), st.tuples(st.integers(0, 400), st.characters())))
def test_whatever_is_sent_is_refused_with_one_of_four_reasons(tokens: Tokens, sent: str | tuple[int, str]) -> None:
    token = GOOD.token()
    if isinstance(sent, tuple):
        place = sent[0] % len(token)
        altered = token[:place] + sent[1] + token[place + 1 :]
        if altered == token:
            return
    else:
        altered = sent
    assert refusal(tokens, altered) in {TokenExpired, TokenInvalid, TokenKeyUnknown, TokenMalformed}


class Shown(Credentials):
    """Headers, as a face would read them."""

    def __init__(self, headers: list[tuple[str, str]]) -> None:
        self._headers = headers

    def pairs(self) -> list[tuple[str, str | bytes]]:
        return list(self._headers)


@fuzzed
@given(st.lists(st.tuples(st.sampled_from(["authorization", "x"]), st.text(max_size=60)), max_size=3))
def test_whatever_the_headers_are_they_identify_nobody(tokens: Tokens, headers: list[tuple[str, str]]) -> None:
    with pytest.raises(CourseError) as caught:
        ByToken(tokens)(Call("grpc", "GetCourse"), Shown(headers))
    assert status.CODES[type(caught.value)] == code_pb2.UNAUTHENTICATED


@pytest.fixture(scope="module")
def secure(
    _database: Database, database_url: URL, tmp_path_factory: pytest.TempPathFactory, tokens: Tokens
) -> Iterator[Secure]:
    """A service that asks for tokens; it has one course."""
    empty(database_url)
    add(_database, COURSE)
    policy = tmp_path_factory.mktemp("policy") / "policy.toml"
    policy.write_text('[roles]\nadmin = ["jwt:svc-enrol"]\n')
    with secured(_database, ByToken(tokens), policy) as service:
        yield service


HEADERS: dict[str, tuple[Callable[[], list[str]], str]] = {
    "nothing": (list, "CREDENTIALS_MISSING"),
    "Bearer alone": (lambda: ["Bearer"], "TOKEN_MALFORMED"),
    "another scheme": (lambda: ["Basic YTpi"], "TOKEN_MALFORMED"),
    "no scheme": (lambda: [GOOD.token()], "TOKEN_MALFORMED"),
    "two headers": (lambda: [f"Bearer {GOOD.token()}"] * 2, "CREDENTIALS_AMBIGUOUS"),
    "two tokens": (lambda: [f"Bearer {GOOD.token()}, Bearer {GOOD.token()}"], "TOKEN_MALFORMED"),
    "a stranger's": (lambda: [f"Bearer {GOOD.token(sub='eve')}"], "PERMISSION_DENIED"),
    "a subject that claims a certificate's name": (
        lambda: [f"Bearer {GOOD.token(sub='spiffe://prod.example/x')}"],
        "PERMISSION_DENIED",
    ),
    **{
        what: ((lambda make=make: [f"Bearer {make()}"]), error.reason)  # type: ignore[misc]  # bound now
        for what, (make, error) in REFUSED.items()
        if what != "empty" and not what.startswith("with a ") and len(make()) < 15_000
    },
}


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
@pytest.mark.parametrize("what", HEADERS)
def test_what_is_no_right_token_opens_nothing_on_either_face(secure: Secure, tmp_path: Path, what: str) -> None:
    make, reason = HEADERS[what]
    headers = [("authorization", value) for value in make()]
    code = "PERMISSION_DENIED" if reason == "PERMISSION_DENIED" else "UNAUTHENTICATED"
    with secure.channel() as channel, secure.http(tmp_path) as http:
        for path in (*METHODS, *REFLECTION):
            answer, other = (ask_grpc(channel, path, name, headers) for name in (COURSE.name, "courses/missing"))
            if "grpc.health" in path:
                assert answer.code == "OK"
                continue
            assert (answer.code, answer.reason) == (code, reason), path
            assert answer == other, path
        for (method, path), (_, same) in zip(http_routes(COURSE.name), http_routes("courses/missing"), strict=True):
            answer, other = (ask_http(http, method, each, headers) for each in (path, same))
            assert (answer.code, answer.reason) == (code, "" if method == "HEAD" else reason), path
            assert answer == other, path


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_a_right_token_opens_everything_to_an_admin(secure: Secure, tmp_path: Path) -> None:
    headers = [("authorization", f"bearer {GOOD.token()}")]  # the scheme's letters may be small
    with secure.channel() as channel, secure.http(tmp_path) as http:
        assert {ask_grpc(channel, path, COURSE.name, headers).code for path in (*METHODS, *REFLECTION)}.isdisjoint(
            {"UNAUTHENTICATED", "PERMISSION_DENIED"}
        )
        response = http.get("/courses/missing")
        assert response.status_code == 401
        assert response.headers["WWW-Authenticate"] == 'Bearer realm="course"'
        response = http.get("/courses/missing", headers={"Authorization": "Bearer x"})
        assert response.headers["WWW-Authenticate"] == 'Bearer realm="course", error="invalid_token"'
        assert ask_http(http, "GET", f"/{COURSE.name}", headers).code == "OK"


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_keys_are_replaced_under_load_and_tokens_of_the_old_one_are_shut_out(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watched, "_PAUSE_SECONDS", 0.05)
    path, policy = tmp_path / "keys.json", tmp_path / "policy.toml"
    path.write_bytes(jwks(GOOD.public))
    policy.write_text('[roles]\nreader = ["jwt:svc-enrol"]\n')
    with secured(database, ByToken(Tokens(ISSUER, AUDIENCE, KeySet(str(path)))), policy) as service:

        def old() -> list[tuple[str, str]]:
            return [("authorization", f"Bearer {GOOD.token()}")]

        def new() -> list[tuple[str, str]]:
            return [("authorization", f"Bearer {OTHER.token()}")]

        with service.channel() as live, service.http(tmp_path) as live_http:

            def codes(shown: list[tuple[str, str]]) -> set[str]:
                return {
                    ask_grpc(live, GET, MISSING, shown).code,
                    ask_http(live_http, "GET", f"/{MISSING}", shown).code,
                }

            long_known = old()
            assert codes(long_known) == {"NOT_FOUND"}
            assert codes(new()) == {"UNAUTHENTICATED"}
            with callers(service, tmp_path, headers=old) as wrong:  # both are valid at once
                replace(path, jwks(GOOD.public, OTHER.public))
                until(lambda: codes(new()) == {"NOT_FOUND"})
                replace(path, b"{")
                until(lambda: "COURSE_TOKEN_KEYS" in caplog.text)
                assert codes(long_known) == codes(new()) == {"NOT_FOUND"}
            assert wrong == []
            with callers(service, tmp_path, headers=new) as wrong:
                replace(path, jwks(OTHER.public))
                until(lambda: codes(long_known) == {"UNAUTHENTICATED"})  # though the connections are the same
            assert wrong == []
