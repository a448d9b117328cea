"""What grpcio wants worked on: a call, its messages and its response.

grpcio itself would have the call's thread wait for the message: who sends nothing would hold a thread, and who sends it
at once would still make one wait and wake up. It would also take the response from that thread alone. What is used of
its internals for this, and that each part holds, a test says (`tests/test_task.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc
from google.rpc import status_pb2
from grpc import _server
from grpc._cython import cygrpc  # type: ignore[attr-defined]  # a compiled module, which the types leave out
from grpc_status import rpc_status

from course_service.guard.steps import Credentials

if TYPE_CHECKING:
    from course_service.rpc.interceptor import Guarded

Function: TypeAlias = Callable[..., object]

_FLAGS = 0


class Task:
    """A call to be worked on by its handler."""

    __slots__ = (
        "_arguments",
        "_event",
        "_function",
        "_most",
        "_received",
        "_state",
        "arrived",
        "call",
        "caller",
        "context",
        "credentials",
        "handler",
        "is_elsewhere",
        "messages",
        "size",
    )

    def __init__(self, function: Function, arguments: tuple[Any, ...]) -> None:
        self.arrived = time.monotonic()
        """When the call came in."""
        self._function = function
        self._arguments = arguments
        _, self._event, self._state, handler, *_ = arguments
        self.handler: Guarded = handler
        self.context = _server._Context(self._event, self._state, None)
        self.credentials = GrpcCredentials(self.context)
        self.call = self.handler.call(self)
        self.caller = self.call.caller
        """Whose turn it takes: who calls, if that has been asked."""
        self.messages: list[bytes] = []
        """The messages that have been received before the call was worked on, if its handler has them received."""
        self.size = 0
        """How many bytes these are."""
        self.is_elsewhere = False
        """Whether it has no place among the threads, because it goes on in the thread that has what it waits for."""

    def receive(self, most: int, then: Callable[[Task], object]) -> None:
        """Receive so many messages at most, and then go on with it in grpcio's own thread, which this is called in."""
        self._most, self._received = most, then
        self._receive_next()

    def _receive_next(self) -> None:
        with self._state.condition:
            if _server._is_rpc_state_active(self._state):
                operation = cygrpc.ReceiveMessageOperation(_FLAGS)
                self._event.call.start_server_batch((operation,), self._arrived)
                self._state.due.add(_server._RECEIVE_MESSAGE_TOKEN)
                return
        self._received(self)

    def _arrived(self, event: cygrpc.BaseEvent) -> object:
        """Take a message, or note that there will be none; grpcio calls this, and wants to know if the call is over."""
        over = _server._receive_message(self._state, self._event.call, None)(event)
        message, self._state.request = self._state.request, None
        if message is not None:
            self.messages.append(message)
            self.size += len(message)
            if len(self.messages) < self._most:
                self._receive_next()
                return over
        self._received(self)
        return over

    def work_as_grpcio(self) -> None:
        """Have grpcio call the handler, with this in the place of the messages."""
        function, event, state, handler, _, *others = self._arguments
        self._function(function, event, state, handler, lambda: self, *others)

    def __iter__(self) -> Iterator[bytes]:
        """Receive the messages one by one, in the thread that asks for them."""
        messages: Iterator[bytes] = self._arguments[4]()
        return messages

    def respond(self, response: bytes) -> None:
        """End the call with a response, from any thread."""
        _server._status(self._event, self._state, response)

    def fail(self, status: status_pb2.Status) -> None:
        """End the call with an error, from any thread."""
        error = rpc_status.to_status(status)
        self.context.set_code(error.code)
        self.context.set_details(error.details)
        self.context.set_trailing_metadata(error.trailing_metadata)
        _server._status(self._event, self._state, None)

    def cancel(self) -> None:
        """End the call without a response."""
        self._event.call.cancel()


class GrpcCredentials(Credentials):
    """What a caller by gRPC has shown."""

    __slots__ = ("_context",)

    def __init__(self, context: grpc.ServicerContext) -> None:
        super().__init__()
        self._context = context

    def pairs(self) -> Iterable[tuple[str, str | bytes]]:
        """Return the call's metadata."""
        return self._context.invocation_metadata()

    def certificate(self) -> bytes | None:
        """Return the client's certificate."""
        shown: Any = self._context.auth_context().get("x509_pem_cert", ())  # bytes, whatever the types say
        return shown[0] if shown else None
