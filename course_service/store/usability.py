"""Whether the database can be used at all: its file, its encoding, whether it takes writes, and its schema."""

import os
from pathlib import Path
from typing import Any

import psycopg2
from sqlalchemy import Connection, Select, func, literal_column, select, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from course_service.startup import StartupError
from course_service.store import faults, search_index
from course_service.store.models import METADATA, SCHEMA_REVISION

_READ_ONLY_AND_INDEXED = select(func.current_setting("transaction_read_only"), search_index.IS_VALID)
# Empty reads of every column, in one statement with the revision: they fail if a table or column is missing.
_REVISION: Select[Any] = select(literal_column("version_num")).select_from(text("alembic_version"))
_SCHEMA = _REVISION.add_columns(
    *(
        select(func.count()).select_from(select(table).limit(0).subquery()).scalar_subquery()
        for table in METADATA.sorted_tables
    )
)


class SchemaMissing(StartupError):
    """The database has no schema, or an older one than this code needs."""

    def __init__(self, found: str | None) -> None:
        have = f"the schema of the database is {found}" if found else "the database has no schema yet"
        super().__init__(
            f"{have}, but {SCHEMA_REVISION} is needed; run make migrate (python -m course_service migrate)"
        )


class DatabaseUnusable(StartupError):
    """The database cannot be used; the message has the cause."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"the database of COURSE_DATABASE_URL cannot be used: {problem}")


class DatabaseReadOnly(StartupError):
    """The database responds and accepts no writes: a standby, or a primary that was demoted."""

    def __init__(self) -> None:
        super().__init__("the database of COURSE_DATABASE_URL is read-only; no host accepts writes")


def check_file(url: URL) -> None:
    """Check the file of a URL of SQLite. Raises `SchemaMissing`, `DatabaseUnusable`."""
    file = Path(url.database or "")
    if not file.exists():
        raise SchemaMissing(None)
    if not os.access(file, os.W_OK):
        raise DatabaseUnusable("the file is read-only")


def check_encoding(connection: Connection) -> None:
    """Raise `DatabaseUnusable` unless the database stores every text."""
    driver = connection.connection.dbapi_connection
    # SQLite's default, and what the migrations make, is UTF-8.
    encoding = (
        driver.info.parameter_status("server_encoding")
        if isinstance(driver, psycopg2.extensions.connection)
        else "UTF8"
    )
    if encoding != "UTF8":
        raise DatabaseUnusable(f"its encoding must be UTF8 and is {encoding}")


def is_search_indexed(connection: Connection) -> bool:
    """Return whether searches may use the search index. Raises `DatabaseReadOnly` if the database takes no writes."""
    if connection.dialect.name != "postgresql":
        return False
    read_only, is_indexed = connection.execute(_READ_ONLY_AND_INDEXED).one()
    if read_only == "on":
        raise DatabaseReadOnly
    return bool(is_indexed)


def check_schema(connection: Connection) -> None:
    """Raise `SchemaMissing` or `DatabaseUnusable` unless the schema is new enough, with every table and column."""
    try:
        row = connection.execute(_SCHEMA).first()
    except DBAPIError as error:
        if not faults.is_undefined(error):
            raise
        found = _revision(connection)
        if found is not None and found >= SCHEMA_REVISION:
            raise DatabaseUnusable(f"a table or column of schema {found} is missing") from None
    else:
        found = row.version_num if row else None
    # Revisions begin with their number, so a later one compares greater.
    if found is None or found < SCHEMA_REVISION:
        raise SchemaMissing(found)


def _revision(connection: Connection) -> str | None:
    try:
        revision: str | None = connection.execute(_REVISION).scalar()
    except DBAPIError as error:
        if not faults.is_undefined(error):
            raise
        return None
    return revision
