"""Engines, with the settings that each database needs."""

from typing import Any
from urllib.parse import quote

import psycopg2.extensions
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.engine.interfaces import DBAPIConnection, ExceptionContext
from sqlalchemy.pool import ConnectionPoolEntry

from course_service import call
from course_service.store.faults import DISCONNECT_STATES

SESSION_SETTINGS = {
    "timezone": "UTC",
    "statement_timeout": "5000",
    "lock_timeout": "2000",
    "idle_in_transaction_session_timeout": "10000",
    "client_connection_check_interval": "1000",
}
"""What the service asks of a PostgreSQL session; times in milliseconds."""

LOCK_TIMEOUT_MS = 5_000
"""How long a statement waits for the lock of an SQLite file at most."""
_STEPS_BETWEEN_LOOKS = 10_000

_UUID_AS_TEXT = psycopg2.extensions.new_type((2950,), "UUID", lambda value, _: value)  # the number of the type


def postgresql_engine(url: URL, *, session_settings: bool = True, **options: Any) -> Engine:  # noqa: ANN401  # create_engine's own
    """Make an engine that gives up connecting after 2 s, notices a dead peer, and asks for `SESSION_SETTINGS`."""
    connect_args: dict[str, object] = {
        "connect_timeout": 2,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 10_000,
        "application_name": "course-service",
        **url.query,
    }
    if session_settings:
        ours = " ".join(f"-c {name}={value}" for name, value in SESSION_SETTINGS.items())
        connect_args["options"] = f"{ours} {url.query.get('options', '')}".strip()
    engine = create_engine(url, connect_args=connect_args, hide_parameters=True, **options)

    @event.listens_for(engine, "connect")
    def leave_uuids_as_text(connection: psycopg2.extensions.connection, _: ConnectionPoolEntry) -> None:
        # SQLAlchemy has the driver make UUID objects, of which it then makes the text that the models ask for.
        psycopg2.extensions.register_type(_UUID_AS_TEXT, connection)

    @event.listens_for(engine, "handle_error")
    def leave_a_server_that_cannot_serve(context: ExceptionContext) -> None:
        if getattr(context.original_exception, "pgcode", None) in DISCONNECT_STATES:
            context.is_disconnect = True

    return engine


def sqlite_engine(url: URL, *, create: bool = False, **options: Any) -> Engine:  # noqa: ANN401  # create_engine's own
    """Make an engine on a file that must exist, unless it is to be created."""
    assert url.database
    file = URL.create(
        "sqlite", database="file:" + quote(url.database), query={"mode": "rwc" if create else "rw", "uri": "true"}
    )
    engine = create_engine(file, hide_parameters=True, **options)

    @event.listens_for(engine, "connect")
    def prepare(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
        connection.isolation_level = None  # the driver begins nothing by itself
        cursor = connection.cursor()
        for pragma in (f"busy_timeout={LOCK_TIMEOUT_MS}", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()
        # Ends a statement that runs when its call's deadline passes; called about once per millisecond of work.
        connection.set_progress_handler(lambda: call.remaining() < 0, _STEPS_BETWEEN_LOOKS)

    return engine
