"""The HTTP server: uvicorn in a thread of its own, beside gRPC."""

import logging
import threading

import uvicorn
from fastapi import FastAPI

from course_service.ports import open_port

_GRACE_SECONDS = 10

# uvicorn logs the traceback of an exception that the application has already answered and logged without its text.
logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)


class HttpServer:
    """Serves an application on an address, `HOST:PORT`, from `start` to `stop`. Raises `PortTaken`."""

    def __init__(self, address: str, app: FastAPI) -> None:
        self._socket = open_port(address, "COURSE_HTTP_ADDRESS")
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=_GRACE_SECONDS,
            )
        )
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name="http", daemon=True
        )

    @property
    def port(self) -> int:
        """The port that it listens on."""
        port: int = self._socket.getsockname()[1]
        return port

    def start(self) -> None:
        """Begin to answer; callers that connected before wait until then."""
        self._thread.start()

    def stop(self) -> None:
        """Finish the requests under way and end."""
        self._server.should_exit = True
        self._thread.join()
