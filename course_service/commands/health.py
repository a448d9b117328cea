"""Exit with 0 if the service is SERVING: what a container's health check runs, every few seconds.

It loads nothing but Python's sockets, because gRPC would cost it five times as much CPU. So it speaks just as much
HTTP/2 as one call takes: https://www.rfc-editor.org/rfc/rfc9113, and HPACK without its table, rfc7541.
"""

import socket
import struct
import sys
from collections.abc import Iterator

from course_service.environment import course_variables, grpc_address

_TIMEOUT_SECONDS = 3.0
_DATA, _HEADERS, _SETTINGS = 0, 1, 4
_ACKNOWLEDGED, _END_OF_STREAM, _END_OF_HEADERS = 1, 1, 4
_STREAM = 1
_SERVING = b"\0\0\0\0\2\x08\x01"
"""A HealthCheckResponse of status SERVING, as gRPC sends it."""
_NO_MESSAGE = b"\0\0\0\0\0"
"""A HealthCheckRequest for the process as a whole."""


def main() -> int:
    """Check the service at COURSE_HEALTH_ADDRESS, or else at COURSE_GRPC_ADDRESS; returns the exit code."""
    settings = course_variables()
    if address := settings.get("health_address"):
        return _check(address)
    if settings.get("tls_client_ca_file"):
        sys.stderr.write("course-service: clients need a certificate; set COURSE_HEALTH_ADDRESS for the health check\n")
        return 1
    return _check(grpc_address(), tls=bool(settings.get("tls_certificate_file")))


def _check(address: str, *, tls: bool = False) -> int:
    if is_serving(address, tls=tls):
        return 0
    sys.stderr.write(f"course-service: no service at {address} says that it is SERVING\n")
    return 1


def is_serving(address: str, *, tls: bool = False) -> bool:
    """Ask the service at an address for the health of the process."""
    host, _, port = address.rpartition(":")
    host = {"0.0.0.0": "127.0.0.1", "[::]": "::1"}.get(host, host).strip("[]")  # noqa: S104  # this machine, if it listens everywhere
    try:
        with _connected(host, int(port), tls=tls) as connection:
            connection.sendall(_call("/grpc.health.v1.Health/Check"))
            message = b"".join(_data(connection))
    except OSError:
        return False
    return message == _SERVING


def _connected(host: str, port: int, *, tls: bool) -> socket.socket:
    connection = socket.create_connection((host, port), timeout=_TIMEOUT_SECONDS)
    if not tls:
        return connection
    import ssl  # which doubles what the check costs

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # it is this machine, whatever name the certificate has
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return context.wrap_socket(connection)


def _call(path: str) -> bytes:
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "localhost",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    block = b"".join(b"\0" + _text(name) + _text(value) for name, value in headers.items())
    return b"".join(
        (
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            _frame(_SETTINGS, 0, 0),
            _frame(_HEADERS, _END_OF_HEADERS, _STREAM, block),
            _frame(_DATA, _END_OF_STREAM, _STREAM, _NO_MESSAGE),
        )
    )


def _text(text: str) -> bytes:
    assert len(text) < 127  # or its length would take more than a byte
    return bytes([len(text)]) + text.encode()


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack("!IBI", len(payload) << 8 | kind, flags, stream) + payload


def _data(connection: socket.socket) -> Iterator[bytes]:
    """Read the data of the response, until the stream or the connection ends."""
    with connection.makefile("rb") as frames:
        while len(head := frames.read(9)) == 9:
            length_and_kind, flags, stream = struct.unpack("!IBI", head)
            kind = length_and_kind & 0xFF
            payload = frames.read(length_and_kind >> 8)
            if kind == _SETTINGS and not flags & _ACKNOWLEDGED:
                connection.sendall(_frame(_SETTINGS, _ACKNOWLEDGED, 0))
            if stream == _STREAM and kind == _DATA:
                yield payload
            if stream == _STREAM and kind in {_DATA, _HEADERS} and flags & _END_OF_STREAM:
                return
