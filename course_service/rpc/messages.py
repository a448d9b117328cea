"""The messages of calls that have one: they are received before a call takes a thread.

grpcio itself would have the call's thread wait for them: who sends nothing would hold a thread, and who sends all at
once would still make one wait and wake up. What is used of its internals, and why each part holds, a test says
(`tests/test_messages.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from grpc import _server
from grpc._cython import cygrpc  # type: ignore[attr-defined]  # a compiled module, which the types leave out

from course_service import call

if TYPE_CHECKING:
    from course_service.rpc.watchdog import Watchdog

Arguments: TypeAlias = tuple[Any, ...]
"""What grpcio has a thread do: a function, and its arguments. They are the call's event and state, the handler, what
gets its messages, and what decodes and encodes them."""

Receive: TypeAlias = Callable[[Arguments, Callable[[Arguments, int], None]], None]
"""Receives the messages of a call, and then goes on, with arguments that have them and how many bytes they are."""

_FLAGS = 0


def receive_of(arguments: Arguments) -> Receive | None:
    """Return what receives the messages of a call, if its handler has them received before it is called."""
    _, _, _, handler, *_ = arguments
    receive: Receive | None = getattr(handler, "receive", None)
    return receive


def context_of(arguments: Arguments) -> _server._Context:
    """Make the context that grpcio itself makes for a call once it has a thread."""
    _, event, state, *_ = arguments
    return _server._Context(event, state, None)


class Messages:
    """Receives the messages of one call, so many at most; to be made and begun in grpcio's own thread."""

    __slots__ = ("_arguments", "_event", "_most", "_received", "_state", "_then", "_watched")

    def __init__(
        self, arguments: Arguments, most: int, watchdog: Watchdog, then: Callable[[Arguments, int], None]
    ) -> None:
        _, self._event, self._state, *_ = self._arguments = arguments
        self._most = most
        self._received: list[bytes] = []
        self._then = then
        self._watched = watchdog.message(self._event.call, call.BODY_SECONDS)

    def receive(self) -> None:
        """Receive the next one."""
        with self._state.condition:
            if _server._is_rpc_state_active(self._state):
                operation = cygrpc.ReceiveMessageOperation(_FLAGS)
                self._event.call.start_server_batch((operation,), self._arrived)
                self._state.due.add(_server._RECEIVE_MESSAGE_TOKEN)
                return
        self._end()

    def _arrived(self, event: cygrpc.BaseEvent) -> object:
        """Take a message, or note that there will be none; grpcio calls this, and wants to know if the call is over."""
        over = _server._receive_message(self._state, self._event.call, None)(event)
        message, self._state.request = self._state.request, None
        if message is not None:
            self._received.append(message)
            if len(self._received) < self._most:
                self.receive()
                return over
        self._end()
        return over

    def _end(self) -> None:
        self._watched.end()
        run, event, state, handler, _, *others = self._arguments
        received = self._received
        self._then((run, event, state, handler, lambda: received, *others), sum(map(len, received)))
