"""Floods: as many bytes of a bad kind as a server takes, for some seconds, from a process of its own.

`python -m tests.faults.support.floods KIND HOST:PORT SECONDS` prints what it sent as JSON. It is a process, because
a thread would slow the callers down that a test measures beside it.
"""

import contextlib
import json
import os
import random
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from hpack import Encoder, NeverIndexedHeaderTuple
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from tests.faults.support.http2 import PREFACE, SERVICE

_ROOT = Path(__file__).parents[3]
_MAX_CHUNKS = 200_000
_MAX_CONNECTIONS = 20_000
_AT_ONCE = 50
"""Frames in a chunk."""
_PATIENCE_SECONDS = 0.5
"""How long a server may take no bytes before its connection is given up."""

# Never indexed: the block stands by itself, so it may be sent again and again.
_HEADERS = Encoder().encode(
    NeverIndexedHeaderTuple(name, value)
    for name, value in (
        (":method", "POST"),
        (":scheme", "http"),
        (":path", f"{SERVICE}/GetCourse"),
        (":authority", "localhost"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    )
)
_OPENING = PREFACE + SettingsFrame(0).serialize()


@dataclass
class Sent:
    """What a flood came to."""

    connections: int = 0
    chunks: int = 0
    megabytes: float = 0

    def __str__(self) -> str:
        return f"sent {self.megabytes:.0f} MB over {self.connections:,} connections"


def _headers(stream: int, *flags: str, block: bytes = _HEADERS) -> Frame:
    return HeadersFrame(stream, block, flags=["END_HEADERS", *flags])


def _chunks(frames: Iterator[Frame]) -> Iterator[bytes]:
    chunk: list[bytes] = []
    for frame in frames:
        chunk.append(frame.serialize())
        if len(chunk) == _AT_ONCE:
            yield b"".join(chunk)
            chunk.clear()
    yield b"".join(chunk)


def _rapid_reset() -> Iterator[bytes]:
    def frames() -> Iterator[Frame]:
        for stream in range(1, 1 << 30, 2):
            yield _headers(stream)
            yield RstStreamFrame(stream, 8)

    yield _OPENING
    yield from _chunks(frames())


def _streams() -> Iterator[bytes]:
    """Ten thousand calls at once on a connection, however many are allowed."""
    yield _OPENING
    yield from _chunks(_headers(stream) for stream in range(1, 20_001, 2))


def _again_and_again(*frames: Frame) -> Callable[[], Iterator[bytes]]:
    chunk = b"".join(frame.serialize() for frame in frames) * _AT_ONCE

    def chunks() -> Iterator[bytes]:
        yield _OPENING
        while True:
            yield chunk

    return chunks


def _continuation() -> Iterator[bytes]:
    """Headers that never end: a block goes on in frame after frame."""
    yield _OPENING + HeadersFrame(1, _HEADERS).serialize()
    header = Encoder().encode([NeverIndexedHeaderTuple("x-name", "a" * 1000)])
    while True:
        yield ContinuationFrame(1, header).serialize() * 10


def _empty_data() -> Iterator[bytes]:
    yield _OPENING + _headers(1).serialize()
    while True:
        yield DataFrame(1).serialize() * _AT_ONCE


def _garbage() -> Iterator[bytes]:
    while True:
        yield random.randbytes(1 << 14)


def _garbage_after_preface() -> Iterator[bytes]:
    yield _OPENING
    yield from _garbage()


def _http1() -> Iterator[bytes]:
    while True:
        yield b"GET /courses HTTP/1.1\r\nHost: localhost\r\n\r\n" * _AT_ONCE


def _http1_headers() -> Iterator[bytes]:
    """Headers that never end."""
    yield b"GET /courses HTTP/1.1\r\nHost: localhost\r\n"
    while True:
        yield b"X-Name: " + b"a" * 1000 + b"\r\n"


def _http1_chunks() -> Iterator[bytes]:
    """A body that never ends."""
    yield b"POST /courses HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    yield b"Transfer-Encoding: chunked\r\n\r\n"
    while True:
        yield b"400\r\n" + b"a" * 1024 + b"\r\n"


def _connections() -> Iterator[bytes]:
    """A connection after the other, each closed as soon as it is there."""
    yield b""


KINDS: dict[str, Callable[[], Iterator[bytes]]] = {
    "rapid reset": _rapid_reset,
    "10,000 streams": _streams,
    "PING": _again_and_again(PingFrame(0, b"12345678")),
    "SETTINGS": _again_and_again(SettingsFrame(0, {SettingsFrame.INITIAL_WINDOW_SIZE: 65_535})),
    "WINDOW_UPDATE": _again_and_again(WindowUpdateFrame(0, 1)),
    "PRIORITY": _again_and_again(PriorityFrame(3)),
    "CONTINUATION": _continuation,
    "empty DATA": _empty_data,
    "garbage": _garbage,
    "garbage after the preface": _garbage_after_preface,
    "HTTP/1.1": _http1,
    "connections": _connections,
    "endless headers": _http1_headers,
    "endless chunks": _http1_chunks,
}
"""What a connection sends, by the name of the flood."""
IDLE = "3,000 idle sockets"


def run(kind: str, address: str, seconds: float) -> Sent:
    """Flood a server from a process of its own; returns when it is over."""
    command = [sys.executable, "-m", "tests.faults.support.floods", kind, address, str(seconds)]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, check=True, text=True, timeout=seconds + 30)
    return Sent(**json.loads(done.stdout))


def _flood(kind: str, address: tuple[str, int], seconds: float) -> Sent:
    until = time.monotonic() + seconds
    sent = Sent()
    while time.monotonic() < until and sent.connections < _MAX_CONNECTIONS:
        try:
            connection = socket.create_connection(address, timeout=_PATIENCE_SECONDS)
        except OSError:
            time.sleep(0.01)
            continue
        sent.connections += 1
        # A server that closes, or takes no bytes any more, gets a new connection.
        with connection, contextlib.suppress(OSError):
            for chunk in KINDS[kind]():
                connection.sendall(chunk)
                sent.chunks += 1
                sent.megabytes += len(chunk) / 1e6
                if time.monotonic() > until or sent.chunks > _MAX_CHUNKS:
                    break
            _read_what_came(connection)
    return sent


def _read_what_came(connection: socket.socket) -> None:
    connection.settimeout(0)
    while connection.recv(1 << 16):
        pass


def _stay_idle(address: tuple[str, int], seconds: float) -> Sent:
    """Open 3,000 connections and send nothing, for as long as the server lets each be."""
    until = time.monotonic() + seconds
    sockets: list[socket.socket] = []
    for _ in range(3_000):
        if time.monotonic() > until:
            break
        with contextlib.suppress(OSError):
            sockets.append(socket.create_connection(address, timeout=_PATIENCE_SECONDS))
    time.sleep(max(0.0, until - time.monotonic()))
    for connection in sockets:
        connection.close()
    return Sent(connections=len(sockets))


if __name__ == "__main__":
    os.nice(10)  # callers who flood do not sit on the service's own machine: it has the processors first
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 20_000), hard))
    chosen, (host, _, port), lasting = sys.argv[1], sys.argv[2].rpartition(":"), float(sys.argv[3])
    work = _stay_idle if chosen == IDLE else lambda *arguments: _flood(chosen, *arguments)
    sys.stdout.write(json.dumps(asdict(work((host, int(port)), lasting))))
