"""Bodies that are no JSON, and requests that are no HTTP, byte by byte."""

import gzip
import re
import socket
from collections.abc import Mapping, Sequence
from functools import partial

import pytest

from tests.faults.bad_inputs.faces import MALFORMED, MISMATCH, OK, TOO_LARGE, Outcome, http_outcome, invalid
from tests.faults.bad_inputs.test_wire import address
from tests.faults.bad_inputs.world import SEED, World

JSON = "application/json"
DEEP = 100_000


def post(world: World, body: bytes, path: str = "/courses", method: str = "CreateCourse", **headers: str) -> Outcome:
    """Send a body; CreateCourse checks it and stores nothing."""
    sent = {"Content-Type": JSON, **{name.replace("_", "-"): value for name, value in headers.items()}}
    params = {"validate_only": "true"} if method == "CreateCourse" else {}
    response = world.service.http.post(path, content=body, params=params, headers=sent)
    return http_outcome(response, method)


NO_JSON = {
    "nothing": b"", "spaces": b"  \n", "cut": b'{"title": "T"', "cut in a text": b'{"title": "T', "a brace": b"{",
    "trailing comma": b'{"title": "T",}', "leading comma": b'{,"title": "T"}', "no colon": b'{"title" "T"}',
    "single quotes": b"{'title': 'T'}", "a key without quotes": b'{title: "T"}', "a comment": b'{"title": "T"} // x',
    "two documents": b'{"title": "T"}{"title": "T"}', "two lines": b'{"title": "T"}\n{"title": "T"}',
    "NUL after it": b'{"title": "T"}\0', "a list": b'[{"title": "T"}]', "an empty list": b"[]", "a text": b'"T"',
    "a number": b"1", "null": b"null", "true": b"true", "NaN": b"NaN", "NaN in it": b'{"title": "T", "etag": NaN}',
    "Infinity": b'{"title": "T", "etag": Infinity}', "-Infinity": b'{"title": "T", "etag": -Infinity}',
    "hexadecimal": b'{"title": "T", "etag": 0x10}', "leading zero": b'{"title": "T", "etag": 01}',
    "plus": b'{"title": "T", "etag": +1}', "a point first": b'{"title": "T", "etag": .5}',
    "a point last": b'{"title": "T", "etag": 1.}', "5,000 digits": b'{"title": "T", "etag": ' + b"9" * 5000 + b"}",
    "True": b'{"title": "T", "etag": True}', "a key twice": b'{"title": "S", "title": "T"}',
    "a key twice, escaped": b'{"title": "S", "t\\u0069tle": "T"}',
    "a label twice": b'{"title": "T", "labels": {"a": "1", "a": "2"}}',
    "a key twice in what is ignored": b'{"title": "T", "state": {"a": 1, "a": 2}}',
    "lists, 100,000 deep": b"[" * DEEP, "lists, 100,000 deep and closed": b"[" * DEEP + b"]" * DEEP,
    "objects, 100,000 deep": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "100,000 deep in a title": b'{"title": ' + b"[" * DEEP + b"]" * DEEP + b"}",
    "UTF-16": '{"title": "T"}'.encode("utf-16"), "UTF-16-LE": '{"title": "T"}'.encode("utf-16-le"),
    "UTF-32": '{"title": "T"}'.encode("utf-32"), "a BOM": b'\xef\xbb\xbf{"title": "T"}',
    "ff fe": b'{"title": "\xff\xfe"}', "Latin-1": '{"title": "é"}'.encode("latin-1"),
    "overlong": b'{"title": "\xc0\x80"}',
    "a surrogate in UTF-8": b'{"title": "\xed\xa0\x80"}', "over U+10FFFF": b'{"title": "\xf4\x90\x80\x80"}',
    "cut UTF-8": b'{"title": "\xe2\x82"}', "a control character": b'{"title": "a\x01b"}',
    "a raw line": b'{"title": "a\nb"}',
    "a raw NUL": b'{"title": "a\0b"}', "an escape that is none": b'{"title": "\\x41"}',
    "half an escape": b'{"title": "\\u12"}',
    "a form": b"title=T", "XML": b"<course/>", "gzip": gzip.compress(b'{"title": "T"}'), "YAML": b"title: T",
}  # fmt: skip


@pytest.mark.parametrize("name", NO_JSON)
def test_a_body_that_is_no_json_object_is_malformed(world: World, name: str) -> None:
    world.check("http", lambda: post(world, NO_JSON[name]), MALFORMED, f"JSON: {name}")


CONTENT_TYPES = {
    "": MALFORMED, "text/plain": MALFORMED, "text/json": MALFORMED, "application/x-www-form-urlencoded": MALFORMED,
    "multipart/form-data; boundary=x": MALFORMED, "application/jsonp": MALFORMED, "application/grpc": MALFORMED,
    ";": MALFORMED, "json": MALFORMED, "a" * 10_000: MALFORMED, "application/json; charset=utf-8": OK,
    "APPLICATION/JSON": OK,
    "application/merge-patch+json": OK, "application/json; charset=utf-16": OK,
}  # fmt: skip


@pytest.mark.parametrize("kind", CONTENT_TYPES, ids=lambda kind: kind[:40])
def test_a_body_of_another_kind_is_malformed(world: World, kind: str) -> None:
    def send() -> Outcome:
        return post(world, b'{"title": "T"}', Content_Type=kind)

    world.check("http", send, CONTENT_TYPES[kind], f"Content-Type: {kind[:40]}")


ODD_JSON: Mapping[str, tuple[bytes, Outcome]] = {
    "1e400": (b'{"title": 1e400}', invalid({"course.title": "FIELD_WRONG_TYPE"})),
    "-1e400 in a list": (b'{"title": "T", "subjects": [-1e400]}', invalid({"course.subjects[0]": "FIELD_WRONG_TYPE"})),
    "1e400 in what is ignored": (b'{"title": "T", "state": 1e400}', OK),
    "-0": (b'{"title": "T", "code": -0}', invalid({"course.code": "FIELD_WRONG_TYPE"})),
    "4,000 digits": (b'{"title": ' + b"9" * 4000 + b"}", invalid({"course.title": "FIELD_WRONG_TYPE"})),
    "an empty key": (b'{"title": "T", "": 1}', invalid({'""': "FIELD_UNKNOWN"})),
    "a key with a NUL": (b'{"title": "T", "\\u0000": 1}', invalid({'"\\u0000"': "FIELD_UNKNOWN"})),
    "a key of 100 KB": (b'{"title": "T", "' + b"a" * 100_000 + b'": 1}', invalid({f'"{"a" * 80}"': "FIELD_UNKNOWN"})),
    "a key of half a pair": (b'{"title": "T", "\\ud800": 1}', MALFORMED),
    "a key in capitals": (b'{"Title": "T"}', invalid({"course.title": "FIELD_REQUIRED", "Title": "FIELD_UNKNOWN"})),
    "a key in camel case": (b'{"title": "T", "languageCode": "en"}', invalid({"languageCode": "FIELD_UNKNOWN"})),
    "an escaped pair": (b'{"title": "\\ud83e\\udd84"}', OK),
    "an escaped key": (b'{"t\\u0069tle": "T"}', OK),
    "null everywhere": (
        b'{"title": "T", "code": null, "description": null, "owner": null, "subjects": null, "labels": null}',
        OK,
    ),
    "no title but null": (b'{"title": null}', invalid({"course.title": "FIELD_REQUIRED"})),
    "999 KB of spaces": (b'{"title": "T"' + b" " * 999_000 + b"}", OK),
    "1 MiB of spaces": (b'{"title": "T"' + b" " * (1 << 20) + b"}", TOO_LARGE),
    "4 MiB + 1": (b" " * ((4 << 20) + 1), TOO_LARGE),
}


@pytest.mark.parametrize("name", ODD_JSON)
def test_odd_json_ends_as_the_table_says(world: World, name: str) -> None:
    body, expected = ODD_JSON[name]
    world.check("http", lambda: post(world, body), expected, f"JSON: {name}")


# Half a surrogate pair, which only an escape of JSON can bring: gRPC's texts are UTF-8.
HALVES = {
    "high": "\\ud800", "low": "\\udc00", "high last": "a\\udbff", "turned round": "\\udd84\\ud83e",
    "two": "\\ud800\\ud800",
}  # fmt: skip
HALF_FIELDS: Sequence[tuple[str, str]] = (
    ('"title": "{}"', "course.title"), ('"code": "{}"', "course.code"), ('"description": "{}"', "course.description"),
    ('"owner": "{}"', "course.owner"), ('"language_code": "{}"', "course.language_code"),
    ('"subjects": ["{}"]', "course.subjects[0]"), ('"labels": {{"k": "{}"}}', 'course.labels["k"]'),
    ('"labels": {{"{}": "v"}}', 'course.labels["{}"]'), ('"external_ids": {{"k": "{}"}}', 'course.external_ids["k"]'),
    ('"external_ids": {{"{}": "v"}}', 'course.external_ids["{}"]'),
)  # fmt: skip


@pytest.mark.parametrize("name", HALVES)
def test_half_a_surrogate_pair_is_refused_in_every_field(world: World, name: str) -> None:
    half = HALVES[name]
    shown = re.sub(r"\\u\w{4}", r"\\ufffd" * 3, half)  # in the path of a key
    for template, path in HALF_FIELDS:
        title = "" if path == "course.title" else '"title": "T", '
        body = f"{{{title}{template.format(half)}}}".encode()
        expected = invalid({path.format(shown): "FIELD_BAD_CHARACTER"})
        world.check("http", partial(post, world, body), expected, f"half a pair, {name} in {path}")
    for field, expected in (("etag", MISMATCH), ("request_id", invalid({"request_id": "FIELD_BAD_FORMAT"}))):
        send = partial(post, world, f'{{"{field}": "{half}"}}'.encode(), f"/{SEED}:archive", "ArchiveCourse")
        world.check("http", send, expected, f"half a pair, {name} in {field}")


BODY = b'{"title": "T"}'
CHUNKED = b"e\r\n" + BODY + b"\r\n0\r\n\r\n"


def request(*headers: bytes, line: bytes = b"POST /courses?validate_only=true HTTP/1.1", body: bytes = BODY) -> bytes:
    """Write a request, the last of its connection; its length is for the headers to say."""
    always = b"Host: localhost", b"Content-Type: application/json", b"Connection: close"
    return b"\r\n".join([line, *always, *headers, b"", b""]) + body


def get(target: bytes = b"/courses", *headers: bytes, version: bytes = b"HTTP/1.1", method: bytes = b"GET") -> bytes:
    return request(*headers, line=b"%b %b %b" % (method, target, version), body=b"")


# What is sent, and the status code of the one response before the connection ends.
LENGTH = b"Content-Length: 14"
TE = b"Transfer-Encoding: chunked"
REQUESTS: Mapping[str, tuple[bytes, int]] = {
    "as it should be": (request(LENGTH), 200),
    "chunked": (request(TE, body=CHUNKED), 200),
    "two lengths": (request(LENGTH, b"Content-Length: 5"), 400),
    "a length of -1": (request(b"Content-Length: -1"), 400),
    "a length of +14": (request(b"Content-Length: +14"), 400),
    "a length of 1_4": (request(b"Content-Length: 1_4"), 400),
    "a length of abc": (request(b"Content-Length: abc"), 400),
    "an empty length": (request(b"Content-Length:"), 400),
    "a length of 10^30": (request(b"Content-Length: 1" + b"0" * 30), 400),
    "another transfer encoding": (request(b"Transfer-Encoding: gzip, chunked", body=CHUNKED), 400),
    "transfer encoding twice": (request(TE, TE, body=CHUNKED), 400),
    "transfer encoding identity": (request(b"Transfer-Encoding: identity", LENGTH), 400),
    "transfer encoding with a VT": (request(b"Transfer-Encoding: \x0bchunked", body=CHUNKED), 400),
    "a chunk of zz": (request(TE, body=b"zz\r\n" + BODY), 400),
    "a chunk of -e": (request(TE, body=b"-e\r\n" + BODY), 400),
    "a chunk of 0xe": (request(TE, body=b"0xe\r\n" + BODY), 400),
    "a chunk of 21 digits": (request(TE, body=b"f" * 21 + b"\r\n" + BODY), 400),
    "a chunk without an end": (request(TE, body=b"e\r\n" + BODY + b"XX0\r\n\r\n"), 400),
    "endless chunks": (request(TE, body=(b"8000\r\n" + b" " * 0x8000 + b"\r\n") * 40), 413),
    "an endless chunk": (request(TE, body=b"7fffffff\r\n" + b" " * 1_300_000), 413),
    "a body of gzip": (request(b"Content-Encoding: gzip", TE, body=CHUNKED.replace(b"{", b"\x1f")), 422),
    "two Hosts": (request(LENGTH, b"Host: example.com"), 400),
    "no Host": (request(LENGTH).replace(b"Host: localhost\r\n", b""), 400),
    "HTTP/1.1x": (get(version=b"HTTP/1.1x"), 400),
    "HTTP/1": (get(version=b"HTTP/1"), 400),
    "a method that is none": (get(method=b"NOPE"), 405),
    "a method in small letters": (get(method=b"get"), 405),
    "a method with a parenthesis": (get(method=b"GE(T"), 400),
    "TRACE": (get(method=b"TRACE"), 405),
    "CONNECT": (get(b"localhost:1", method=b"CONNECT"), 404),
    "a header without a colon": (get(b"/courses", b"nope"), 400),
    "a header without a name": (get(b"/courses", b": a"), 400),
    "a space before the colon": (get(b"/courses", b"X : a"), 400),
    "a header with a NUL": (get(b"/courses", b"X: a\0b"), 400),
    "a header with a CR": (get(b"/courses", b"X: a\rb"), 400),
    "300 KB of headers": (get(b"/courses", b"X: " + b"a" * 300_000), 400),
    "a line of 300 KB": (get(b"/" + b"a" * 300_000), 400),
    "17 KB of headers without an end": (b"GET /courses HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 17_000, 400),
    "a path with a NUL": (get(b"/courses/a\0b"), 400),
    "a path that is not ASCII": (get(b"/courses/\xc3\xa9"), 400),
    "a path with a space": (get(b"/courses/a b"), 400),
    "a path of %zz": (get(b"/courses/%zz"), 422),
    "a path of %ff": (get(b"/courses/%ff"), 422),
    "a path of %c0%af": (get(b"/courses/%c0%af"), 422),
    "a path of %00": (get(b"/courses/%00"), 422),
    "a path of %2e%2e": (get(b"/courses/%2e%2e/%2e%2e/etc/passwd"), 404),
    "a path with CR and LF": (get(b"/courses/%0d%0aSet-Cookie:x"), 404),
    "a query that is not ASCII": (get(b"/courses?filter=\xff"), 400),
    "a query of %00": (get(b"/courses?filter=%00"), 422),
    "a query with a semicolon": (get(b"/courses?page_size=1;page_size=2"), 422),
    "a query without a name": (get(b"/courses?=x"), 422),
    "a query of 1,000 names": (get(b"/courses?" + b"&".join(b"a%d=1" % number for number in range(1000))), 422),
    "a fragment": (get(b"/courses#x"), 404),
    "an upgrade to h2c": (get(b"/courses", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAAP__"), 200),
    "an upgrade to WebSocket": (get(b"/courses", b"Upgrade: websocket", b"Sec-WebSocket-Key: AA=="), 200),
    "Idempotency-Key twice": (request(LENGTH, *[b"Idempotency-Key: 6f1f2a60-3e0b-4c57-9d5a-2f0f5d3b8a11"] * 2), 422),
    "an empty Idempotency-Key": (request(LENGTH, b"Idempotency-Key:"), 422),
    "an Idempotency-Key that is not ASCII": (request(LENGTH, b"Idempotency-Key: \xe9"), 422),
    "a ClientHello of TLS": (bytes.fromhex("160301005a0100005603034c2a3f0e") + bytes(80), 400),
    "bytes": (bytes(range(256)), 400),
    "empty lines": (b"\r\n" * 1000, 400),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_that_is_no_http_is_refused_and_its_connection_ended(world: World, name: str) -> None:
    sent, status = REQUESTS[name]

    def send() -> Outcome:
        (only,) = statuses(world, sent)
        return Outcome("", only)

    world.check("http", send, Outcome("", status), f"HTTP/1.1: {name}")


def test_a_body_with_two_ends_is_refused_and_what_follows_is_no_request(world: World) -> None:
    """Whoever passed it on may have seen the other end, and taken what follows for a part of it."""
    smuggled = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    both = request(b"Content-Length: 5", TE, body=CHUNKED).replace(b"Connection: close\r\n", b"")
    assert statuses(world, both + smuggled) == [422]


@pytest.mark.parametrize("text", ["%ff", "%ed%a0%80", "%c0%80", "%e2%82"])
def test_a_query_that_is_not_utf_8_is_refused_and_not_altered(world: World, text: str) -> None:
    options = {"target": f"/courses?filter=title%20=%20{text}".encode()}
    send = partial(world.service.http.get, "/", extensions=options)
    world.check("http", lambda: http_outcome(send()), MALFORMED, f"query: {text}")


GRPC_PORT = {
    "HTTP/1.1": get(),
    "a POST of HTTP/1.1": request(LENGTH),
    "a ClientHello of TLS": REQUESTS["a ClientHello of TLS"][0],
    "bytes": bytes(range(256)) * 100,
    "empty lines": b"\r\n" * 1000,
}


@pytest.mark.parametrize("name", GRPC_PORT)
def test_what_is_no_http_2_ends_its_connection_to_the_grpc_port(world: World, name: str) -> None:
    host, _, port = address(world).rpartition(":")
    received(host, int(port), GRPC_PORT[name])


def statuses(world: World, sent: bytes) -> list[int]:
    """Send bytes to the HTTP port and return the status codes of all that comes back."""
    url = world.service.http.base_url
    assert url.port
    lines = [line for line in received(url.host, url.port, sent).split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]
    return [int(line.split()[1]) for line in lines]


def received(host: str, port: int, sent: bytes) -> bytes:
    """Send bytes and read until the service ends the connection, which it must."""
    with socket.create_connection((host, port), timeout=9) as connection:
        data = b""
        try:
            connection.sendall(sent)
            while piece := connection.recv(1 << 16):
                data += piece
        except ConnectionError:  # it has ended before all was sent or read
            pass
        return data
