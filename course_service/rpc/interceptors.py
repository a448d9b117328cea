"""What happens to every call around its handler."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError
from grpc_status import rpc_status

from course_service.deadline import within
from course_service.errors import CourseError, RequestMalformed
from course_service.internal import report
from course_service.status import to_status

if TYPE_CHECKING:  # the class takes parameters in its type stubs only
    _Handler: TypeAlias = grpc.RpcMethodHandler[Any, Any]


class ErrorInterceptor(grpc.ServerInterceptor):
    """Decodes each request and answers each error with its status; nothing else ends a call.

    grpcio itself would answer a request that it cannot decode with INTERNAL, and an exception with its text.
    """

    def __init__(self) -> None:
        self._guarded: dict[str, _Handler] = {}

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], _Handler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler | None:
        """Guard a unary method; streams (health's Watch, reflection) pass as they are."""
        method = handler_call_details.method
        if method in self._guarded:
            return self._guarded[method]
        handler = continuation(handler_call_details)
        if handler is None or handler.unary_unary is None or handler.request_deserializer is None:
            return handler
        guarded: _Handler = grpc.unary_unary_rpc_method_handler(
            _guard(handler.request_deserializer, handler.unary_unary),
            request_deserializer=None,
            response_serializer=handler.response_serializer,
        )
        self._guarded[method] = guarded
        return guarded


def _guard(decode: Callable[[bytes], Any], handle: Callable[[Any, grpc.ServicerContext], Any]) -> Callable[..., Any]:
    def call(message: bytes, context: grpc.ServicerContext) -> object:
        try:
            with within(context.time_remaining()):
                return handle(decode(message), context)
        except DecodeError:
            failure: CourseError = RequestMalformed("The request is not a message of the method's type in valid UTF-8.")
        except CourseError as error:
            failure = error
        except BaseException as exception:  # grpcio would leave a SystemExit unanswered
            failure = report(exception)
        return context.abort_with_status(rpc_status.to_status(to_status(failure)))

    return call
