"""The HTTP server: uvicorn in a thread of its own, beside gRPC."""

from __future__ import annotations

import asyncio
import functools
import logging
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import uvicorn
from starlette.types import ASGIApp

from course_service.guard.internal import report
from course_service.ports import BACKLOG, open_port
from course_service.rest.protocol import KEEP_ALIVE_SECONDS, MAX_HEADER_BYTES, BoundedProtocol, bounded_protocol
from course_service.startup import StartupError

if TYPE_CHECKING:
    from course_service.auth.tls import Tls

_GRACE_SECONDS = 10
HANDSHAKE_SECONDS = 5.0
"""How long a TLS handshake may take."""
_ACCEPTED_AT_ONCE = 64
"""How many connections the event loop takes in one go: with asyncio's own number, which is that of those that may wait,
a flood of connections would keep it from everything else."""

# uvicorn logs the traceback of an exception that the application has already reported without its text.
logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)


class _Server(uvicorn.Server):
    """Says when it serves."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.decided = threading.Event()
        """Set when it serves, or has failed to."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        loop = asyncio.get_running_loop()
        if self.config.ssl:  # uvicorn passes no limit on, and asyncio's own is a minute
            limited = functools.partial(loop.create_server, ssl_handshake_timeout=HANDSHAKE_SECONDS)
            loop.create_server = limited  # type: ignore[method-assign]  # this server's own loop
        await super().startup(sockets)
        for listening in sockets or ():
            listening.listen(BACKLOG)  # which asyncio has made as short as what it takes in one go
        self.decided.set()


class HttpServer:
    """Serves an application on an address, `HOST:PORT`, from `start` to `stop`. Raises `PortTaken`.

    `on_end` is called if it ends by itself.
    """

    def __init__(
        self,
        address: str,
        app: ASGIApp,
        *,
        max_connections: int = BoundedProtocol.max_connections,
        tls: Tls | None = None,
        on_end: Callable[[], object] = lambda: None,
    ) -> None:
        self._socket = open_port(address, "COURSE_HTTP_ADDRESS")
        self._server = _Server(
            uvicorn.Config(
                app,
                http=bounded_protocol(max_connections),  # type: ignore[arg-type]  # a class, as any other is
                ws="none",
                ssl_context_factory=(lambda *_: tls.for_http()) if tls else None,
                backlog=_ACCEPTED_AT_ONCE,
                h11_max_incomplete_event_size=MAX_HEADER_BYTES,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                lifespan="on",  # with "auto", a lifespan that fails would count as none
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=_GRACE_SECONDS,
            )
        )
        self._on_end = on_end
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)
        self.has_ended = False
        """Whether it has ended by itself."""

    @property
    def port(self) -> int:
        """The port that it listens on."""
        port: int = self._socket.getsockname()[1]
        return port

    def start(self) -> None:
        """Serve; callers that connected before wait until then. Raises `StartupError`."""
        self._thread.start()
        self._server.decided.wait()
        if self.has_ended or not self._server.started:
            raise StartupError("the HTTP server cannot start")

    def stop(self) -> None:
        """Finish the requests under way and end."""
        self._server.should_exit = True
        self._thread.join()

    def _run(self) -> None:
        try:
            self._server.run(sockets=[self._socket])
        except BaseException as exception:
            report(exception)
        finally:
            self._socket.close()  # or callers would connect and wait for ever
            if not self._server.should_exit or not self._server.started:
                self.has_ended = True
                self._on_end()
            self._server.decided.set()
