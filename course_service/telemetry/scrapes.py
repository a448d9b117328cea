"""Where the metrics are read: a small HTTP server of its own."""

import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from course_service.guard.internal import report
from course_service.ports import open_port

_MAX_READERS = 16
"""How many read at once; who comes on top is disconnected."""
_READ_SECONDS = 5.0
"""How long a reader may take for each part of its request, and of its response."""

_STOP_SECONDS = 0.1
"""How long it takes at most to notice that it has to stop."""


class MetricsServer(ThreadingHTTPServer):
    """Has a registry at `/metrics` of `HOST:PORT`. It listens there and nowhere else. Raises `PortTaken`."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, address: str, registry: CollectorRegistry) -> None:
        listener = open_port(address, "COURSE_METRICS_ADDRESS")
        super().__init__(listener.getsockname()[:2], _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.registry = registry
        self.address = address
        """The address that it was made with."""
        self.port: int = listener.getsockname()[1]
        """The port that it listens on."""
        self._is_started = False
        self._room = threading.Semaphore(_MAX_READERS)

    def start(self) -> None:
        """Serve, from a thread of its own."""
        self._is_started = True
        threading.Thread(target=self.serve_forever, args=(_STOP_SECONDS,), name="metrics", daemon=True).start()

    def stop(self) -> None:
        """End."""
        if self._is_started:
            self.shutdown()
        self.server_close()

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401  # as there
        """Have a request worked on by a thread, if there is room."""
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # the machine has no more threads
            self._room.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:  # noqa: ANN401  # as there
        """Work on a request."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401  # as there
        """Leave a reader that has left; its texts are none of the log's."""


class _Handler(BaseHTTPRequestHandler):
    """One request."""

    server: MetricsServer
    timeout = _READ_SECONDS

    def do_GET(self) -> None:
        """Respond with the metrics."""
        if self.path.partition("?")[0] != "/metrics":
            self._respond(HTTPStatus.NOT_FOUND, "text/plain", b"The metrics are at /metrics.\n")
            return
        try:
            text = generate_latest(self.server.registry)
        except Exception as exception:  # or the reader would get no response
            error_id = report(exception).metadata["errorId"]
            self._respond(HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain", f"internal error {error_id}\n".encode())
            return
        self._respond(HTTPStatus.OK, CONTENT_TYPE_LATEST, text)

    def _respond(self, code: HTTPStatus, content_type: str, body: bytes) -> None:
        self.send_response_only(code)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""
