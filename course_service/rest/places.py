"""How many HTTP requests are worked on at once, and how the others wait."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from fastapi import Request
from starlette.requests import ClientDisconnect

from course_service import call
from course_service.errors import DeadlineExceeded
from course_service.guard.room import Room


class Places:
    """As many places to work in as there are threads; requests take them in the order in which they came."""

    def __init__(self, number: int, room: Room | None = None) -> None:
        self.number = number
        self.room = room or Room(max_wait_seconds=float("inf"))
        self._free = asyncio.Semaphore(number)

    @contextlib.asynccontextmanager
    async def place(self, request: Request) -> AsyncIterator[None]:
        """Have a place for the work of the current call.

        Raises `DeadlineExceeded` if none is free in time, and ClientDisconnect if the caller has left meanwhile.
        """
        if self._free.locked():
            self.room.begin_to_wait()
            try:
                async with asyncio.timeout(call.remaining()):
                    await self._free.acquire()
            except TimeoutError:
                raise DeadlineExceeded from None
            finally:
                self.room.end_to_wait()
            if await request.is_disconnected():
                self._free.release()
                raise ClientDisconnect
        else:
            await self._free.acquire()
        try:
            yield
        finally:
            self._free.release()
