"""Server reflection, by which grpcurl and buf curl learn the contract: grpc.reflection.v1 and v1alpha.

grpcio-reflection has the older version only. The messages of both are the same but for the package.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, text_format
from grpc_reflection.v1alpha import reflection, reflection_pb2

_OLDER = reflection.SERVICE_NAME
_NEWER = "grpc.reflection.v1.ServerReflection"
_STREAMS = 2
"""How many reflection streams are served at once. Each keeps a thread for as long as its caller likes."""


def add_reflection(server: grpc.Server, services: Sequence[str]) -> None:
    """Serve the descriptors of `services`, and of reflection itself."""
    _add_newer_descriptor()
    servicer = _Servicer([*services, _NEWER, _OLDER])

    def info(
        requests: Iterator[reflection_pb2.ServerReflectionRequest], context: grpc.ServicerContext
    ) -> Iterator[reflection_pb2.ServerReflectionResponse]:
        return servicer.ServerReflectionInfo(requests, context)  # type: ignore[no-any-return]  # untyped there

    # These must not be the threads of everybody.
    info.experimental_thread_pool = ThreadPoolExecutor(_STREAMS, thread_name_prefix="reflection")  # type: ignore[attr-defined]  # read by grpcio
    method = grpc.stream_stream_rpc_method_handler(
        info,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    for service in (_NEWER, _OLDER):
        handler = grpc.method_handlers_generic_handler(service, {"ServerReflectionInfo": method})
        server.add_generic_rpc_handlers((handler,))


class _Servicer(reflection.ReflectionServicer):
    """Finds methods, fields and enum values too: a file contains them with the service, message or enum they are in."""

    def _file_containing_symbol(self, fully_qualified_name: str) -> reflection_pb2.ServerReflectionResponse:
        response: reflection_pb2.ServerReflectionResponse = super()._file_containing_symbol(fully_qualified_name)  # type: ignore[misc]  # not in its stubs
        if not response.HasField("error_response"):
            return response
        parent, _, member = fully_qualified_name.rpartition(".")
        found: reflection_pb2.ServerReflectionResponse = super()._file_containing_symbol(parent)  # type: ignore[misc]  # not in its stubs
        return found if _has(parent, member) else response


def _has(parent: str, member: str) -> bool:
    pool = descriptor_pool.Default()
    for find, members in (
        (pool.FindServiceByName, "methods_by_name"),
        (pool.FindMessageTypeByName, "fields_by_name"),
        (pool.FindEnumTypeByName, "values_by_name"),
    ):
        try:
            return member in getattr(find(parent), members)
        except KeyError:
            continue
    return False


def _add_newer_descriptor() -> None:
    """Make the newer version's descriptor of the older one's."""
    older = descriptor_pb2.FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(older)
    text = (
        text_format.MessageToString(older).replace("reflection.v1alpha", "reflection.v1").replace("/v1alpha/", "/v1/")
    )
    newer = text_format.Parse(text, descriptor_pb2.FileDescriptorProto())
    descriptor_pool.Default().AddSerializedFile(newer.SerializeToString())
