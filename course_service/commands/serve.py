"""Serve gRPC and HTTP until a signal ends it."""

from __future__ import annotations

import contextlib
import gc
import logging
import math
import resource
import signal
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

import grpc

from course_service.auth.access import open_access
from course_service.auth.watched import Unusable, Watched
from course_service.commands.common import open_database
from course_service.exposure import check_exposure
from course_service.guard.guard import Guard
from course_service.health import Health
from course_service.rest.app import make_app
from course_service.rest.places import Places
from course_service.rest.server import HttpServer
from course_service.rpc.health import HealthServicer
from course_service.rpc.interceptor import identify
from course_service.rpc.server import make_health_server, make_server
from course_service.rpc.threads import CallThreads
from course_service.settings import DEVELOPMENT_SECRET, MIN_SECRET_LENGTH, Settings, load_settings
from course_service.startup import StartupError
from course_service.store.combined_reads import MAX_READERS
from course_service.store.database import Database
from course_service.telemetry.logs import log_in_background
from course_service.telemetry.telemetry import Telemetry, open_telemetry
from course_service.tokens import PageTokens

if TYPE_CHECKING:
    from course_service.auth.tls import Tls

_log = logging.getLogger("course_service")

_FLUSH_SECONDS = 1.0
"""How long the last responses may take to leave."""
_MAX_ELSEWHERE = 100
"""How many calls by gRPC may wait for queries that they share."""
_ENDED = 0
"""In place of a signal: the HTTP server has ended by itself."""
_UNSEEN_SECONDS = 0.5
"""How long a signal that has woken nobody may go unseen."""
_GRACE_SECONDS = 10.0
"""How long calls under way may take to finish once the service has stopped taking new ones."""


def main() -> int:
    """Serve; returns the exit code. Raises `StartupError`."""
    settings = load_settings()
    check_exposure(settings)
    log = log_in_background(settings.log_level, settings.log_format)
    try:
        telemetry = open_telemetry(settings, log)
        try:
            serve(settings, telemetry)
        finally:
            telemetry.close()
    finally:
        log.close()
    return 0


def serve(settings: Settings, telemetry: Telemetry) -> None:
    """Serve until SIGTERM, SIGINT or the end of the HTTP server. Raises `StartupError`."""
    # Not an event: its lock is held for moments by the thread that waits, and that is the one that handles signals.
    signals: SimpleQueue[int] = SimpleQueue()

    def on_signal(number: int, _: object) -> None:
        signals.put(number)

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    _allow_connections()

    # A connection for every call that is worked on by gRPC and by HTTP, and for the reads that calls share.
    connections = 2 * settings.threads + MAX_READERS
    database = open_database(settings, connections=connections, watch=telemetry.watch)
    access = open_access(settings)
    guard = Guard(identify=access.identify, authorise=access.authorise, begin=telemetry.begin, observe=telemetry.end)
    servers = _Servers(settings, guard, access.tls, database, on_end=lambda: signals.put(_ENDED))
    tls, keys = access.tls, access.keys
    telemetry.start(
        database,
        servers.health,
        certificate_ends=(lambda: tls.not_after) if tls else None,
        keys_loaded=(lambda: keys.fetched) if keys else None,
    )
    if settings.page_token_secret == DEVELOPMENT_SECRET and not settings.page_token_secret_file:
        _log.warning("page tokens are signed with a secret that everybody knows; set COURSE_PAGE_TOKEN_SECRET")
    servers.start()
    gc.freeze()  # what has been loaded stays loaded: the garbage collector need not visit it again
    number = _next(signals)
    _log.info("stopping")
    servers.warn()
    # From a terminal, or for the second time: nobody has to be warned first.
    if number != signal.SIGINT and not servers.has_failed:
        _next(signals, settings.drain_seconds)
    servers.stop()
    database.close()
    _log.info("stopped")
    if servers.has_failed:
        raise StartupError("the HTTP server has ended by itself")


def _next(signals: SimpleQueue[int], seconds: float = math.inf) -> int | None:
    """Wait for a signal. One that another thread gets, or this one the moment before, wakes nobody: look again."""
    ends = time.monotonic() + seconds
    while (left := ends - time.monotonic()) > 0:
        with contextlib.suppress(Empty):
            return signals.get(timeout=min(left, _UNSEEN_SECONDS))
    return None


class _Servers:
    """All that listens, over one database. `on_end` is called if one ends by itself."""

    def __init__(
        self, settings: Settings, guard: Guard, tls: Tls | None, database: Database, *, on_end: Callable[[], object]
    ) -> None:
        self._settings = settings
        self.health = Health(database)
        self._health_servicer = HealthServicer(self.health)
        who = identify(guard) if settings.authenticates else None
        self._threads = CallThreads(
            settings.threads,
            max_elsewhere=_MAX_ELSEWHERE,
            is_shared=database.shares_reads,
            max_waiting=settings.max_waiting,
            identify=who,
        )
        tokens = _page_tokens(settings)
        self._grpc, self._grpc_port = make_server(
            settings.grpc_address,
            database,
            tokens,
            self._health_servicer,
            guard,
            self._threads,
            max_connections=settings.max_connections,
            max_connection_age_seconds=settings.max_connection_age_seconds,
            tls=tls,
            reflection=settings.reflection,
        )
        self._http: HttpServer | None = None
        if settings.http_address:
            places = Places(settings.threads, max_waiting=settings.max_waiting)
            max_age = settings.max_connection_age_seconds
            app = make_app(database, tokens, self.health, guard, places, max_connection_age_seconds=max_age)
            self._http = HttpServer(
                settings.http_address, app, max_connections=settings.max_connections, tls=tls, on_end=on_end
            )
        self._probes: grpc.Server | None = None
        if settings.health_address:
            self._probes, self._probes_port = make_health_server(settings.health_address, self._health_servicer, guard)

    @property
    def has_failed(self) -> bool:
        """Whether the HTTP server has ended by itself."""
        return self._http is not None and self._http.has_ended

    def start(self) -> None:
        """Serve. Raises `StartupError`."""
        if self._probes:
            self._probes.start()
            _log.info("health on port %d (%s)", self._probes_port, self._settings.health_address)
        if self._http:
            self._http.start()
            _log.info("HTTP on port %d (%s), documented at /docs", self._http.port, self._settings.http_address)
        self._grpc.start()
        _log.info("gRPC on port %d (%s)", self._grpc_port, self._settings.grpc_address)
        self.health.start()

    def warn(self) -> None:
        """Have callers leave: report NOT_SERVING, and go on serving."""
        self.health.stop()

    def stop(self) -> None:
        """Take no more calls, and let those under way finish."""
        self._health_servicer.end_watches()
        grpc_stopped = self._grpc.stop(_GRACE_SECONDS)
        if self._http:
            self._http.stop()
        grpc_stopped.wait(_FLUSH_SECONDS)  # the last calls may still be on their way to a thread
        self._threads.close(_GRACE_SECONDS)
        if not grpc_stopped.wait(_FLUSH_SECONDS):
            self._grpc.stop(None).wait()  # only peers that no longer react keep it open
        if self._probes:
            self._probes.stop(None)


def _page_tokens(settings: Settings) -> PageTokens:
    """Make what signs page tokens, by the setting or by a file that may be replaced. Raises `StartupError`."""
    tokens = PageTokens(settings.page_token_secret)
    if settings.page_token_secret_file:

        def use(contents: Sequence[bytes]) -> None:
            secrets = contents[0].decode("utf-8", "replace").split()
            if not secrets or any(len(secret) < MIN_SECRET_LENGTH for secret in secrets):
                raise Unusable(f"it has to have secrets of {MIN_SECRET_LENGTH} characters at least, one a line")
            tokens.use(*secrets)

        Watched("COURSE_PAGE_TOKEN_SECRET_FILE", [settings.page_token_secret_file], use)
    return tokens


def _allow_connections() -> None:
    """Raise the limit of open files, which counts connections too, as far as this user may."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
