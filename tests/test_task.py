"""What the service uses of grpcio's internals, to receive messages before a call takes a thread and to respond from any
thread, is still so."""

import contextlib
import inspect
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from typing import Any

import grpc
import pytest
from grpc import _server

from course_service.auth.errors import CredentialsMissing
from course_service.guard.guard import Guard
from course_service.rpc.interceptor import GuardInterceptor, identify
from course_service.rpc.task import Task
from course_service.rpc.threads import CallThreads
from tests.support.waiting import until

CALL = ["rpc_event", "state", "behavior", "argument_thunk", "request_deserializer", "response_serializer"]


def test_grpcio_has_the_functions_that_it_had() -> None:
    for function in (_server._unary_response_in_pool, _server._stream_response_in_pool):
        assert list(inspect.signature(function).parameters) == CALL
    assert list(inspect.signature(_server._Context).parameters) == ["rpc_event", "state", "request_deserializer"]
    assert list(inspect.signature(_server._receive_message).parameters) == ["state", "call", "request_deserializer"]
    assert list(inspect.signature(_server._status).parameters) == ["rpc_event", "state", "serialized_response"]
    assert list(inspect.signature(_server._is_rpc_state_active).parameters) == ["state"]
    make: Callable[[], object] = _server._RPCState
    assert {"condition", "due", "request"} <= vars(make()).keys()


class Seen(CallThreads):
    """Threads that keep what grpcio has them do, and in which of its threads it says so."""

    def __init__(self) -> None:
        super().__init__(2)
        self.submitted: list[tuple[Any, ...]] = []
        self.messages: list[Any] = []
        self.threads: set[int] = set()

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.submitted.append((*args, kwargs))
        self.threads.add(threading.get_ident())
        return super().submit(fn, *args, **kwargs)

    def _put(self, task: Task) -> None:
        self.messages.append(task.messages)
        self.threads.add(threading.get_ident())
        super()._put(task)


@pytest.fixture
def seen() -> Iterator[Seen]:
    threads = Seen()
    yield threads
    threads.close(5)


@contextlib.contextmanager
def served(
    threads: CallThreads, guard: Guard, behavior: Callable[[Any, grpc.ServicerContext], Any] | None = None
) -> Iterator[grpc.Channel]:
    """A server with one method, which doubles a message, or does something else."""
    server = grpc.server(threads, interceptors=[GuardInterceptor(guard)])

    def twice(message: bytes, _: grpc.ServicerContext) -> bytes:
        return message * 2

    methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "Double": grpc.unary_unary_rpc_method_handler(behavior or twice)
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Service", methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    server.stop(None).wait()


@pytest.fixture
def channel(seen: Seen) -> Iterator[grpc.Channel]:
    with served(seen, Guard()) as channel:
        yield channel


@pytest.mark.parametrize("message", [b"", b"a", b"a" * 100_000])
def test_a_call_takes_a_thread_only_when_its_message_is_there(
    channel: grpc.Channel, seen: Seen, message: bytes
) -> None:
    double: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/test.Service/Double")
    assert double(message, timeout=20) == message * 2
    ((_, event, state, *_, named),) = seen.submitted
    assert event.call_details.method == b"/test.Service/Double"
    assert isinstance(state, _server._RPCState)
    assert named == {}
    assert seen.messages == [[message]]
    assert len(seen.threads) == 1, "a message arrives in the same thread as its call, so nothing has to be locked"
    assert seen.threads.isdisjoint({worker.ident for worker in seen._workers})


def test_a_call_that_ends_before_its_message_comes_has_none(channel: grpc.Channel, seen: Seen) -> None:
    double: grpc.StreamUnaryMultiCallable[bytes, bytes] = channel.stream_unary("/test.Service/Double")
    sent = threading.Event()

    def nothing() -> Iterator[bytes]:
        sent.wait(20)
        yield from ()

    with pytest.raises(grpc.RpcError):
        double(nothing(), timeout=0.3)
    sent.set()
    with pytest.raises(grpc.RpcError):
        double(iter(()), timeout=20)
    assert seen.messages == [[], []]


class Shared:
    """Something to await that no thread of the server waits for."""

    def __await__(self) -> Generator["Shared", None, None]:
        yield self

    def at_once(self) -> bool:
        return False

    def wait(self) -> None:
        raise AssertionError("a thread of the server, or of what is shared, waits")

    def then(self, go_on: Callable[[], object]) -> None:
        threading.Thread(target=go_on, daemon=True).start()


def test_a_call_may_wait_again_and_again_and_keeps_no_thread_waiting() -> None:
    async def patiently(message: bytes, _: grpc.ServicerContext) -> bytes:
        for _time in range(3):
            await Shared()
        return message * 2

    threads = CallThreads(1, max_elsewhere=1)
    with served(threads, Guard(), patiently) as channel:
        double: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/test.Service/Double")
        for _ in range(3):
            assert double(b"a", timeout=20) == b"aa"
            until(lambda: not threads._elsewhere)  # a call ends after its response
    threads.close(5)
    assert threads._free == 1
    assert threads._elsewhere == 0


@pytest.mark.parametrize(
    ("error", "code"),
    [(CredentialsMissing(), grpc.StatusCode.UNAUTHENTICATED), (RuntimeError("a fault"), grpc.StatusCode.INTERNAL)],
)
def test_who_is_refused_before_its_turn_stays_refused(error: Exception, code: grpc.StatusCode) -> None:
    """Its message has not been received, so it would be told that there is none; and the next call is served."""
    answers: Iterator[Exception | str] = iter([error, "ann", "ann"])

    def identify_once(*_: object) -> str:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    guard = Guard(identify=identify_once)
    threads = CallThreads(2, identify=identify(guard))
    with served(threads, guard) as channel:
        double: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/test.Service/Double")
        with pytest.raises(grpc.RpcError) as raised:
            double(b"a", timeout=20)
        failure: Any = raised.value
        assert failure.code() is code
        assert double(b"a", timeout=20) == b"aa"
    threads.close(5)
