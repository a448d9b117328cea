"""Work that may have to wait for an answer, as a coroutine: whoever calls it decides how it waits."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar, cast

_T = TypeVar("_T")


class Answer(Protocol):
    """What work waits for."""

    def at_once(self) -> bool:
        """Get it in this thread, if nothing is gained by waiting for it together with others; else return False."""

    def wait(self) -> None:
        """Wait in this thread until it is there."""

    def then(self, go_on: Callable[[], object]) -> None:
        """Have `go_on` called once it is there, by the thread that has it. It must raise nothing, and not wait."""


def next_answer(work: Coroutine[Answer, None, object]) -> Answer | None:
    """Do work until it has to wait; returns what it waits for, or None if it has ended. Raises what the work raises."""
    answer, _ = _step(work)
    return answer


def finished(work: Coroutine[Answer, None, _T]) -> _T:
    """Do work to its end, and wait in this thread for what it waits for. Raises what the work raises."""
    while True:
        answer, value = _step(work)
        if answer is None:
            return cast(_T, value)
        answer.wait()


async def finished_in_loop(work: Coroutine[Answer, None, _T]) -> _T:
    """Do work to its end, and have the event loop go on with other work meanwhile. Raises what the work raises."""
    loop = asyncio.get_running_loop()
    try:
        while True:
            answer, value = _step(work)
            if answer is None:
                return cast(_T, value)
            await _there(answer, loop)
    finally:
        work.close()  # if the event loop has given it up


def _step(work: Coroutine[Answer, None, _T]) -> tuple[Answer | None, Any]:
    """Do work until it has to wait, or to its end: returns what it waits for, or what it returns."""
    try:
        return work.send(None), None
    except StopIteration as end:
        return None, end.value


async def _there(answer: Answer, loop: asyncio.AbstractEventLoop) -> None:
    is_there = loop.create_future()

    def tell() -> None:
        if not is_there.done():  # it may have been given up
            is_there.set_result(None)

    def go_on() -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(tell)

    answer.then(go_on)
    await is_there
