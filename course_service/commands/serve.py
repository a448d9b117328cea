"""Serve gRPC and HTTP until a signal ends it."""

import gc
import logging
import signal
import threading

from course_service.commands.common import open_database
from course_service.errors import StartupError
from course_service.guard.guard import Guard
from course_service.rest.app import make_app
from course_service.rest.server import HttpServer
from course_service.rpc.health import Health
from course_service.rpc.server import make_server
from course_service.rpc.threads import CallThreads
from course_service.settings import DEVELOPMENT_SECRET, Settings, load_settings
from course_service.telemetry.calls import CallLog
from course_service.telemetry.logs import log_in_background
from course_service.tokens import PageTokens

_log = logging.getLogger("course_service")

_GRACE_SECONDS = 10.0
"""How long calls under way may take to finish once the service has stopped taking new ones."""


def main() -> int:
    """Serve; returns the exit code. Raises `StartupError`."""
    settings = load_settings()
    log = log_in_background(settings.log_level)
    try:
        serve(settings, Guard(observe=CallLog(log, settings.log_level)))
    finally:
        log.close()
    return 0


def serve(settings: Settings, guard: Guard) -> None:
    """Serve until SIGTERM, SIGINT or the end of the HTTP server. Raises `StartupError`."""
    stop = threading.Event()
    at_once = threading.Event()

    def on_signal(number: int, _: object) -> None:
        if number == signal.SIGINT:  # from a terminal: nobody has to be warned first
            at_once.set()
        stop.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)

    # A connection for every thread that may ask: gRPC's, HTTP's, and health's.
    database = open_database(settings, connections=2 * settings.threads + 1)
    tokens = PageTokens(settings.page_token_secret)

    health = Health(database)
    threads = CallThreads(settings.threads)
    grpc_server, grpc_port = make_server(settings.grpc_address, database, tokens, health, guard, threads)
    http_server = None
    if settings.http_address:
        app = make_app(database, tokens, guard, threads=settings.threads)
        http_server = HttpServer(settings.http_address, app, on_end=stop.set)

    if settings.page_token_secret == DEVELOPMENT_SECRET:
        _log.warning("page tokens are signed with a secret that everybody knows; set COURSE_PAGE_TOKEN_SECRET")
    if http_server:
        http_server.start()
        _log.info("HTTP on port %d (%s), documented at /docs", http_server.port, settings.http_address)
    grpc_server.start()
    _log.info("gRPC on port %d (%s)", grpc_port, settings.grpc_address)
    health.start()
    gc.freeze()  # what has been loaded stays loaded: the garbage collector need not visit it again

    stop.wait()
    health.stop()
    http_failed = http_server is not None and http_server.has_ended
    _log.info("stopping")
    if not http_failed:
        at_once.wait(settings.drain_seconds)
    grpc_stopped = grpc_server.stop(_GRACE_SECONDS)
    if http_server:
        http_server.stop()
    grpc_stopped.wait()
    threads.close(_GRACE_SECONDS)
    database.close()
    _log.info("stopped")
    if http_failed:
        raise StartupError("the HTTP server has ended by itself")
