"""What the databases' errors mean: whether to try again, what to report, and the cause in words.

The driver's own text is never passed on: it may quote statements, values, the user or the address.
"""

import re

import psycopg2
from sqlalchemy.exc import DBAPIError

from course_service import call
from course_service.store.waiting import NoResponse

# A demoted primary (25006), and a server that is shutting down or starting up: the connection is of no more use.
DISCONNECT_STATES = {"25006", "57P01", "57P02", "57P03"}
# Serialization failure and deadlock: the same transaction, tried again, has every chance.
_RETRY_STATES = {"40001", "40P01"}
# Connection, rollback, resources, operator and system errors.
_UNAVAILABLE_CLASSES = {"08", "40", "53", "57", "58"}
_LOCK_NOT_AVAILABLE = "55P03"
_QUERY_CANCELED = "57014"
# Of a statement that is right, SQLite's unspecific error says the same.
_UNDEFINED = {"42P01", "42703", "SQLITE_ERROR"}
_SQLITE_UNAVAILABLE = (
    "SQLITE_BUSY",
    "SQLITE_LOCKED",
    "SQLITE_READONLY",
    "SQLITE_IOERR",
    "SQLITE_FULL",
    "SQLITE_CANTOPEN",
)
"""How the names of such errors begin; some say more behind."""

# What libpq says of a host that does not accept writes, if target_session_attrs asks for one that does.
READ_ONLY = re.compile("session is read-only|server is in hot standby mode")


class NoHostAcceptsWrites(psycopg2.OperationalError):
    """Of several hosts at least one responded, and none of them accepts writes."""

    def __init__(self) -> None:
        super().__init__("no host accepts writes")


_CAUSES = {
    "25006": "it is read-only",
    "40001": "serialization failure",
    "40P01": "deadlock",
    "42501": "permission denied",
    "53100": "its disk is full",
    "53300": "too many connections",
    "55P03": "a lock was not released in time",
    "57014": "the statement took too long",
    "57P01": "it is shutting down",
    "57P02": "it has crashed",
    "57P03": "it is starting up",
    "SQLITE_BUSY": "another process holds the file's lock",
    "SQLITE_CANTOPEN": "the file cannot be opened",
    "SQLITE_CORRUPT": "the file is damaged",
    "SQLITE_FULL": "the disk is full",
    "SQLITE_INTERRUPT": "the statement took too long",
    "SQLITE_IOERR": "the file cannot be read or written",
    "SQLITE_LOCKED": "another process holds the file's lock",
    "SQLITE_NOTADB": "the file is not an SQLite database",
    "SQLITE_READONLY": "the file is read-only",
}
# An attempt to connect fails without a code: only libpq's text says why.
_CONNECT_CAUSES = {
    "authentication failed|no password supplied|no pg_hba.conf entry|role .* does not exist": "authentication failed",
    "database .* does not exist": "no such database",
    "too many (clients|connections)|remaining connection slots": "too many connections",
    "starting up": "it is starting up",
    "shutting down|administrator command": "it is shutting down",
    "unsupported startup parameter": "it refuses start-up options (PgBouncer does:"
    " set COURSE_DATABASE_SESSION_SETTINGS=false)",
    "invalid connection option|invalid .*dsn": "the URL has an option that the driver does not know",
    "SSL|certificate": "no TLS connection as the URL asks for",
    "closed the connection|connection (already|was )?(closed|lost|reset)|could not receive": "connection lost",
    "no host accepts writes": "no host accepts writes",
    READ_ONLY.pattern: "it is read-only",
    "no response in time": "no response in time",
    # With several addresses libpq reports on each; one that responded says more than those that did not.
    "timeout expired|timed out": "no response in time",
    "unreachable|No route": "unreachable host",
    "could not translate host name": "unknown host",
    "Connection refused|No such file or directory": "connection refused",
}


def cause(error: DBAPIError) -> str:
    """Say why the database failed, with the code that the database gave it."""
    code = _code(error)
    words = _CAUSES.get(code or "") or _CAUSES.get("_".join((code or "").split("_")[:2]))
    if words is None and code is None:
        text = str(error.orig)
        words = next((words for pattern, words in _CONNECT_CAUSES.items() if re.search(pattern, text)), None)
    if words is None and error.connection_invalidated:
        words = "connection lost"
    kind = code or type(error.orig).__name__
    return f"{words} ({kind})" if words else kind


def is_unavailable(error: DBAPIError) -> bool:
    """Whether the fault is the database's condition now, and no fault of the statement."""
    if error.connection_invalidated:
        return True
    match error.orig:
        case psycopg2.OperationalError(pgcode=None):  # no connection was made
            return True
        case psycopg2.Error(pgcode=str(state)):
            return state[:2] in _UNAVAILABLE_CLASSES or state in DISCONNECT_STATES | {_LOCK_NOT_AVAILABLE}
    return (_code(error) or "").startswith(_SQLITE_UNAVAILABLE)


def is_worth_retrying(error: DBAPIError) -> bool:
    """Whether the same transaction can succeed if it is tried again at once."""
    return error.connection_invalidated or _code(error) in _RETRY_STATES


def is_timeout(error: DBAPIError) -> bool:
    """Whether a time limit has ended the statement: PostgreSQL's statement_timeout, or the deadline of the call."""
    if isinstance(error.orig, NoResponse):
        return call.remaining() <= 0
    return _code(error) in {_QUERY_CANCELED, "SQLITE_INTERRUPT"}


def is_locked(error: DBAPIError) -> bool:
    """Whether a wait for a lock has ended without it."""
    return (_code(error) or "").startswith((_LOCK_NOT_AVAILABLE, "SQLITE_BUSY", "SQLITE_LOCKED"))


def is_undefined(error: DBAPIError) -> bool:
    """Whether a table or column is missing."""
    return _code(error) in _UNDEFINED


def _code(error: DBAPIError) -> str | None:
    """Return PostgreSQL's SQLSTATE or the name of SQLite's error."""
    return getattr(error.orig, "pgcode", None) or getattr(error.orig, "sqlite_errorname", None)
