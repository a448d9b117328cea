"""Engines for PostgreSQL, with the settings that it needs."""

from collections.abc import Mapping, Sequence
from typing import Any

import psycopg2.extensions
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL, Dialect
from sqlalchemy.engine.interfaces import DBAPIConnection, ExceptionContext
from sqlalchemy.pool import ConnectionPoolEntry

from course_service import call
from course_service.store.faults import DISCONNECT_STATES, READ_ONLY, NoHostAcceptsWrites
from course_service.store.hosts import Host, hosts_of
from course_service.store.waiting import NoResponse, connecting

SESSION_SETTINGS = {
    "timezone": "UTC",
    "statement_timeout": "5000",
    "lock_timeout": "2000",
    "idle_in_transaction_session_timeout": "10000",
    "client_connection_check_interval": "1000",
}
"""What the service asks of a PostgreSQL session; times in milliseconds."""

CONNECT_SECONDS = 2
"""How long a host may take to accept a connection."""

_FAIR_SECONDS = 0.25
"""How long a host must have had to accept a connection before it counts as one that does not respond."""

_UUID_AS_TEXT = psycopg2.extensions.new_type((2950,), "UUID", lambda value, _: value)  # the number of the type


class PostgresqlConnection(psycopg2.extensions.connection):
    """A connection that can begin a transaction with its next statement, which saves a round trip."""

    begins = False
    """Whether the next statement begins a transaction."""


class _Cursor(psycopg2.extensions.cursor):
    connection: PostgresqlConnection

    def execute(self, query: Any, vars: Any = None) -> None:  # noqa: A002, ANN401  # the driver's own
        if self.connection.begins:
            self.connection.begins = False
            query = "BEGIN;" + query
        super().execute(query, vars)

    def executemany(self, query: Any, vars_list: Any) -> None:  # noqa: ANN401  # the driver's own
        if self.connection.begins:  # the driver's own way goes past `execute`
            self.execute("SELECT 1")
        super().executemany(query, vars_list)


def postgresql_engine(url: URL, *, session_settings: bool = True, **options: Any) -> Engine:  # noqa: ANN401  # create_engine's own
    """Make an engine that finds the host that accepts writes, notices a dead peer, and asks for `SESSION_SETTINGS`."""
    hosts = hosts_of(url)
    given = {name: value for name, value in url.query.items() if name not in {"host", "port"}}
    connect_args: dict[str, object] = {
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 10_000,
        "application_name": "course-service",
        "connection_factory": PostgresqlConnection,
        "cursor_factory": _Cursor,
        **({"target_session_attrs": "read-write"} if len(hosts) > 1 else {}),
        **given,
    }
    if session_settings:
        ours = " ".join(f"-c {name}={value}" for name, value in SESSION_SETTINGS.items())
        connect_args["options"] = f"{ours} {given.get('options', '')}".strip()
    plain = URL.create(url.drivername, url.username, url.password, database=url.database)
    engine = create_engine(plain, connect_args=connect_args, hide_parameters=True, **options)
    event.listen(engine, "do_connect", _Connector(hosts, float(str(given.get("connect_timeout", CONNECT_SECONDS)))))

    @event.listens_for(engine, "connect")
    def leave_uuids_as_text(connection: psycopg2.extensions.connection, _: ConnectionPoolEntry) -> None:
        # SQLAlchemy has the driver make UUID objects, of which it then makes the text that the tables ask for.
        psycopg2.extensions.register_type(_UUID_AS_TEXT, connection)

    @event.listens_for(engine, "handle_error")
    def leave_a_server_that_cannot_serve(context: ExceptionContext) -> None:
        error = context.original_exception
        if getattr(error, "pgcode", None) in DISCONNECT_STATES:
            context.is_disconnect = True
        if isinstance(error, NoResponse):
            context.invalidate_pool_on_disconnect = False  # the other connections may be fine

    return engine


class _Connector:
    """Connects to the first host that accepts the session.

    The one that accepted the last is tried first, and one that does not respond last: a frozen primary must not take
    the time in which its successor could be found. What time the call has is shared by the hosts that are left.
    """

    def __init__(self, hosts: Sequence[Host], seconds: float) -> None:
        self._hosts = tuple(hosts)
        self._seconds = seconds

    def __call__(
        self, dialect: Dialect, _: ConnectionPoolEntry, arguments: Sequence[Any], options: Mapping[str, Any]
    ) -> DBAPIConnection:
        """Connect. A host that does not respond takes `seconds` at most."""
        failures: list[psycopg2.OperationalError] = []
        hosts = self._hosts
        for index, host in enumerate(hosts):
            seconds = min(self._seconds, call.remaining() / (len(hosts) - index))
            address = {name: value for name, value in {"host": host.name, "port": host.port}.items() if value}
            try:
                with connecting(seconds), call.idle():  # also while the name of the host is looked up
                    connection = dialect.connect(*arguments, **options, **address)
            except NoResponse as error:
                failures.append(error)
                if seconds >= _FAIR_SECONDS:
                    self._hosts = (*(other for other in self._hosts if other is not host), host)
            except psycopg2.OperationalError as error:
                failures.append(error)
            else:
                self._hosts = (host, *(other for other in self._hosts if other is not host))
                return connection
        if len(failures) > 1 and any(READ_ONLY.search(str(failure)) for failure in failures):
            raise NoHostAcceptsWrites
        raise failures[-1]
