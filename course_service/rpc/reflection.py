"""Server reflection, by which grpcurl and buf curl learn the contract: grpc.reflection.v1 and v1alpha.

grpcio-reflection has the older version only. The messages of both are the same but for the package.
"""

from collections.abc import Iterator, Sequence

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, text_format
from google.protobuf.descriptor import FileDescriptor
from grpc_reflection.v1alpha import reflection, reflection_pb2

from course_service.rpc.threads import CallThreads

_DESCRIPTORS = descriptor_pool.Default()
_OLDER = reflection.SERVICE_NAME
_NEWER = "grpc.reflection.v1.ServerReflection"
_STREAMS = 2
"""How many reflection streams are served at once. Each keeps a thread for as long as its caller likes."""


def add_reflection(server: grpc.Server, services: Sequence[str]) -> None:
    """Serve the descriptors of `services`, and of reflection itself."""
    _add_newer_descriptor()
    servicer = reflection.ReflectionServicer([*services, _NEWER, _OLDER], pool=_Pool())

    def info(
        requests: Iterator[reflection_pb2.ServerReflectionRequest], context: grpc.ServicerContext
    ) -> Iterator[reflection_pb2.ServerReflectionResponse]:
        return servicer.ServerReflectionInfo(requests, context)  # type: ignore[no-any-return]  # untyped there

    # These must not be the threads of everybody.
    info.experimental_thread_pool = CallThreads(_STREAMS, name="reflection")  # type: ignore[attr-defined]  # read by grpcio
    method = grpc.stream_stream_rpc_method_handler(
        info,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    for service in (_NEWER, _OLDER):
        handler = grpc.method_handlers_generic_handler(service, {"ServerReflectionInfo": method})
        server.add_generic_rpc_handlers((handler,))


class _Pool:
    """All descriptors. Finds the file of a method, field or enum value too, which the pool itself does not."""

    def FindFileContainingSymbol(self, name: str) -> FileDescriptor:  # noqa: N802  # as the descriptor pool has it
        """Return the file that a symbol is in; raises KeyError."""
        try:
            return _DESCRIPTORS.FindFileContainingSymbol(name)
        except KeyError:
            parent, _, member = name.rpartition(".")
            if not _has(parent, member):
                raise
            return _DESCRIPTORS.FindFileContainingSymbol(parent)

    def __getattr__(self, name: str) -> object:
        return getattr(_DESCRIPTORS, name)


def _has(parent: str, member: str) -> bool:
    for find, members in (
        (_DESCRIPTORS.FindServiceByName, "methods_by_name"),
        (_DESCRIPTORS.FindMessageTypeByName, "fields_by_name"),
        (_DESCRIPTORS.FindEnumTypeByName, "values_by_name"),
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
    _DESCRIPTORS.AddSerializedFile(newer.SerializeToString())
