"""Calls by HTTP/1.1 on open connections, made by one thread: a client library would cost more than the server.

It knows just as much of HTTP as is needed for responses that have a Content-Length.
"""

from __future__ import annotations

import contextlib
import json
import re
import selectors
import socket
import time
from collections.abc import Callable, Iterator, Sequence

from benchmarks.servers import Server

_CHUNK = 1 << 18
_PATIENCE_SECONDS = 30


def get(server: Server, path: str) -> bytes:
    """Make a GET."""
    return _head(server, "GET", path) + b"\r\n"


def post(server: Server, path: str, body: dict[str, object]) -> bytes:
    """Make a POST of JSON."""
    text = json.dumps(body).encode()
    return (
        _head(server, "POST", path) + b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(text) + text
    )


def _head(server: Server, method: str, path: str) -> bytes:
    token = f"authorization: Bearer {server.token}\r\n" if server.token else ""
    return f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1:{server.http_port}\r\n{token}".encode()


@contextlib.contextmanager
def prepared(
    server: Server, opening: Sequence[bytes], requests: Sequence[bytes]
) -> Iterator[Callable[[], list[float]]]:
    """Open as many connections as `opening` has requests, and make one on each.

    Gives what makes the others, so many at a time, and returns how long each took, in milliseconds.
    """
    with contextlib.ExitStack() as stack:
        address = ("127.0.0.1", server.http_port)
        connections = [stack.enter_context(socket.create_connection(address, _PATIENCE_SECONDS)) for _ in opening]
        _exchange(connections, opening)
        yield lambda: _exchange(connections, requests)


def _exchange(connections: Sequence[socket.socket], requests: Sequence[bytes]) -> list[float]:
    """Send each request on whichever connection is free; returns the milliseconds that each took."""
    taken: list[float] = []
    began: dict[socket.socket, float] = {}
    received = dict.fromkeys(connections, b"")
    free, left = list(connections), list(reversed(requests))
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            selector.register(connection, selectors.EVENT_READ, connection)
        while len(taken) < len(requests):
            while free and left:
                connection = free.pop()
                began[connection] = time.perf_counter()
                connection.sendall(left.pop())
            if not (ready := selector.select(_PATIENCE_SECONDS)):
                raise TimeoutError("a call by HTTP has no response")
            for key, _ in ready:
                connection = key.data
                if not (chunk := connection.recv(_CHUNK)):
                    raise ConnectionError("a connection was closed instead of a response")
                received[connection] += chunk
                if _is_whole(received[connection]):
                    taken.append((time.perf_counter() - began[connection]) * 1000)
                    received[connection] = b""
                    free.append(connection)
    return taken


def _is_whole(response: bytes) -> bool:
    """Whether all of a response is there. Raises `RuntimeError` if it is an error."""
    head, end, body = response.partition(b"\r\n\r\n")
    if not end:
        return False
    length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
    if not (length and re.match(rb"HTTP/1.1 20[01] ", head)):
        raise RuntimeError(f"a call by HTTP failed: {response[:500]!r}")
    return len(body) == int(length[1])
