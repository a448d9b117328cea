"""How many HTTP requests are worked on at once, and how the others wait."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from fastapi import Request
from starlette.requests import ClientDisconnect

from course_service import call
from course_service.errors import DeadlineExceeded, Overloaded
from course_service.guard.steps import in_time
from course_service.guard.turns import Turns

DEFAULT_MAX_WAITING = 1_000


class Places:
    """As many places to work in as there are threads. Callers take turns; each one's requests keep their order."""

    def __init__(self, number: int, *, max_waiting: int = DEFAULT_MAX_WAITING) -> None:
        self.number = number
        self._free = number
        self._max_waiting = max_waiting
        self._turns: Turns[asyncio.Future[None]] = Turns()

    def is_full(self) -> bool:
        """Whether as many requests wait for a place as may."""
        return len(self._turns) >= self._max_waiting

    def check_room(self, caller: str) -> None:
        """Raise `Overloaded` if a caller's request may not even wait: if it is full, and no other has more waiting."""
        if self.is_full() and not self._turns.may_displace(caller):
            raise Overloaded

    @contextlib.asynccontextmanager
    async def place(self, request: Request) -> AsyncIterator[None]:
        """Have a place for the work of the current call.

        Raises `DeadlineExceeded` if none is free in time, `Overloaded` if hardly in time or if another caller needs the
        room to wait, and ClientDisconnect if the caller has left meanwhile.
        """
        caller = call.current().caller
        has_to_wait = not self._free
        if has_to_wait:
            await self._turn(caller)
        else:
            self._free -= 1
            self._turns.begin(caller)
        try:
            if has_to_wait:
                if await request.is_disconnected():
                    raise ClientDisconnect
                in_time(call.current())
            yield
        finally:
            self._leave(caller)

    async def _turn(self, caller: str) -> None:
        """Wait for a place."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        call.current().waits_since = time.monotonic()
        if not self.is_full():
            self._turns.add(caller, turn)
        elif (displaced := self._turns.displace(caller, turn)) is turn:
            raise Overloaded
        else:
            displaced.set_exception(Overloaded())
        try:
            async with asyncio.timeout(call.remaining()):
                await turn
        except BaseException as exception:
            if turn.done() and not turn.cancelled() and not turn.exception():
                self._leave(caller)  # the place came too late
            else:
                self._turns.remove(caller, turn)
            if isinstance(exception, TimeoutError):
                raise DeadlineExceeded from None
            raise

    def _leave(self, caller: str) -> None:
        """Give a place to the next one."""
        self._turns.end(caller)
        while len(self._turns):
            other, turn = self._turns.next()
            if not turn.done():
                turn.set_result(None)
                return
            self._turns.end(other)  # it has just stopped waiting
        self._free += 1
