"""gRPC's way through the guard: every method's handler is wrapped, whatever is behind it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, status_pb2
from grpc_status import rpc_status

from course_service.call import UNKNOWN_METHOD, Call, deadline_after
from course_service.errors import MethodUnknown, RequestMalformed
from course_service.guard.guard import Guard, forget_frames
from course_service.guard.steps import Credentials
from course_service.rpc.watchdog import Watchdog

if TYPE_CHECKING:  # these classes take parameters in their type stubs only
    _Handler: TypeAlias = grpc.RpcMethodHandler[Any, Any]
    _Behavior: TypeAlias = Callable[[Any, grpc.ServicerContext], Any]

_OWN_SERVICE = "course.v1.CourseService/"


class GuardInterceptor(grpc.ServerInterceptor):
    """Takes every call through the guard; nothing else ends a call with an error.

    grpcio itself would respond with the text of an exception, and to an undecodable message with INTERNAL.
    """

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
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
            return grpc.stream_stream_rpc_method_handler(_Stream(self._guard, UNKNOWN_METHOD, _unknown(path)))
        method = path.removeprefix("/").removeprefix(_OWN_SERVICE)
        if handler.unary_unary is not None:
            unary = _Unary(self._guard, method, handler.unary_unary, handler.request_deserializer, self._watchdog)
            _keep_threads(unary, handler.unary_unary)
            # As a stream of messages, so that the guard decides when to read, and how long to wait.
            return grpc.stream_unary_rpc_method_handler(
                unary,
                request_deserializer=None,
                response_serializer=handler.response_serializer,
            )
        return self._guarded_stream(handler, method)

    def _guarded_stream(self, handler: _Handler, method: str) -> _Handler:
        for kind in ("unary_stream", "stream_stream"):
            behavior = getattr(handler, kind)
            if behavior is None:
                continue
            if getattr(behavior, "experimental_non_blocking", False):
                return handler  # health's Watch: it works by callbacks and holds no thread
            stream = _Stream(self._guard, method, behavior)
            _keep_threads(stream, behavior)
            make = getattr(grpc, f"{kind}_rpc_method_handler")
            guarded: _Handler = make(
                stream,
                request_deserializer=handler.request_deserializer,
                response_serializer=handler.response_serializer,
            )
            return guarded
        raise TypeError(f"{method} takes a stream and returns one message, which the guard does not know")


def _keep_threads(wrapper: _Guarded, behavior: _Behavior) -> None:
    """Have a method that has threads of its own keep them: the others' threads must not wait for it."""
    wrapper.experimental_thread_pool = getattr(behavior, "experimental_thread_pool", None)


class _Guarded:
    """What unary calls and streams have in common."""

    __slots__ = ("_behavior", "_guard", "_method", "experimental_thread_pool")
    experimental_thread_pool: Any

    def __init__(self, guard: Guard, method: str, behavior: _Behavior) -> None:
        self._guard = guard
        self._method = method
        self._behavior = behavior

    def _call(self, context: grpc.ServicerContext) -> Call:
        return Call(face="grpc", method=self._method, deadline=deadline_after(context.time_remaining(), self._method))


class _Unary(_Guarded):
    """A unary call on its way through the guard."""

    __slots__ = ("_arrived", "_decode", "_watchdog")

    def __init__(
        self,
        guard: Guard,
        method: str,
        behavior: _Behavior,
        decode: Callable[[bytes], Any] | None,
        watchdog: Watchdog,
    ) -> None:
        super().__init__(guard, method, behavior)
        self._decode = decode
        self._watchdog = watchdog
        self._arrived = time.monotonic()

    def __call__(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> object:
        call = self._call(context)
        with self._guard.observed(call):
            try:
                with self._guard.entered(call, _credentials(context)):
                    with self._watchdog.watch(context, self._arrived):
                        message = _first(messages)
                    request = _decoded(self._decode, message)
                    call.note_request_id(getattr(request, "request_id", ""))
                    response = self._behavior(request, context)
                _note_absence(call, context)
                return response  # noqa: TRY300  # an else would be one more place where a call goes on
            except BaseException as exception:  # grpcio would leave a SystemExit without a response
                if context.is_active() or not isinstance(exception, grpc.RpcError):
                    status = self._guard.failed(call, exception)
                else:
                    status = _left(call, context, exception)
        return context.abort_with_status(rpc_status.to_status(status))


class _Stream(_Guarded):
    """A call with a stream of responses on its way through the guard."""

    __slots__ = ()

    def __call__(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:  # noqa: ANN401  # a message or an iterator
        call = self._call(context)
        status = None
        with self._guard.observed(call):
            try:
                with self._guard.entered(call, _credentials(context)):
                    yield from self._behavior(request, context)
            except GeneratorExit:
                _note_absence(call, context)
                raise
            except BaseException as exception:
                if context.is_active() or not isinstance(exception, grpc.RpcError):
                    status = self._guard.failed(call, exception)
                else:
                    status = _left(call, context, exception)
            else:
                _note_absence(call, context)
        if status is not None:
            context.abort_with_status(rpc_status.to_status(status))


def _left(call: Call, context: grpc.ServicerContext, error: grpc.RpcError) -> status_pb2.Status:
    """Make the status, which nobody receives, of a call whose caller has left or been cut off.

    grpcio ends the messages of such a call with an error, and keeps it: with its frames it would keep the call open.
    """
    _note_absence(call, context)
    forget_frames(error)
    return status_pb2.Status(code=code_pb2.CANCELLED)


def _note_absence(call: Call, context: grpc.ServicerContext) -> None:
    """Note it if nobody waits for the response any more."""
    if not context.is_active():
        call.code = "DEADLINE_EXCEEDED" if call.deadline <= time.monotonic() else "CANCELLED"


def _credentials(context: grpc.ServicerContext) -> Credentials:
    return Credentials(context.invocation_metadata)


def _first(messages: Iterator[bytes]) -> bytes:
    """Return the message of a unary call; raises `RequestMalformed` if it has none.

    More are not read: to see that there are none costs an eighth of a GetCourse.
    """
    message = next(messages, None)
    if message is None:
        raise RequestMalformed("A unary call has one message; this one has none.")
    return message


def _decoded(decode: Callable[[bytes], Any] | None, message: bytes) -> object:
    try:
        return decode(message) if decode else message
    except DecodeError:
        raise RequestMalformed("The request is not a message of the method's type in valid UTF-8.") from None


def _unknown(path: str) -> _Behavior:
    def refuse(_: object, __: grpc.ServicerContext) -> Iterator[object]:
        raise MethodUnknown(path)

    return refuse
