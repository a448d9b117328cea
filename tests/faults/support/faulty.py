"""The service with a fault in it: the negative controls of the fault tests.

`FAULT=name python -m tests.faults.support.faulty` is `python -m course_service` with one promise broken. A test that
does not go red on its fault proves nothing. Each fault imports what it changes, so that a move of one breaks no other.
"""

import itertools
import os
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pkgutil import resolve_name
from typing import Any

import grpc
import psycopg2
from psycopg2.extras import wait_select
from sqlalchemy import bindparam, literal

from course_service import call
from course_service.__main__ import main

Fault = Callable[[], None]
FAULTS: dict[str, Fault] = {}
"""The faults by name."""


def fault(function: Fault) -> Fault:
    """Register a fault under the function's name."""
    FAULTS[function.__name__] = function
    return function


def put(target: str, name: str, replacement: object) -> Any:
    """Replace something of a module, or of a class as `module:Class`; returns what it was."""
    owner = resolve_name(target)
    was = getattr(owner, name)
    setattr(owner, name, replacement)
    return was


@fault
def none() -> None:
    """Break nothing."""


@fault
def guard_by_turns() -> None:
    """Take the guard out from one SIGUSR1 to the next, and its log line from one SIGUSR2 to the next.

    All in one process: two that do the same differ by a twentieth, by where their memory happens to lie.
    """

    async def bare(self: Any, task: Any) -> None:
        with call.working_on(task.call):
            response = self._behavior(self._decode(task.messages[0]), task.context)
            task.respond(self._encode(await response if self.is_coroutine else response))

    turned = itertools.count(1)

    def turns(number: int, owner: str, name: str, replacement: object) -> None:
        both = [resolve_name(owner).__dict__[name], replacement]

        def turn(*_: object) -> None:
            both.reverse()
            put(owner, name, both[0])
            sys.stderr.write(f"turned {next(turned)}\n")
            sys.stderr.flush()

        signal.signal(number, turn)

    turns(signal.SIGUSR1, "course_service.rpc.interceptor:_Unary", "_work", bare)
    turns(signal.SIGUSR2, "course_service.telemetry.calls:CallLog", "__call__", lambda *_: None)


@fault
def certificate_always_new() -> None:
    """Tell grpc's core at every handshake that there is a new certificate."""

    def for_grpc(self: Any) -> grpc.ServerCredentials:
        newest = self._files.current.for_grpc
        return grpc.dynamic_ssl_server_credentials(newest, lambda: newest)

    put("course_service.auth.tls:Tls", "for_grpc", for_grpc)


@fault
def wait_in_the_thread() -> None:
    """Have a call's thread wait for its message, as long as the caller likes."""
    unary = "course_service.rpc.interceptor:_OneMessage"
    put(unary, "receives", False)  # noqa: FBT003  # as all of them are called
    request = put(unary, "_request", None)

    def wait(self: Any, task: Any) -> object:
        task.messages.append(task._arguments[4]())
        return request(self, task)

    put(unary, "_request", wait)


@fault
def answer_from_the_query_before() -> None:
    """Answer reads that share a query from the result of the one before, where it has their courses."""

    def answer(self: Any, reads: Any) -> None:
        found = self._reads(lambda courses: courses.get_many({read.course_id for read in reads}, full=True))
        before, self.before = getattr(self, "before", {}), found
        for read in reads:
            self.answer(read, {**found, **before}.get(read.course_id))

    put("course_service.store.combined_reads:CombinedReads", "ask_for", answer)


@fault
def log_at_once() -> None:
    """Write each line of the log where it is logged, and wait until it is written."""

    def write(self: Any, line: Any) -> None:
        self._stream.write(line if isinstance(line, str) else line())
        self._stream.flush()

    put("course_service.telemetry.logs:LogWriter", "write", write)


@fault
def no_turns() -> None:
    """Take calls in the order in which they come, whoever's they are."""
    for name in ("add", "begin", "end", "displace"):
        of_callers = resolve_name(f"course_service.guard.turns:Turns.{name}")
        put(
            "course_service.guard.turns:Turns",
            name,
            lambda self, _, *item, of_callers=of_callers: of_callers(self, "", *item),
        )


@fault
def acknowledge_before_commit() -> None:
    """Respond to a write first, and commit it a moment later."""
    later = ThreadPoolExecutor(1)

    def acknowledge(self: Any, work: Any, **options: bool) -> Any:
        result = self.try_out(work)
        later.submit(time.sleep, 0.02)
        later.submit(write, self, work, **options)
        return result

    write = put("course_service.store.database:Database", "write", acknowledge)


@fault
def no_claim() -> None:
    """Do a write as often as it is sent, whatever its request_id."""
    put("course_service.store.idempotency_records:IdempotencyRecords", "claim", lambda *_: True)


@fault
def no_revision_in_where() -> None:
    """Store a new version of a course over whatever is stored."""
    statement = resolve_name("course_service.store.courses:_REPLACE")._statement
    of_the_course, _ = statement._where_criteria
    statement._where_criteria = (of_the_course, bindparam("old_revision") == bindparam("old_revision"))


@fault
def no_etag_compared() -> None:
    """Change a course whatever etag the request names."""
    put("course_service.schemas", "etags_of", lambda _: ())


@fault
def no_second_try() -> None:
    """Try a transaction once, whatever has cut it off."""
    put("course_service.store.database", "_MAX_TRIES", 1)


@fault
def no_wait_callback() -> None:
    """Wait for the database as long as that takes."""

    def wait(connection: psycopg2.extensions.connection) -> None:
        with call.idle():
            wait_select(connection)

    set_wait_callback: Callable[..., object] = put(
        "psycopg2.extensions", "set_wait_callback", lambda _: set_wait_callback(wait)
    )


@fault
def no_disconnect_states() -> None:
    """Stay with a server that has become read-only."""
    put("course_service.store.postgresql_engine", "DISCONNECT_STATES", frozenset())


@fault
def no_deadlines() -> None:
    """Let the database take a minute, whatever time the call has."""
    put("course_service.call", "remaining", lambda: 60.0)


@fault
def stock_health() -> None:
    """Serve grpcio's own health servicer, which sends to watchers under its lock."""
    import threading

    from grpc_health.v1 import health, health_pb2, health_pb2_grpc

    statuses = health_pb2.HealthCheckResponse

    class Stock(health.HealthServicer):
        def __init__(self, state: Any) -> None:
            super().__init__()
            self._state = state
            self._report()
            threading.Thread(target=self._keep_reporting, daemon=True).start()

        def _report(self) -> None:
            for service in ("", "course.v1.CourseService"):
                self.set(service, statuses.SERVING if self._state.is_ready else statuses.NOT_SERVING)

        def _keep_reporting(self) -> None:
            while True:
                with self._state.changed:
                    self._state.changed.wait()
                self._report()

        def add_to(self, server: Any) -> None:
            health_pb2_grpc.add_HealthServicer_to_server(self, server)

        def end_watches(self) -> None:
            self.enter_graceful_shutdown()

    put("course_service.commands.serve", "HealthServicer", Stock)


@fault
def no_decode_errors() -> None:
    """Have an undecodable message be an exception that nobody foresaw, as grpcio has it."""
    put("course_service.rpc.interceptor:Guarded", "_decoded", lambda self, message: self._decode(message))


@fault
def bugs() -> None:
    """Raise exceptions of many kinds, whose texts quote secrets and statements."""
    from psycopg2.errors import SyntaxError as StatementError
    from sqlalchemy.exc import ProgrammingError

    secret = "canary: SELECT * FROM courses at /usr/lib/canary.py"
    statement = ProgrammingError("SELECT canary", {"title": "canary"}, StatementError(secret))
    wrapped = RuntimeError(secret)
    wrapped.__cause__ = statement
    kinds: dict[str, BaseException] = {
        "create_course": SystemExit(secret),
        "get_course": RuntimeError(secret),
        "list_courses": statement,
        "update_course": wrapped,
        "delete_course": UnicodeEncodeError("utf-8", secret, 0, 1, secret),
        "publish_course": KeyError(secret),
        "archive_course": grpc.RpcError(secret),
        "undelete_course": RecursionError(secret),
        "batch_get_courses": MemoryError(secret),
        "batch_create_courses": AssertionError(secret),
    }

    def raising(exception: BaseException) -> Callable[..., None]:
        def work(*_: object) -> None:
            raise exception

        return work

    for use_case, exception in kinds.items():
        put("course_service.services", use_case, raising(exception))


@fault
def telling() -> None:
    """Pass on the text of an exception that nobody foresaw."""

    def told(exception: BaseException) -> Any:
        return resolve_name("course_service.errors:InternalError")(str(exception))

    put("course_service.guard.guard", "report", told)


@fault
def growing_list() -> None:
    """Keep 10 KB of every GetCourse."""
    kept: list[bytes] = []
    get = put("course_service.services", "get_course", None)

    async def keeping(*arguments: object) -> object:
        kept.append(os.urandom(10_000))
        return await get(*arguments)

    put("course_service.services", "get_course", keeping)


@fault
def deaf_to_sigterm() -> None:
    """Go on whatever SIGTERM says."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    put("signal", "signal", lambda *_: None)


@fault
def deaf_to_the_second_sigterm() -> None:
    """Heed the first SIGTERM only."""

    def heed_once(number: int, handler: Any) -> None:
        def handle(number: int, frame: Any) -> None:
            register(number, signal.SIG_IGN)
            handler(number, frame)

        register(number, handle)

    register = put("signal", "signal", heed_once)


@fault
def no_sizes() -> None:
    """Take headers and bodies of any size by HTTP."""
    put("course_service.rest.body", "MAX_BODY_BYTES", 1 << 40)
    put("course_service.rest.server", "MAX_HEADER_BYTES", 1 << 40)


@fault
def stale_get() -> None:
    """Answer GetCourse from a copy that is up to a second old."""
    copies: dict[str, tuple[float, object]] = {}
    get = put("course_service.services", "get_course", None)

    async def from_copy(database: Any, course_id: str) -> object:
        made, course = copies.get(course_id, (0.0, None))
        if time.monotonic() - made > 1:
            course = await get(database, course_id)
            copies[course_id] = time.monotonic(), course
        return course

    put("course_service.services", "get_course", from_copy)


@fault
def no_migration_lock() -> None:
    """Migrate whatever other migration runs."""
    put("sqlalchemy:func", "pg_try_advisory_lock", lambda _: literal(value=True))


@fault
def no_limit() -> None:
    """Work on every call that comes, however late its turn is."""
    put("course_service.guard.guard:Guard", "enter", lambda *_: None)
    put("course_service.rpc.threads", "comes_too_late", lambda *_: False)
    put("course_service.rpc.threads:CallThreads", "is_full", lambda _: False)
    put("course_service.rpc.interceptor", "_check_deadline", lambda _: None)
    no_deadlines()


@fault
def patience_with_readers() -> None:
    """Keep every response for as long as its caller likes."""
    for module in ("course_service.rpc.watchdog", "course_service.rest.protocol"):
        put(module, "READ_SECONDS", 1e6)
        put(module, "MAX_UNREAD_BYTES", 1 << 40)


@fault
def any_host() -> None:
    """Take the first host that accepts a connection, whether it accepts writes or not."""

    def connect_to_any(*arguments: Any, **options: Any) -> object:
        return connect(*arguments, **{**options, "target_session_attrs": "any"})

    connect = put("psycopg2", "connect", connect_to_any)


if __name__ == "__main__":
    FAULTS[os.environ.get("FAULT", "none")]()
    sys.exit(main())
