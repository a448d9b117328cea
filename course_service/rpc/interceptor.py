"""gRPC's way through the guard: every method's handler is wrapped, whatever is behind it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, status_pb2
from grpc_status import rpc_status

from course_service.call import STREAM_SECONDS, UNKNOWN_METHOD, Call, deadline_after, is_read, most_seconds
from course_service.errors import DeadlineExceeded, MethodUnknown, RequestMalformed
from course_service.guard.guard import Guard, forget_frames
from course_service.guard.steps import Credentials
from course_service.rpc.threads import CallThreads
from course_service.rpc.watchdog import LARGE_BYTES, Watchdog

if TYPE_CHECKING:  # these classes take parameters in their type stubs only
    _Handler: TypeAlias = grpc.RpcMethodHandler[Any, Any]
    _Behavior: TypeAlias = Callable[[Any, grpc.ServicerContext], Any]

_OWN_SERVICE = "course.v1.CourseService/"


class GuardInterceptor(grpc.ServerInterceptor):
    """Takes every call through the guard; nothing else ends a call with an error.

    grpcio itself would respond with the text of an exception, and to an undecodable message with INTERNAL.

    `threads` are those that the server works in. A call that comes when too many wait for them is refused by a
    thread that does nothing else: theirs may all be held up.
    """

    def __init__(self, guard: Guard, threads: CallThreads) -> None:
        self._guard = guard
        self._threads = threads
        self._refusing = CallThreads(1, name="refuse")
        self._watchdog = Watchdog()

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], _Handler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler | None:
        """Wrap the handler of a call. Made anew for each: what is behind may give each call another handler."""
        handler = continuation(handler_call_details)
        path = handler_call_details.method
        if handler is None:
            unknown = _Stream(self._guard, UNKNOWN_METHOD, _unknown(path), self._watchdog, None)
            self._assign_threads(unknown)
            return grpc.stream_stream_rpc_method_handler(unknown)
        method = path.removeprefix("/").removeprefix(_OWN_SERVICE)
        # A single message comes as a stream too, so that the guard decides when to read, and how long to wait.
        if handler.unary_unary is not None:
            unary = _Unary(self._guard, method, handler.unary_unary, self._watchdog, handler.request_deserializer)
            self._assign_threads(unary)
            return grpc.stream_unary_rpc_method_handler(unary, None, unary.watched(handler.response_serializer))
        if handler.unary_stream is not None:
            updates = _Updates(self._guard, method, handler.unary_stream, self._watchdog, handler.request_deserializer)
            self._assign_threads(updates)
            return grpc.stream_stream_rpc_method_handler(updates, None, handler.response_serializer)
        if handler.stream_stream is not None:
            stream = _Stream(self._guard, method, handler.stream_stream, self._watchdog, handler.request_deserializer)
            self._assign_threads(stream)
            return grpc.stream_stream_rpc_method_handler(stream, None, handler.response_serializer)
        raise TypeError(f"{method} takes a stream and returns one message, which the guard does not know")

    def _assign_threads(self, guarded: _Guarded) -> None:
        """Choose the threads of a call: its method's own if it has some, or everybody's unless too many wait."""
        own: CallThreads | None = getattr(guarded.behavior, "experimental_thread_pool", None)
        if own is None and self._threads.is_full():
            guarded.is_surplus = True
            own = self._refusing
        guarded.experimental_thread_pool = own or self._threads


class _Guarded:
    """What calls of all kinds have in common."""

    __slots__ = (
        "_arrived",
        "_decode",
        "_guard",
        "_method",
        "_watchdog",
        "behavior",
        "experimental_thread_pool",
        "is_surplus",
    )
    experimental_thread_pool: Any
    """What grpcio reads: the threads to work in."""

    def __init__(
        self,
        guard: Guard,
        method: str,
        behavior: _Behavior,
        watchdog: Watchdog,
        decode: Callable[[bytes], Any] | None,
    ) -> None:
        self._decode = decode
        self._guard = guard
        self._method = method
        self.behavior = behavior
        self._watchdog = watchdog
        self._arrived = time.monotonic()
        self.is_surplus = False

    def _call(self, context: grpc.ServicerContext) -> Call:
        deadline = min(deadline_after(context.time_remaining()), self._arrived + self._most_seconds())
        return Call("grpc", self._method, arrived=self._arrived, deadline=deadline, is_surplus=self.is_surplus)

    def _most_seconds(self) -> float:
        return most_seconds(self._method)

    def _decoded(self, message: bytes) -> Any:  # noqa: ANN401  # any message
        try:
            return self._decode(message) if self._decode else message
        except DecodeError:
            raise RequestMalformed("The request is not a message of the method's type in valid UTF-8.") from None

    def _failed(self, call: Call, context: grpc.ServicerContext, exception: BaseException) -> status_pb2.Status:
        """Make the status of a call that has raised; nobody receives it if the caller has left or been cut off.

        grpcio ends the messages of such a call with an error, and keeps it: with its frames it would keep the call
        open.
        """
        if context.is_active() or not isinstance(exception, grpc.RpcError):
            return self._guard.failed(call, exception)
        _note_absence(call, context)
        forget_frames(exception)
        return status_pb2.Status(code=code_pb2.CANCELLED)


class _OneMessage(_Guarded):
    """A call with one message."""

    __slots__ = ()

    def _read(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> Any:  # noqa: ANN401  # any message
        """Read the message. Raises `RequestMalformed` if there is none, or two, or it cannot be decoded.

        A method that only reads is not asked for a second one: to see that there is none costs a tenth of a GetCourse,
        and there is nothing that a second one could spoil.
        """
        with self._watchdog.message(context, self._arrived, self.experimental_thread_pool):
            message = next(messages, None)
            if message is None:
                if not context.is_active():  # the watchdog has ended it
                    raise grpc.RpcError
                raise RequestMalformed("A unary call has one message; this one has none.")
            if not is_read(self._method) and next(messages, None) is not None:
                raise RequestMalformed("A unary call has one message; this one has more.")
        return self._decoded(message)


class _Unary(_OneMessage):
    """A unary call on its way through the guard."""

    __slots__ = ("_context",)

    def watched(self, serialize: Callable[[Any], bytes] | None) -> Callable[[Any], bytes] | None:
        """Have the watchdog watch over a response that is large, once it has been serialised."""

        def serialize_and_watch(response: Any) -> bytes:  # noqa: ANN401  # any message
            data = serialize(response) if serialize else bytes(response)
            if len(data) >= LARGE_BYTES:
                self._watchdog.response(self._context, len(data))
            return data

        return serialize_and_watch

    def __call__(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> object:
        self._context = context
        call = self._call(context)
        with self._guard.observed(call):
            try:
                with self._guard.entered(call, _credentials(context)):
                    request = self._read(messages, context)
                    call.note_request_id(getattr(request, "request_id", ""))
                    _check_deadline(call)
                    response = self.behavior(request, context)
                _note_absence(call, context)
                return response  # noqa: TRY300  # an else would be one more place where a call goes on
            except BaseException as exception:  # grpcio would leave a SystemExit without a response
                status = self._failed(call, context, exception)
        return context.abort_with_status(rpc_status.to_status(status))


class _Updates(_OneMessage):
    """A call with one message and a stream of responses, which come by a callback and hold no thread.

    What goes through the guard is its beginning.
    """

    __slots__ = ()
    experimental_non_blocking = True

    def __call__(
        self, messages: Iterator[bytes], context: grpc.ServicerContext, send: Callable[[object], None]
    ) -> None:
        call = self._call(context)
        with self._guard.observed(call):
            try:
                with self._guard.entered(call, _credentials(context)):
                    self.behavior(self._read(messages, context), context, send)  # type: ignore[call-arg]  # see above
                return  # noqa: TRY300  # as above
            except BaseException as exception:
                status = self._failed(call, context, exception)
        context.abort_with_status(rpc_status.to_status(status))


class _Stream(_Guarded):
    """A call with streams of messages and responses on its way through the guard."""

    __slots__ = ()

    def _most_seconds(self) -> float:
        return STREAM_SECONDS

    def __call__(self, messages: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        call = self._call(context)
        seconds = call.deadline - time.monotonic()
        status = None
        with self._guard.observed(call):
            try:
                with self._guard.entered(call, _credentials(context)), self._watchdog.stream(context, seconds):
                    yield from self.behavior(map(self._decoded, messages), context)
            except GeneratorExit:
                _note_absence(call, context)
                raise
            except BaseException as exception:
                status = self._failed(call, context, exception)
            else:
                _note_absence(call, context)
        if status is not None:
            context.abort_with_status(rpc_status.to_status(status))


def _check_deadline(call: Call) -> None:
    """Raise `DeadlineExceeded` if the message came too late to work on it."""
    if call.deadline <= time.monotonic():
        raise DeadlineExceeded


def _note_absence(call: Call, context: grpc.ServicerContext) -> None:
    """Note it if nobody waits for the response any more."""
    if not context.is_active():
        call.code = "DEADLINE_EXCEEDED" if call.deadline <= time.monotonic() else "CANCELLED"


def _credentials(context: grpc.ServicerContext) -> Credentials:
    return Credentials(context.invocation_metadata)


def _unknown(path: str) -> _Behavior:
    def refuse(_: object, __: grpc.ServicerContext) -> Iterator[object]:
        raise MethodUnknown(path)

    return refuse
