"""Messages, frames and headers that are wrong, byte by byte, by gRPC. HTTP's own are in test_http.py."""

import gzip
import zlib
from base64 import b64decode
from collections.abc import Iterator, Mapping
from functools import partial

import grpc
import pytest
from course.v1 import course_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.rpc import code_pb2, error_details_pb2, status_pb2

from tests.faults.bad_inputs.faces import MALFORMED, NOT_FOUND, OK, Outcome, grpc_outcome, http_code, invalid, refused
from tests.faults.bad_inputs.world import World
from tests.faults.support.http2 import SERVICE, Connection, Reply, framed

METHODS = {method.name: method for method in course_pb2.DESCRIPTOR.services_by_name["CourseService"].methods}


def varint(number: int) -> bytes:
    return bytes([number % 128 | 128]) + varint(number // 128) if number >= 128 else bytes([number])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def text(field: int, value: bytes) -> bytes:
    """A field with a length: a text, a message, an entry of a map."""
    return varint(field << 3 | 2) + varint(len(value)) + value


def send(world: World, method: str, message: bytes) -> Outcome:
    """Send bytes as the message of a method."""
    unary: grpc.UnaryUnaryMultiCallable[bytes, bytes] = world.service.channel.unary_unary(f"{SERVICE}/{method}")
    return grpc_outcome(lambda: course_pb2.Course.FromString(unary(message, timeout=15)))


TITLE = text(1, text(3, b"T"))
GROUP, GROUP_END = b"\xa3\x06", b"\xa4\x06"
NO_COURSE = invalid({"course": "FIELD_REQUIRED"})
NO_TITLE = invalid({"course.title": "FIELD_REQUIRED"})
CREATES: Mapping[str, tuple[bytes, Outcome]] = {
    "zero length": (b"", NO_COURSE),
    "100 KB of unknown fields": (text(1000, b"x" * 1000) * 100 + TITLE, OK),
    "unknown groups, 50 deep": (GROUP * 50 + GROUP_END * 50 + TITLE, OK),
    "a course that is a number": (number(1, 5), NO_COURSE),
    "a course that is fixed64": (b"\x09" + bytes(8), NO_COURSE),
    "a title that is a number": (text(1, number(3, 5)), NO_TITLE),
    "a title that is fixed32": (text(1, b"\x1d" + bytes(4)), NO_TITLE),
    "validate_only that is a text": (TITLE + text(4, b"x"), OK),
    "validate_only of 2^63": (TITLE + number(4, 1 << 63), OK),
    "a title twice": (text(1, text(3, b"S") + text(3, b"T")), OK),
    "a course twice": (TITLE + text(1, text(3, b"T")), OK),
    "a state of 2^64-1": (text(1, text(3, b"T") + number(11, (1 << 64) - 1)), OK),
    "a label without a key": (
        text(1, text(3, b"T") + text(9, text(2, b"x"))),
        invalid({'course.labels[""]': "FIELD_BAD_FORMAT"}),
    ),
    "a label without a value": (text(1, text(3, b"T") + text(9, text(1, b"k"))), OK),
    "a label twice": (text(1, text(3, b"T") + text(9, text(1, b"k") + text(2, b"v")) * 2), OK),
    "an external id without a value": (
        text(1, text(3, b"T") + text(10, text(1, b"k"))),
        invalid({'course.external_ids["k"]': "FIELD_REQUIRED"}),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CREATES)
def test_a_strange_message_is_read_as_protobuf_says(world: World, name: str) -> None:
    message, expected = CREATES[name]
    found = world.check("grpc", lambda: send(world, "CreateCourse", message), expected, f"message: {name}")
    assert expected != OK or found.response["title"] == "T"


NO_MESSAGES = {
    "ff ff ff": b"\xff\xff\xff",
    "cut in a tag": b"\x80",
    "cut in a length": b"\x0a\x80",
    "cut in a text": b"\x0a\x05\x1a\x09ab",
    "length over the end": b"\x0a\x7f\x1a\x01T",
    "length of 2^63": b"\x0a" + varint(1 << 63),
    "varint of 11 bytes": b"\x08" + b"\xff" * 10 + b"\x01",
    "varint without an end": b"\x20" + b"\xff" * 100,
    "groups, 101 deep": GROUP * 101 + GROUP_END * 101,
    "groups, 100,000 deep": GROUP * 100_000 + GROUP_END * 100_000,
    "group without an end": GROUP,
    "end without a group": GROUP_END,
    "group with another's end": GROUP + b"\xac\x06",
    "field 0": b"\x02\x00",
    "field 2^29": varint(1 << 32 | 2) + b"\x00",
    "wire type 6": b"\x0e\x00",
    "wire type 7": b"\x0f\x00",
    "cut in fixed64": b"\xa1\x06\x00\x00",
    "cut in fixed32": b"\xa5\x06\x00\x00",
}


@pytest.mark.parametrize("method", METHODS)
def test_what_is_no_message_is_malformed(world: World, method: str) -> None:
    for name, message in NO_MESSAGES.items():
        world.check("grpc", partial(send, world, method, message), MALFORMED, f"{method}: {name}")


NO_UTF_8 = {
    "ff fe": b"\xff\xfe", "a surrogate": b"\xed\xa0\x80", "overlong": b"\xc0\x80", "overlong of three": b"\xe0\x80\x80",
    "over U+10FFFF": b"\xf4\x90\x80\x80", "cut": b"a\xe2\x82", "continuation alone": b"\x80",
}  # fmt: skip


def texts(message: Descriptor, depth: int = 0) -> Iterator[tuple[str, list[int]]]:
    """Every text in a message, by its name and the numbers that lead to it."""
    for field in message.fields:
        if field.type == FieldDescriptor.TYPE_STRING:
            yield field.name, [field.number]
        elif field.message_type and depth < 4:
            for name, path in texts(field.message_type, depth + 1):
                yield f"{field.name}.{name}", [field.number, *path]


TEXTS = [(method, name, path) for method in METHODS for name, path in texts(METHODS[method].input_type)]


@pytest.mark.parametrize("bad", NO_UTF_8)
def test_a_text_that_is_not_utf_8_is_malformed_in_every_field(world: World, bad: str) -> None:
    for method, name, path in TEXTS:
        message = NO_UTF_8[bad]
        for field in reversed(path):
            message = text(field, message)
        world.check(
            "grpc",
            partial(send, world, method, message),
            MALFORMED,
            f"{method}, {name}: {bad}",
        )


# What grpc itself refuses, before the service: without a google.rpc.Status.
def by_grpc_itself(code: str) -> Outcome:
    return Outcome(code, http_code(code))


UNREADABLE = by_grpc_itself("INTERNAL")
"""What gRPC's specification has for compression that cannot be undone, and grpc for a header that it cannot read."""
EXHAUSTED = by_grpc_itself("RESOURCE_EXHAUSTED")
RESET = by_grpc_itself("RST_STREAM")

CREATE = course_pb2.CreateCourseRequest(course=course_pb2.Course(title="T"), validate_only=True).SerializeToString()
GET = course_pb2.GetCourseRequest(name="courses/nobody").SerializeToString()
MEBIBYTE = 1 << 20
GZIP, DEFLATE = {"grpc-encoding": "gzip"}, {"grpc-encoding": "deflate"}
BODIES: Mapping[str, tuple[bytes, Mapping[str, str], Outcome]] = {
    "no message": (b"", {}, MALFORMED),
    "two messages": (framed(CREATE) * 2, {}, MALFORMED),
    "ten messages": (framed(CREATE) * 10, {}, MALFORMED),
    "two messages, the first empty": (framed(b"") + framed(CREATE), {}, MALFORMED),
    "half a prefix": (b"\0\0", {}, MALFORMED),
    "a prefix and no message": (framed(b"", length=len(CREATE)), {}, MALFORMED),
    "a length over the end": (framed(CREATE, length=len(CREATE) + 10), {}, MALFORMED),
    "a length below the end": (framed(CREATE, length=len(CREATE) - 1), {}, MALFORMED),
    "a length of 1 MiB + 1": (framed(CREATE, length=MEBIBYTE + 1), {}, EXHAUSTED),
    "a length of 4 MiB + 1": (framed(CREATE, length=4 * MEBIBYTE + 1), {}, EXHAUSTED),
    "a length of 4 GiB - 1": (framed(CREATE, length=2**32 - 1), {}, EXHAUSTED),
    "compressed without an encoding": (framed(CREATE, flag=1), {}, UNREADABLE),
    "compressed with identity": (framed(CREATE, flag=1), {"grpc-encoding": "identity"}, UNREADABLE),
    "an unknown encoding": (framed(CREATE, flag=1), {"grpc-encoding": "nope"}, UNREADABLE),
    "gzip": (framed(gzip.compress(CREATE), flag=1), GZIP, OK),
    "deflate": (framed(zlib.compress(CREATE), flag=1), DEFLATE, OK),
    "gzip that is none": (framed(CREATE, flag=1), GZIP, UNREADABLE),
    "gzip that is cut": (framed(gzip.compress(CREATE)[:-9], flag=1), GZIP, UNREADABLE),
    "gzip of 1 MiB + 1": (framed(gzip.compress(bytes(MEBIBYTE + 1)), flag=1), GZIP, EXHAUSTED),
    "gzip of 10 MiB": (framed(gzip.compress(bytes(10 * MEBIBYTE)), flag=1), GZIP, EXHAUSTED),
    "deflate of 10 MiB": (framed(zlib.compress(bytes(10 * MEBIBYTE)), flag=1), DEFLATE, EXHAUSTED),
    "gzip of gzip of 10 MiB": (framed(gzip.compress(gzip.compress(bytes(10 * MEBIBYTE))), flag=1), GZIP, MALFORMED),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_body_that_is_not_one_message_is_refused(world: World, name: str) -> None:
    body, headers, expected = BODIES[name]
    with Connection(address(world)) as connection:
        world.check(
            "grpc",
            lambda: outcome_of(connection.call(f"{SERVICE}/CreateCourse", body, headers=headers)),
            expected,
            f"body: {name}",
        )


HEADERS: Mapping[str, tuple[Mapping[str, str], Outcome]] = {
    "content-type text/plain": ({"content-type": "text/plain"}, NOT_FOUND),  # grpc does not look at it
    "no content-type": ({"content-type": ""}, NOT_FOUND),
    "content-type application/grpc+json": ({"content-type": "application/grpc+json"}, NOT_FOUND),
    "GET": ({":method": "GET"}, RESET),
    "an unknown method": ({":method": "NOPE"}, UNREADABLE),
    "no te": ({"te": ""}, RESET),
    "te gzip": ({"te": "gzip"}, UNREADABLE),
    "no path": ({":path": ""}, RESET),
    "no authority": ({":authority": ""}, RESET),
    "scheme ftp": ({":scheme": "ftp"}, UNREADABLE),
    "a key in capitals": ({"X-Name": "1"}, UNREADABLE),
    "a key that is not ASCII": ({"x-\u00e9": "1"}, UNREADABLE),
    "a value that is not ASCII": ({"x-name": "\u00e9"}, NOT_FOUND),
    "a value with NUL": ({"x-name": "a\0b"}, NOT_FOUND),
    "a value with CR and LF": ({"x-name": "a\r\nx-other: b"}, NOT_FOUND),
    "binary that is not base64": ({"x-name-bin": "!!!"}, UNREADABLE),
    "a status that is not base64": ({"grpc-status-details-bin": "!!!"}, UNREADABLE),
    "connection: close": ({"connection": "close"}, NOT_FOUND),
    "a content-length that lies": ({"content-length": "3"}, NOT_FOUND),
    "transfer-encoding": ({"transfer-encoding": "chunked"}, NOT_FOUND),
    "grpc-timeout 0n": ({"grpc-timeout": "0n"}, by_grpc_itself("DEADLINE_EXCEEDED")),
    "grpc-timeout 00000000S": ({"grpc-timeout": "00000000S"}, by_grpc_itself("DEADLINE_EXCEEDED")),
    "grpc-timeout -1S": ({"grpc-timeout": "-1S"}, UNREADABLE),
    "grpc-timeout 99999999H": ({"grpc-timeout": "99999999H"}, NOT_FOUND),
    "grpc-timeout 999999999S": ({"grpc-timeout": "999999999S"}, NOT_FOUND),
    "grpc-timeout 2^64 S": ({"grpc-timeout": f"{2**64}S"}, NOT_FOUND),
    "grpc-timeout abc": ({"grpc-timeout": "abc"}, UNREADABLE),
    "grpc-timeout 1": ({"grpc-timeout": "1"}, UNREADABLE),
    "grpc-timeout S": ({"grpc-timeout": "S"}, UNREADABLE),
    "grpc-timeout 1x": ({"grpc-timeout": "1x"}, UNREADABLE),
    "grpc-timeout 1.5S": ({"grpc-timeout": "1.5S"}, UNREADABLE),
    "metadata of 7 KB": ({"x-large": "a" * 7 * 1024}, NOT_FOUND),
    "metadata of 9 KB": ({"x-large": "a" * 9 * 1024}, NOT_FOUND),
    "metadata of 12 KB": ({"x-large": "a" * 12 * 1024}, NOT_FOUND),
    "metadata of 15 KB": ({"x-large": "a" * 15 * 1024}, NOT_FOUND),
    "metadata of 17 KB": ({"x-large": "a" * 17 * 1024}, EXHAUSTED),
    "metadata of 40 KB": ({"x-large": "a" * 40 * 1024}, EXHAUSTED),
    "metadata of 17 keys of 1 KB": ({f"x-{n}": "a" * 1024 for n in range(17)}, EXHAUSTED),
    "metadata of 1,000 keys": ({f"x-name-{n}": "a" for n in range(1000)}, EXHAUSTED),
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_that_is_wrong_ends_the_call_cleanly(world: World, name: str) -> None:
    headers, expected = HEADERS[name]
    with Connection(address(world)) as connection:
        settle(connection)
        world.check(
            "grpc",
            lambda: outcome_of(connection.call(f"{SERVICE}/GetCourse", framed(GET), headers=headers)),
            expected,
            f"header: {name}",
        )


PATHS = (
    "/", "//", "*", "nope", "/nope.Nope/Nope", f"{SERVICE}", f"{SERVICE}/", f"{SERVICE}/Nope", f"{SERVICE}/GetCourse/",
    f"{SERVICE}/getcourse", f"/{SERVICE}/GetCourse", SERVICE.lower() + "/GetCourse", f"{SERVICE}/GetCourse?x=1",
    f"{SERVICE}/../CourseService/GetCourse", f"{SERVICE}/GetCourse\0", f"{SERVICE}/\u00e9", "/" + "a" * 10_000,
    "/grpc.health.v1.Health/Nope",
)  # fmt: skip


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path[:50])
def test_a_path_that_is_no_method_is_unimplemented(world: World, path: str) -> None:
    expected = refused("UNIMPLEMENTED", 501, "METHOD_UNKNOWN")
    with Connection(address(world)) as connection:
        world.check("grpc", lambda: outcome_of(connection.call(path, framed(GET))), expected, f"path: {path[:50]!a}")


def test_a_message_that_comes_byte_by_byte_is_read(world: World) -> None:
    with Connection(address(world)) as connection:
        stream = connection.begin(f"{SERVICE}/CreateCourse")
        for byte in framed(CREATE):
            connection.send(stream, bytes([byte]))
        connection.end(stream)
        world.check("grpc", lambda: outcome_of(connection.reply(stream)), OK, "body: byte by byte")


@pytest.mark.parametrize("flag", [2, 255])
def test_a_flag_that_is_none_is_an_invalid_argument(world: World, flag: int) -> None:
    """grpc drops such a message: by chance there is none then, or an empty one."""
    with Connection(address(world)) as connection:
        reply = connection.call(f"{SERVICE}/CreateCourse", framed(CREATE, flag=flag))
    assert outcome_of(reply) in (MALFORMED, NO_COURSE)


@pytest.mark.parametrize("method", ["GetCourse", "ListCourses", "BatchGetCourses"])
def test_two_messages_of_a_read_are_one_or_too_many(world: World, method: str) -> None:
    """A read does not wait for a second message; that one came is seen if it came in time."""
    message = {"BatchGetCourses": course_pb2.BatchGetCoursesRequest(names=["courses/nobody"]).SerializeToString()}
    with Connection(address(world)) as connection:
        reply = connection.call(
            f"{SERVICE}/{method}", framed(message.get(method, GET if method == "GetCourse" else b"")) * 2
        )
    assert outcome_of(reply).code in {"INVALID_ARGUMENT", "NOT_FOUND" if method != "ListCourses" else "OK"}


def address(world: World) -> str:
    target: bytes = world.service.channel._channel.target()  # type: ignore[attr-defined]  # grpc has no public way
    return target.decode().removeprefix("dns:///")


def settle(connection: Connection) -> None:
    """Take in the server's settings and acknowledge them: its limits hold from then on."""
    connection.read(5)


def outcome_of(reply: Reply) -> Outcome:
    """Read what has come back on a stream."""
    if reply.reset is not None and reply.grpc_status is None:
        return RESET
    assert reply.grpc_status is not None, reply
    code = code_pb2.Code.Name(reply.grpc_status)
    encoded = reply.headers.get("grpc-status-details-bin", "")
    reason, violations = "", {}
    for detail in status_pb2.Status.FromString(b64decode(encoded + "==")).details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            reason = error_details_pb2.ErrorInfo.FromString(detail.value).reason
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            found = error_details_pb2.BadRequest.FromString(detail.value).field_violations
            violations = {violation.field: violation.reason for violation in found}
    return Outcome(code, http_code(code, reason), reason, violations, reply.grpc_message)
