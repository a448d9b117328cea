"""uvicorn's HTTP/1.1 with limits that it lacks: how long callers may take to send and read, and how many connect."""

import asyncio
import socket
from asyncio.sslproto import SSLProtocol
from collections.abc import Callable
from typing import ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

CERTIFICATE, CONNECTED = "certificate", "connected"
"""In the state of each request: the certificate that the client has shown, as DER or None, and when it connected, by
the event loop's clock."""

MAX_HEADER_BYTES = 16 << 10
"""Of the request line and the headers together."""
HEADER_SECONDS = 5.0
"""How long the headers of a request may take to arrive from its first byte; the first request's, from connecting."""
REST_SECONDS = 5.0
"""How long what is left of a body may take to arrive once its request has been responded to."""
READ_SECONDS = 30.0
"""How long a caller may take to read on when its connection is full."""
MAX_UNREAD_BYTES = 64 << 20
"""What all responses together may hold that wait for their callers to read on."""
READ_BYTES = 8 << 10
"""What is read of a connection before the others have their turn: of tiny chunks, h11 makes as many events."""
SSLProtocol.max_size = READ_BYTES  # asyncio has no other name for it; its own would be 256 KiB for each connection
KEEP_ALIVE_SECONDS = 75
"""How long a connection may be idle between two requests."""


class BoundedProtocol(H11Protocol):
    """One connection. What takes too long ends it."""

    max_connections = 2_000
    unread: ClassVar[dict["BoundedProtocol", None]] = {}
    """The connections whose callers do not read, in the order in which they stopped."""

    _arrival: asyncio.TimerHandle | None = None
    """Ends the connection unless what it waits for arrives in time."""
    _departure: asyncio.TimerHandle | None = None
    """Ends the connection unless what it sends is read in time."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Take a connection, unless there are too many."""
        if len(self.connections) >= self.max_connections:
            self.transport = transport
            transport.abort()
            return
        super().connection_made(transport)
        # asyncio does it for sockets that were made as TCP's by number; without it every response is 40 ms late.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = transport.get_extra_info("ssl_object")
        certificate = connection.getpeercert(binary_form=True) if connection else None
        self.app_state = {**self.app_state, CERTIFICATE: certificate, CONNECTED: self.loop.time()}
        transport.max_size = READ_BYTES  # type: ignore[attr-defined]  # what asyncio reads in one go; it has no name for it
        self._arrival = self._end_after(HEADER_SECONDS)

    def data_received(self, data: bytes) -> None:
        """Take bytes of a request."""
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._arrival = self._arrival or self._end_after(HEADER_SECONDS)
        elif not self._is_past_response():
            self._forget_arrival()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, unless a response has begun: then all that is left is to end the connection."""
        if self.conn.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            super().send_400_response(msg)
        else:
            self.transport.abort()

    def on_response_complete(self) -> None:
        """Go on with the next request, or wait for the rest of this one."""
        super().on_response_complete()
        self._forget_arrival()
        if self._is_past_response():
            self._arrival = self._end_after(REST_SECONDS)

    def pause_writing(self) -> None:
        """Wait until the caller reads."""
        super().pause_writing()
        self._departure = self._departure or self._end_after(READ_SECONDS)
        self.unread[self] = None
        _end_longest_unread(self.unread)

    def resume_writing(self) -> None:
        """Write on."""
        super().resume_writing()
        self.unread.pop(self, None)
        if self._departure:
            self._departure.cancel()
            self._departure = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._forget_arrival()
        self.unread.pop(self, None)
        if self._departure:
            self._departure.cancel()
        super().connection_lost(exc)

    def _is_past_response(self) -> bool:
        return self.conn.our_state is h11.DONE and self.conn.their_state is h11.SEND_BODY

    def _forget_arrival(self) -> None:
        if self._arrival:
            self._arrival.cancel()
            self._arrival = None

    def _end_after(self, seconds: float) -> asyncio.TimerHandle:
        return self.loop.call_later(seconds, self.transport.abort)


def bounded_protocol(max_connections: int) -> Callable[..., BoundedProtocol]:
    """Make the protocol of a server that takes so many connections at once."""
    return type("Protocol", (BoundedProtocol,), {"max_connections": max_connections, "unread": {}})


def _end_longest_unread(unread: dict[BoundedProtocol, None]) -> None:
    """End the connections that have been unread longest, until the others hold no more than they may together."""
    sizes = {protocol: protocol.transport.get_write_buffer_size() for protocol in unread}
    held = sum(sizes.values())
    for protocol, size in sizes.items():
        if held <= MAX_UNREAD_BYTES:
            return
        held -= size
        del unread[protocol]
        protocol.transport.abort()
