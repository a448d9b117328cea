"""Serve until SIGTERM or Ctrl-C (serve, the default); tell by the exit code whether a service is serving (health);
remove what is past its time (purge)."""

import argparse
import logging
import signal
import sys
import threading
import time

from course_service.errors import DatabaseUnavailable, StartupError
from course_service.paging import PageTokens
from course_service.rest.app import make_app
from course_service.rest.server import HttpServer
from course_service.rpc.health import Health, is_serving
from course_service.rpc.server import make_server
from course_service.services import purge
from course_service.settings import DEVELOPMENT_SECRET, Settings, load_settings
from course_service.store.database import Database

_log = logging.getLogger("course_service")

_GRACE_SECONDS = 10.0
"""How long calls under way may take to finish once the service has stopped taking new ones."""


def serve(settings: Settings) -> None:
    """Serve gRPC and HTTP until a signal says stop. Raises `StartupError`."""
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
    grpc_server, grpc_port = make_server(settings.grpc_address, database, tokens, health, threads=settings.threads)
    http_server = None
    if settings.http_address:
        http_server = HttpServer(settings.http_address, make_app(database, tokens, threads=settings.threads))

    if settings.page_token_secret == DEVELOPMENT_SECRET:
        _log.warning("page tokens are signed with a secret that everybody knows; set COURSE_PAGE_TOKEN_SECRET")
    grpc_server.start()
    _log.info("gRPC on port %d (%s)", grpc_port, settings.grpc_address)
    if http_server:
        http_server.start()
        _log.info("HTTP on port %d (%s), documented at /docs", http_server.port, settings.http_address)
    health.start()

    stop.wait()
    health.stop()
    _log.info("stopping")
    at_once.wait(settings.drain_seconds)
    grpc_stopped = grpc_server.stop(_GRACE_SECONDS)
    if http_server:
        http_server.stop()
    grpc_stopped.wait()
    database.close()
    _log.info("stopped")


def open_database(settings: Settings, *, connections: int) -> Database:
    """Open the database of the settings, and see that it can be used. Raises `StartupError`."""
    database = Database(settings.database, connections=connections, session_settings=settings.database_session_settings)
    try:
        database.check()
    except DatabaseUnavailable:
        raise StartupError(
            "the database of COURSE_DATABASE_URL does not answer; start it, or correct the URL"
        ) from None
    return database


def main() -> int:
    """Run the command; returns the process's exit code."""
    parser = argparse.ArgumentParser(prog="python -m course_service", description=__doc__)
    parser.add_argument("command", nargs="?", choices=["serve", "health", "purge"], default="serve")
    command = parser.parse_args().command
    try:
        settings = load_settings()
        logging.Formatter.converter = time.gmtime
        logging.basicConfig(
            level=settings.log_level,
            format="%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s",
            datefmt="%FT%T",
        )
        if command == "health":
            return 0 if is_serving(settings.grpc_address) else 1
        if command == "purge":
            purged = purge(open_database(settings, connections=1))
            _log.info("purged %d courses and %d answers", purged.courses, purged.answers)
            return 0
        serve(settings)
    except DatabaseUnavailable:
        print("course-service: the database went away; run it again", file=sys.stderr)  # noqa: T201  # as below
        return 1
    except StartupError as error:
        print(f"course-service: {error}", file=sys.stderr)  # noqa: T201  # this is what the person at the terminal reads
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
