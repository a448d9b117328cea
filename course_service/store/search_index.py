"""The index for searches for words, on PostgreSQL alone.

It is of trigrams, by the extension pg_trgm. It is the operator's choice, and no part of the schema: not every server
has the extension, and each write of a course costs more with it. Searches find the same with and without it.
"""

from sqlalchemy import Connection, func, literal_column, select, text
from sqlalchemy.exc import DBAPIError

from course_service.startup import StartupError
from course_service.store import faults
from course_service.store.conditions import SEARCHED
from course_service.store.models import COURSES, SEARCH_INDEX

IS_VALID = func.coalesce(
    select(literal_column("indisvalid"))
    .select_from(text("pg_index"))
    .where(text(f"indexrelid = to_regclass('{SEARCH_INDEX}')"))
    .scalar_subquery(),
    literal_column("false"),
)
"""Whether the index is there and can be used: not while it is built, nor after that was cut short."""

_TABLE = COURSES.name
_IS_INSTALLED = text("SELECT count(*) > 0 FROM pg_available_extensions WHERE name = 'pg_trgm'")
_SCHEMA = text("SELECT quote_ident(extnamespace::regnamespace::text) FROM pg_extension WHERE extname = 'pg_trgm'")
_PENDING_KILOBYTES = 512
"""How much writes may leave for later, which every search reads; of PostgreSQL's default of 4 MB that takes 30 ms."""
_STATISTICS = 200
"""How many courses the planner looks at to tell how many have a word. With PostgreSQL's default of 100 it takes a third
of the words that 1 % of the courses have to be rare, and has all of these read where the first page would do. With
more, planning takes longer, about 2 µs for each."""


class SearchIndexUnavailable(StartupError):
    """The index cannot be built on this database; the message says why."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"the schema is up to date, but COURSE_SEARCH_INDEX=build cannot be done: {problem}")


def arrange(connection: Connection, choice: str) -> None:
    """Do with the index what `COURSE_SEARCH_INDEX` says, `keep`, `build` or `drop`, while reads and writes go on.

    The connection must be in no transaction, and is in autocommit afterwards. Raises `SearchIndexUnavailable`.
    """
    if choice == "keep":
        return
    if connection.dialect.name != "postgresql":
        if choice == "build":
            raise SearchIndexUnavailable("only PostgreSQL has this index")
        return
    connection.execution_options(isolation_level="AUTOCOMMIT")
    # Nothing of the service waits behind this, so it may wait for transactions under way longer than a migration may.
    connection.execute(text("SET lock_timeout = '60s'"))
    if choice == "drop":
        _drop(connection)
    elif not connection.scalar(select(IS_VALID)):
        schema = _extension(connection)
        _drop(connection)  # half-built, perhaps
        _build(connection, schema)


def _extension(connection: Connection) -> str:
    """Return the schema of the extension, which is created if need be."""
    if not connection.scalar(_IS_INSTALLED):
        raise SearchIndexUnavailable("the server lacks the extension pg_trgm, which comes with PostgreSQL's contrib")
    try:
        connection.execute(text("CREATE EXTENSION IF NOT EXISTS pg_trgm"))
    except DBAPIError as error:
        raise SearchIndexUnavailable(
            f"{faults.cause(error)}; have the owner of the database run CREATE EXTENSION pg_trgm"
        ) from None
    schema: str = connection.execute(_SCHEMA).scalar_one()
    if not connection.scalar(text(f"SELECT cardinality({schema}.show_trgm('яяя')) > 0")):
        raise SearchIndexUnavailable("pg_trgm knows ASCII alone where the LC_CTYPE of the database is C")
    return schema


def _build(connection: Connection, schema: str) -> None:
    searched = SEARCHED.compile(dialect=connection.dialect, compile_kwargs={"literal_binds": True})
    column = f"({searched}) {schema}.gin_trgm_ops"
    options = f"gin_pending_list_limit = {_PENDING_KILOBYTES}"
    for statement in (
        f"CREATE INDEX CONCURRENTLY {SEARCH_INDEX} ON {_TABLE} USING gin ({column}) WITH ({options})",
        f"ALTER INDEX {SEARCH_INDEX} ALTER COLUMN 1 SET STATISTICS {_STATISTICS}",
        f"ANALYZE {_TABLE}",
    ):
        connection.exec_driver_sql(statement)


def _drop(connection: Connection) -> None:
    connection.execute(text(f"DROP INDEX CONCURRENTLY IF EXISTS {SEARCH_INDEX}"))
