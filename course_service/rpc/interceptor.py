"""gRPC's way through the guard: every method's handler is wrapped, whatever is behind it."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, status_pb2
from grpc_status import rpc_status

from course_service.call import STREAM_SECONDS, UNKNOWN_METHOD, Call, end, idle, is_read, most_seconds, working_on
from course_service.errors import DeadlineExceeded, MethodUnknown, RequestMalformed
from course_service.guard.guard import Guard, forget_frames
from course_service.guard.internal import report
from course_service.later import Answer, next_answer
from course_service.rpc.task import Task
from course_service.rpc.threads import CallThreads, Identify
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
        if handler.unary_unary is not None:
            unary = _Unary(self._guard, method, handler.unary_unary, self._watchdog, seconds, decode, encode)
            return grpc.unary_unary_rpc_method_handler(unary)  # type: ignore[arg-type]  # grpcio only hands it on
        if handler.unary_stream is not None:
            updates = _Updates(self._guard, method, handler.unary_stream, self._watchdog, seconds, decode)
            return grpc.unary_stream_rpc_method_handler(updates, None, encode)
        if handler.stream_stream is not None:
            stream = _Stream(self._guard, method, handler.stream_stream, self._watchdog, STREAM_SECONDS, decode)
            return grpc.stream_stream_rpc_method_handler(stream, None, encode)
        raise TypeError(f"{method} takes a stream and returns one message, which the guard does not know")


def identify(guard: Guard) -> Identify:
    """Make what asks who calls before a call's turn comes."""
    return lambda task: guard.identified(task.call, task.credentials)


class Guarded:
    """The calls of one method, and what those of all kinds have in common."""

    receives = False
    """Whether messages are received before a call is worked on."""

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
        self.is_coroutine = iscoroutinefunction(behavior)
        """Whether the behavior is one: then it waits for what it shares with other calls, and for nothing else."""
        self._watchdog = watchdog
        self._decode = decode
        self._encode = encode
        self.experimental_thread_pool: CallThreads | None = getattr(behavior, "experimental_thread_pool", None)
        """What grpcio reads: threads of the method's own, to work in instead of the server's."""

    def call(self, task: Task) -> Call:
        """Make the call of a task."""
        most = task.arrived + self._most_seconds
        deadline = min(time.monotonic() + task.context.time_remaining(), most)
        return Call("grpc", self._method, arrived=task.arrived, deadline=deadline)

    def receive(self, task: Task, then: Callable[[Task], object]) -> None:
        """Receive the messages of a call, and then go on with it."""
        raise NotImplementedError

    def work_on(self, task: Task, threads: CallThreads) -> bool:
        """Work on a call; False if it goes on elsewhere."""
        task.work_as_grpcio()
        return True

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


class _OneMessage(Guarded):
    """A method whose calls have one message."""

    receives = True

    def receive(self, task: Task, then: Callable[[Task], object]) -> None:
        """Receive the messages of a call: one, and of a write a second, if there is one.

        A method that only reads is not asked for a second one: to see that there is none costs a tenth of a GetCourse,
        and there is nothing that a second one could spoil.
        """
        self._watchdog.receives(task)

        def received(task: Task) -> None:
            self._watchdog.has_received(task)
            then(task)

        task.receive(1 if self._is_read else 2, received)

    def _request(self, task: Task) -> Any:  # noqa: ANN401  # any message
        """Decode the message. Raises `RequestMalformed` if there is none, or two, or it cannot be decoded."""
        if len(task.messages) == 1:
            return self._decoded(task.messages[0])
        if task.messages:
            raise RequestMalformed("A unary call has one message; this one has more.")
        if not task.context.is_active():  # the caller has left, or the watchdog has ended the call
            raise grpc.RpcError
        raise RequestMalformed("A unary call has one message; this one has none.")


class _Unary(_OneMessage):
    """A unary method's way through the guard."""

    def work_on(self, task: Task, threads: CallThreads) -> bool:
        """Work on a call; False if it goes on in the thread that has what it waits for."""
        work = self._work(task)
        while answer := next_answer(work):
            if task.is_elsewhere or not answer.at_once():
                if threads.hand_on(task):
                    end(None)  # this thread has begun it, and works on it no longer
                    answer.then(partial(_go_on, task, work, threads))
                    return False
                with idle():
                    answer.wait()
        return True

    async def _work(self, task: Task) -> None:
        call, context = task.call, task.context
        status = None
        response = b""
        with self._guard.observed(call, task.credentials):
            try:
                self._guard.enter(call, task.credentials)
                request = self._request(task)
                if not self._is_read:
                    call.note_request_id(getattr(request, "request_id", ""))
                _check_deadline(call)
                result = self._behavior(request, context)
                response = self._encoded(await result if self.is_coroutine else result, context)
                _note_absence(call, context)
            except BaseException as exception:  # grpcio would leave a SystemExit without a response
                status = self._failed(call, context, exception)
        if status is None:
            task.respond(response)
        else:
            task.fail(status)

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

    def __call__(self, task: Task, context: grpc.ServicerContext, send: Callable[[object], None]) -> None:
        call = task.call
        with self._guard.observed(call, task.credentials):
            try:
                self._guard.enter(call, task.credentials)
                self._behavior(self._request(task), context, send)  # type: ignore[call-arg]  # see above
                return  # noqa: TRY300  # an else would be one more place where a call goes on
            except BaseException as exception:
                status = self._failed(call, context, exception)
        context.abort_with_status(rpc_status.to_status(status))


class _Stream(Guarded):
    """The way through the guard of a method with streams of messages and responses."""

    def __call__(self, task: Task, context: grpc.ServicerContext) -> Iterator[Any]:
        call = task.call
        seconds = call.deadline - time.monotonic()
        status = None
        with self._guard.observed(call, task.credentials):
            try:
                self._guard.enter(call, task.credentials)
                with self._watchdog.stream(context, seconds):
                    yield from self._behavior(map(self._decoded, task), context)
            except GeneratorExit:
                _note_absence(call, context)
                raise
            except BaseException as exception:
                status = self._failed(call, context, exception)
            else:
                _note_absence(call, context)
        if status is not None:
            context.abort_with_status(rpc_status.to_status(status))


def _go_on(task: Task, work: Coroutine[Answer, None, None], threads: CallThreads) -> None:
    """Go on with the work on a call, in the thread that has what it has waited for."""
    answer = None
    try:
        with working_on(task.call):
            answer = next_answer(work)
    except BaseException as exception:  # the thread has others to answer
        report(exception)
    if answer:
        answer.then(partial(_go_on, task, work, threads))
    else:
        threads.end(task)


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
