"""The tables, as the newest migration leaves them.

The limits of `course.py` stand here once more as constraints, so that the database refuses what the service would.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    Enum,
    ForeignKey,
    Index,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    Uuid,
    func,
    literal_column,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from course_service import course as limits
from course_service.course import State

SCHEMA_REVISION = "0005_index_rare_states"
"""The migration that this code needs; a later one is fine, for migrations only ever add what old code can ignore."""


class _UtcTime(TypeDecorator[datetime]):
    """A moment; comes back in UTC, whatever the session's time zone.

    SQLite has no time with a zone: there it is UTC as text of fixed width, so that text order is time order.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.astimezone(UTC).replace(tzinfo=None) if value else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.replace(tzinfo=UTC) if value else None

    # On PostgreSQL nearly nothing is to be done, so each value is spared a call or two.

    def bind_processor(self, dialect: Dialect) -> Callable[[datetime | None], Any] | None:
        return super().bind_processor(dialect) if dialect.name == "sqlite" else None

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], datetime | None] | None:
        return super().result_processor(dialect, coltype) if dialect.name == "sqlite" else _in_utc


def _in_utc(value: datetime | None) -> datetime | None:
    return value if value is None or value.tzinfo is UTC else value.astimezone(UTC)


# PostgreSQL compares text by the locale of the database; "C" is code-point order, as in SQLite.
_Text = Text().with_variant(Text(collation="C"), "postgresql")
_Time = _UtcTime()
_State = Enum(State, native_enum=False, create_constraint=False, length=16)
_Json = JSON().with_variant(JSONB(), "postgresql")


# Constraints have names, because errors are distinguished by them.
METADATA = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)


# The columns are the fields of `course.Course`, and one more. No ORM: repositories make courses of rows, and to load
# SQLAlchemy's ORM would cost each process 6 MB and a fifteenth of its start.
COURSES = Table(
    "courses",
    METADATA,
    Column("uid", Uuid(as_uuid=False), primary_key=True),
    Column("course_id", _Text, nullable=False),
    Column("title", _Text, nullable=False),
    Column("code", _Text, nullable=False),
    Column("description", _Text, nullable=False),
    Column("owner", _Text, nullable=False),
    Column("language_code", _Text, nullable=False),
    Column("subjects", _Json, nullable=False),
    Column("labels", _Json, nullable=False),
    Column("state", _State, nullable=False),
    Column("create_time", _Time, nullable=False),
    Column("update_time", _Time, nullable=False),
    Column("revision", BigInteger, nullable=False),
    # For reading; EXTERNAL_IDS has them once more, for searching and for keeping them unique.
    Column("external_ids", _Json, server_default=text("'{}'"), nullable=False),
    Column("delete_time", _Time, nullable=True),
    Column("purge_time", _Time, nullable=True),
    Column("state_before_delete", _State, nullable=True),
    # `Course.search_text`, which the database could not make: each folds case by rules of its own.
    Column("search_text", _Text, server_default="", nullable=False),
    UniqueConstraint("course_id"),
    CheckConstraint(f"length(course_id) BETWEEN 1 AND {limits.COURSE_ID_MAX_LENGTH}", "course_id"),
    CheckConstraint(f"length(title) BETWEEN 1 AND {limits.TITLE_MAX_LENGTH}", "title"),
    CheckConstraint(f"length(code) <= {limits.CODE_MAX_LENGTH}", "code"),
    CheckConstraint(f"length(description) <= {limits.DESCRIPTION_MAX_LENGTH}", "description"),
    CheckConstraint(f"length(owner) <= {limits.OWNER_MAX_LENGTH}", "owner"),
    CheckConstraint(f"length(language_code) <= {limits.LANGUAGE_CODE_MAX_LENGTH}", "language_code"),
    CheckConstraint("state IN ('DRAFT', 'PUBLISHED', 'ARCHIVED', 'DELETED')", "state"),
    CheckConstraint("update_time >= create_time", "update_time"),
    CheckConstraint("revision >= 1", "revision"),
    # JSON is measured in each database's own words; SQLite has none for the number of an object's members.
    CheckConstraint(
        f"jsonb_typeof(subjects) = 'array' AND jsonb_array_length(subjects) <= {limits.SUBJECTS_MAX_ITEMS}",
        "subjects",
    ).ddl_if(dialect="postgresql"),
    CheckConstraint(
        "jsonb_typeof(labels) = 'object' AND jsonb_array_length(jsonb_path_query_array(labels, '$.keyvalue()'))"
        f" <= {limits.LABELS_MAX_ITEMS}",
        "labels",
    ).ddl_if(dialect="postgresql"),
    CheckConstraint(
        f"json_type(subjects) = 'array' AND json_array_length(subjects) <= {limits.SUBJECTS_MAX_ITEMS}",
        "subjects",
    ).ddl_if(dialect="sqlite"),
    CheckConstraint("json_type(labels) = 'object'", "labels").ddl_if(dialect="sqlite"),
    CheckConstraint(
        "(state = 'DELETED') = (delete_time IS NOT NULL)"
        " AND (delete_time IS NULL) = (purge_time IS NULL)"
        " AND (delete_time IS NULL) = (state_before_delete IS NULL)",
        "delete_time",
    ),
    CheckConstraint("purge_time >= delete_time", "purge_time"),
    CheckConstraint("state_before_delete IN ('DRAFT', 'PUBLISHED', 'ARCHIVED')", "state_before_delete"),
    # One for each order of a list, and for the filters that select few of many.
    *(Index(f"ix_courses_{field}", field, "course_id") for field in ("code", "create_time", "update_time")),
    Index("ix_courses_title", "title", "course_id").ddl_if(dialect="sqlite"),
    # PostgreSQL's indexes take 2,704 bytes, a title has up to 3,000.
    Index("ix_courses_title_beginning", text("substr(title, 1, 600)"), "course_id").ddl_if(dialect="postgresql"),
    Index("ix_courses_owner", "owner", "create_time", "course_id"),
    Index("ix_courses_purge_time", "purge_time"),
    # Of the states that few courses may have. SQLite does not use it for a state that comes as a parameter, and
    # would use it, and sort, also where many courses have that state.
    Index(
        "ix_courses_rare_state",
        "state",
        "create_time",
        "course_id",
        postgresql_where=text("state IN ('ARCHIVED', 'DELETED')"),
    ).ddl_if(dialect="postgresql"),
    *(
        Index(f"ix_courses_{field}", field, postgresql_using="gin", postgresql_ops={field: "jsonb_path_ops"}).ddl_if(
            dialect="postgresql"
        )
        for field in ("subjects", "labels")
    ),
)


# External ids, each of one course.
EXTERNAL_IDS = Table(
    "course_external_ids",
    METADATA,
    Column("key", _Text, primary_key=True),
    Column("value", _Text, primary_key=True),
    Column(
        "course_uid", Uuid(as_uuid=False), ForeignKey("courses.uid", ondelete="CASCADE"), index=True, nullable=False
    ),
    CheckConstraint("length(key) BETWEEN 1 AND 32", "key"),
    CheckConstraint(f"length(value) BETWEEN 1 AND {limits.EXTERNAL_ID_VALUE_MAX_LENGTH}", "value"),
)


# What is kept under the request_id of one write, so that the same request gets the same response again. The name of the
# table is its first one: what replicas of two releases share is not renamed.
IDEMPOTENCY_RECORDS = Table(
    "answers",
    METADATA,
    Column("caller", _Text, primary_key=True),
    Column("method", _Text, primary_key=True),
    Column("request_id", Uuid(as_uuid=False), primary_key=True),
    Column("fingerprint", _Text, nullable=False),
    # What the write returned, as JSON; NULL only inside of the transaction that does the work.
    Column("courses", _Text, nullable=True),
    Column("create_time", _Time, index=True, nullable=False),
)


TITLE_BEGINNING_LENGTH = 600
TITLE_BEGINNING = func.substr(COURSES.c.title, 1, literal_column(str(TITLE_BEGINNING_LENGTH)), type_=_Text)
"""Code points enough to distinguish titles, and few enough for PostgreSQL's indexes."""

SEARCH_INDEX = "ix_courses_search"
"""The one index that is the operator's choice (`search_index.py`), and so none of the tables' own."""

_ONLY_ON = {
    "ix_courses_title": "sqlite",
    "ix_courses_title_beginning": "postgresql",
    "ix_courses_subjects": "postgresql",
    "ix_courses_labels": "postgresql",
    "ix_courses_rare_state": "postgresql",
}


def exists_on(name: str | None, dialect: str) -> bool:
    """Whether a database should have the index of a name; Alembic does not ask the index itself."""
    return name != SEARCH_INDEX and _ONLY_ON.get(name or "", dialect) == dialect
