"""How many HTTP requests are worked on at once, and how the others wait."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from fastapi import Request
from starlette.requests import ClientDisconnect

from course_service import call
from course_service.errors import DeadlineExceeded
from course_service.guard.steps import in_time

DEFAULT_MAX_WAITING = 1_000


class Places:
    """As many places to work in as there are threads; requests take them in the order in which they came."""

    def __init__(self, number: int, *, max_waiting: int = DEFAULT_MAX_WAITING) -> None:
        self.number = number
        self._max_waiting = max_waiting
        self._waiting = 0
        self._free = asyncio.Semaphore(number)

    def is_full(self) -> bool:
        """Whether as many requests wait for a place as may."""
        return self._waiting >= self._max_waiting

    @contextlib.asynccontextmanager
    async def place(self, request: Request) -> AsyncIterator[None]:
        """Have a place for the work of the current call.

        Raises `DeadlineExceeded` if none is free in time, `Overloaded` if hardly in time, and ClientDisconnect if the
        caller has left meanwhile.
        """
        has_to_wait = self._free.locked()
        await self._turn()
        try:
            if has_to_wait:
                if await request.is_disconnected():
                    raise ClientDisconnect
                in_time(call.current())
            yield
        finally:
            self._free.release()

    async def _turn(self) -> None:
        self._waiting += 1
        try:
            async with asyncio.timeout(call.remaining()):
                await self._free.acquire()
        except TimeoutError:
            raise DeadlineExceeded from None
        finally:
            self._waiting -= 1
