"""Callers who go on calling whatever happens to the service, each in a thread of its own."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import grpc
from course.v1 import course_pb2_grpc

from tests.faults.support.callers import CHANNEL_OPTIONS

_T = TypeVar("_T")

# What a caller may answer with another try; a write only if it has a request_id.
RETRIED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED)
_TRY_SECONDS = 2.0
_RECONNECT_OPTIONS = (("grpc.initial_reconnect_backoff_ms", 50), ("grpc.min_reconnect_backoff_ms", 50))


@contextlib.contextmanager
def courses(address: str) -> Iterator[course_pb2_grpc.CourseServiceStub]:
    """A stub with a connection of its own, which retries nothing by itself."""
    with grpc.insecure_channel(address, options=(*CHANNEL_OPTIONS, *_RECONNECT_OPTIONS)) as channel:
        yield course_pb2_grpc.CourseServiceStub(channel)


def retrying(call: Callable[[float], _T], *, seconds: float, tries: int = 1000) -> _T:
    """Make a call with a timeout; try it again, as a good client does, until `seconds` are over."""
    until = time.monotonic() + seconds
    for number in range(1, tries + 1):
        try:
            return call(max(0.001, min(_TRY_SECONDS, until - time.monotonic())))
        except grpc.RpcError as error:
            pause = random.uniform(0.5, 1) * min(0.5, 0.05 * 2 ** (number - 1))
            if number == tries or code_of(error) not in RETRIED or time.monotonic() + pause > until:
                raise
        time.sleep(pause)
    raise AssertionError


def code_of(error: grpc.RpcError) -> grpc.StatusCode:
    """Return the status code of a failed call."""
    assert isinstance(error, grpc.Call)
    return error.code()
