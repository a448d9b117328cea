"""gRPC's way through the guard: every method's handler is wrapped, whatever is behind it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, status_pb2
from grpc._server import _Context  # what grpcio itself makes for each call, once it has a thread
from grpc_status import rpc_status

from course_service.call import STREAM_SECONDS, UNKNOWN_METHOD, Call, is_read, most_seconds
from course_service.errors import DeadlineExceeded, MethodUnknown, RequestMalformed
from course_service.guard.guard import Guard, forget_frames
from course_service.guard.steps import Credentials
from course_service.rpc.threads import CallerOf, CallThreads, Worker
from course_service.rpc.watchdog import LARGE_BYTES, Watchdog

if TYPE_CHECKING:  # these classes take parameters in their type stubs only
    _Handler: TypeAlias = grpc.RpcMethodHandler[Any, Any]
    _Behavior: TypeAlias = Callable[[Any, grpc.ServicerContext], Any]

_OWN_SERVICE = "course.v1.CourseService/"

_MAX_KEPT = 100
"""How many handlers are kept. The service has fewer methods."""


class GuardInterceptor(grpc.ServerInterceptor):
    """Takes every call through the guard; nothing else ends a call with an error.

    grpcio itself would respond with the text of an exception, and to an undecodable message with INTERNAL.

    Every call has to be worked on in `CallThreads`.
    """

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._watchdog = Watchdog()
        self._guarded: dict[str, tuple[_Handler, _Handler]] = {}
        """By path: a handler, and what is in its place."""

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], _Handler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler:
        """Put a guarded handler in the place of a call's handler."""
        handler = continuation(handler_call_details)
        path = handler_call_details.method
        if handler is None:
            unknown = _Stream(self._guard, UNKNOWN_METHOD, _unknown(path), self._watchdog, STREAM_SECONDS)
            return grpc.stream_stream_rpc_method_handler(unknown)
        last, guarded = self._guarded.get(path, (None, None))
        if guarded is None or last is not handler:  # what is behind may give each call another one, for any path
            guarded = self._in_place_of(handler, path)
            if len(self._guarded) >= _MAX_KEPT:
                self._guarded.clear()
            self._guarded[path] = handler, guarded
        return guarded

    def _in_place_of(self, handler: _Handler, path: str) -> _Handler:
        method = _method(path)
        seconds = most_seconds(method)
        decode, encode = handler.request_deserializer, handler.response_serializer
        # A single message comes as a stream too, so that the guard decides when to read, and how long to wait.
        if handler.unary_unary is not None:
            unary = _Unary(self._guard, method, handler.unary_unary, self._watchdog, seconds, decode, encode)
            return grpc.stream_unary_rpc_method_handler(unary)
        if handler.unary_stream is not None:
            updates = _Updates(self._guard, method, handler.unary_stream, self._watchdog, seconds, decode)
            return grpc.stream_stream_rpc_method_handler(updates, None, encode)
        if handler.stream_stream is not None:
            stream = _Stream(self._guard, method, handler.stream_stream, self._watchdog, STREAM_SECONDS, decode)
            return grpc.stream_stream_rpc_method_handler(stream, None, encode)
        raise TypeError(f"{method} takes a stream and returns one message, which the guard does not know")


class _Credentials(Credentials):
    __slots__ = ("_context",)

    def __init__(self, context: grpc.ServicerContext) -> None:
        super().__init__()
        self._context = context

    def pairs(self) -> Iterable[tuple[str, str | bytes]]:
        return self._context.invocation_metadata()

    def certificate(self) -> bytes | None:
        shown: Sequence[Any] = self._context.auth_context().get("x509_pem_cert", ())  # bytes, whatever the types say
        return shown[0] if shown else None


def caller_of(guard: Guard) -> CallerOf:
    """Make what says who calls, by what grpcio has its threads do."""

    def shown(arguments: tuple[Any, ...]) -> tuple[str, Credentials]:
        _, event, state, *_ = arguments  # grpcio's own; a test holds it to them
        credentials = _Credentials(_Context(event, state, None))
        call = Call("grpc", _method(event.call_details.method.decode()))
        return guard.identified(call, credentials), credentials

    return shown


class _Guarded:
    """The calls of one method, and what those of all kinds have in common."""

    def __init__(
        self,
        guard: Guard,
        method: str,
        behavior: _Behavior,
        watchdog: Watchdog,
        seconds: float,
        decode: Callable[[bytes], Any] | None = None,
        encode: Callable[[Any], bytes] | None = None,
    ) -> None:
        self._guard = guard
        self._method = method
        self._most_seconds = seconds
        self._is_read = is_read(method)
        self._behavior = behavior
        self._watchdog = watchdog
        self._decode = decode
        self._encode = encode
        self.experimental_thread_pool: CallThreads | None = getattr(behavior, "experimental_thread_pool", None)
        """What grpcio reads: threads of the method's own, to work in instead of the server's."""

    def _call(self, context: grpc.ServicerContext, worker: Worker) -> Call:
        deadline = min(time.monotonic() + context.time_remaining(), worker.arrived + self._most_seconds)
        return Call(
            "grpc",
            self._method,
            arrived=worker.arrived,
            deadline=deadline,
            is_surplus=worker.is_surplus,
            leave_place=worker.leave_place,
        )

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
    """A method whose calls have one message."""

    def _read(self, messages: Iterator[bytes], context: grpc.ServicerContext, worker: Worker) -> Any:  # noqa: ANN401  # any message
        """Read the message. Raises `RequestMalformed` if there is none, or two, or it cannot be decoded.

        A method that only reads is not asked for a second one: to see that there is none costs a tenth of a GetCourse,
        and there is nothing that a second one could spoil.
        """
        message = self._watchdog.next_message(messages, context, worker)
        if message is None:
            if not context.is_active():  # the watchdog has ended it
                raise grpc.RpcError
            raise RequestMalformed("A unary call has one message; this one has none.")
        if not self._is_read and self._watchdog.next_message(messages, context, worker) is not None:
            raise RequestMalformed("A unary call has one message; this one has more.")
        return self._decoded(message)


class _Unary(_OneMessage):
    """A unary method's way through the guard."""

    def __call__(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> object:
        worker = Worker.current()
        call, credentials = self._call(context, worker), worker.credentials or _Credentials(context)
        with self._guard.observed(call, credentials):
            try:
                with self._guard.entered(call, credentials):
                    request = self._read(messages, context, worker)
                    if not self._is_read:
                        call.note_request_id(getattr(request, "request_id", ""))
                    _check_deadline(call)
                    response = self._encoded(self._behavior(request, context), context)
                _note_absence(call, context)
                return response  # noqa: TRY300  # an else would be one more place where a call goes on
            except BaseException as exception:  # grpcio would leave a SystemExit without a response
                status = self._failed(call, context, exception)
        return context.abort_with_status(rpc_status.to_status(status))

    def _encoded(self, response: Any, context: grpc.ServicerContext) -> bytes:  # noqa: ANN401  # any message
        """Encode the response, and have the watchdog watch over it if it is large."""
        data = self._encode(response) if self._encode else bytes(response)
        if len(data) >= LARGE_BYTES:
            self._watchdog.response(context, len(data))
        return data


class _Updates(_OneMessage):
    """A method whose calls have one message and a stream of responses, which come by a callback and hold no thread.

    What goes through the guard is its beginning.
    """

    experimental_non_blocking = True

    def __call__(
        self, messages: Iterator[bytes], context: grpc.ServicerContext, send: Callable[[object], None]
    ) -> None:
        worker = Worker.current()
        call, credentials = self._call(context, worker), worker.credentials or _Credentials(context)
        with self._guard.observed(call, credentials):
            try:
                with self._guard.entered(call, credentials):
                    self._behavior(self._read(messages, context, worker), context, send)  # type: ignore[call-arg]  # see above
                return  # noqa: TRY300  # as above
            except BaseException as exception:
                status = self._failed(call, context, exception)
        context.abort_with_status(rpc_status.to_status(status))


class _Stream(_Guarded):
    """The way through the guard of a method with streams of messages and responses."""

    def __call__(self, messages: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        worker = Worker.current()
        call, credentials = self._call(context, worker), worker.credentials or _Credentials(context)
        seconds = call.deadline - time.monotonic()
        status = None
        with self._guard.observed(call, credentials):
            try:
                with self._guard.entered(call, credentials), self._watchdog.stream(context, seconds):
                    yield from self._behavior(map(self._decoded, messages), context)
            except GeneratorExit:
                _note_absence(call, context)
                raise
            except BaseException as exception:
                status = self._failed(call, context, exception)
            else:
                _note_absence(call, context)
        if status is not None:
            context.abort_with_status(rpc_status.to_status(status))


def _method(path: str) -> str:
    return path.removeprefix("/").removeprefix(_OWN_SERVICE)


def _check_deadline(call: Call) -> None:
    """Raise `DeadlineExceeded` if the message came too late to work on it."""
    if call.deadline <= time.monotonic():
        raise DeadlineExceeded


def _note_absence(call: Call, context: grpc.ServicerContext) -> None:
    """Note it if nobody waits for the response any more."""
    if not context.is_active():
        call.code = "DEADLINE_EXCEEDED" if call.deadline <= time.monotonic() else "CANCELLED"


def _unknown(path: str) -> _Behavior:
    def refuse(_: object, __: grpc.ServicerContext) -> Iterator[object]:
        raise MethodUnknown(path)

    return refuse
