"""HTTP/2 by hand, for callers with bad manners: it sends what no gRPC library would, and leaves out what each sends."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import unquote

import h2.config
import h2.connection
import h2.events
import h2.settings

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SERVICE = "/course.v1.CourseService"


def framed(message: bytes, *, flag: int = 0, length: int | None = None) -> bytes:
    """Put gRPC's prefix before a message: the flag (1: compressed) and the length, which may be a lie."""
    return bytes([flag]) + (len(message) if length is None else length).to_bytes(4, "big") + message


@dataclass
class Reply:
    """What has come back on a stream so far."""

    headers: dict[str, str] = field(default_factory=dict)
    """Headers and trailers together."""
    data: bytes = b""
    has_ended: bool = False
    reset: int | None = None
    """The error code of RST_STREAM, if the server sent one."""

    @property
    def grpc_status(self) -> int | None:
        """The number of the status, if one came."""
        text = self.headers.get("grpc-status")
        return None if text is None else int(text)

    @property
    def grpc_message(self) -> str:
        """The status message, readable."""
        return unquote(self.headers.get("grpc-message", ""))


class Connection:
    """One connection to a gRPC server. `window` is what the server may send of each response: 0 lets none through.

    Nothing is read but while `reply` or `read` waits.
    """

    def __init__(self, address: str, *, window: int | None = None) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=10)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Without validation: half of what is to be sent is wrong.
        self._h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(
                client_side=True,
                header_encoding="utf-8",
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        self._window = window
        if window is not None:
            initial = {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window, h2.settings.SettingCodes.ENABLE_PUSH: 0}
            self._h2.local_settings = h2.settings.Settings(client=True, initial_values=initial)
        self.replies: dict[int, Reply] = {}
        """What has come back, by stream."""
        self.is_closed = False
        """Whether the server has closed the connection."""
        self.goaway: int | None = None
        """The error code of the server's GOAWAY, if it sent one."""
        self._h2.initiate_connection()
        self._flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def begin(self, path: str, *, end: bool = False, headers: Mapping[str, str] | None = None) -> int:
        """Send the headers of a call; returns its stream. A header may be replaced, or left out by an empty value."""
        sent = {
            ":method": "POST",
            ":scheme": "http",
            ":path": path,
            ":authority": "localhost",
            "te": "trailers",
            "content-type": "application/grpc",
            **(headers or {}),
        }
        stream = self._h2.get_next_available_stream_id()
        self.replies[stream] = Reply()
        self._h2.send_headers(stream, [(name, value) for name, value in sent.items() if value], end_stream=end)
        self._flush()
        return stream

    def send(self, stream: int, data: bytes, *, end: bool = False) -> None:
        """Send a piece of a call's body."""
        self._h2.send_data(stream, data, end_stream=end)
        self._flush()

    def end(self, stream: int) -> None:
        """Say that a call's body has ended."""
        self._h2.end_stream(stream)
        self._flush()

    def reset(self, stream: int, code: int = 8) -> None:
        """Leave a call; 8 is CANCEL."""
        self._h2.reset_stream(stream, code)
        self._flush()

    def call(self, path: str, body: bytes, *, headers: Mapping[str, str] | None = None, seconds: float = 10) -> Reply:
        """Make a whole call of a body that is framed already."""
        stream = self.begin(path, headers=headers)
        self.send(stream, body, end=True)
        return self.reply(stream, seconds)

    def raw(self, data: bytes) -> None:
        """Send bytes as they are. What they begin, this connection knows nothing of."""
        self._socket.sendall(data)

    def reply(self, stream: int, seconds: float = 10) -> Reply:
        """Read until a stream has ended, the connection is closed, or the time is up; returns what has come."""
        reply = self.replies[stream]
        deadline = time.monotonic() + seconds
        while not reply.has_ended and not self.is_closed and (left := deadline - time.monotonic()) > 0:
            self.read(left)
        return reply

    def read(self, seconds: float) -> None:
        """Take in what has come, or comes first within the time."""
        self._socket.settimeout(max(seconds, 0.001))
        try:
            data = self._socket.recv(1 << 16)
        except TimeoutError:
            return
        except ConnectionError:
            data = b""
        finally:
            self._socket.settimeout(10)
        if not data:
            self.is_closed = True
            return
        for event in self._h2.receive_data(data):
            self._take(event)
        self._flush()

    def _take(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.ResponseReceived() | h2.events.TrailersReceived():
                self.replies[event.stream_id].headers |= {_text(k): _text(v) for k, v in event.headers or ()}
            case h2.events.DataReceived():
                self.replies[event.stream_id].data += event.data or b""
                if self._window is None:
                    self._h2.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id)
            case h2.events.StreamEnded():
                self.replies[event.stream_id].has_ended = True
            case h2.events.StreamReset():
                reply = self.replies[event.stream_id]
                reply.reset, reply.has_ended = int(event.error_code or 0), True
            case h2.events.ConnectionTerminated():
                self.goaway = int(event.error_code or 0)

    def _flush(self) -> None:
        if data := self._h2.data_to_send():
            try:
                self._socket.sendall(data)
            except ConnectionError:
                self.is_closed = True


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode()
