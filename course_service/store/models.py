"""The tables, as the newest migration leaves them.

The limits of `course.py` stand here once more as constraints, so that the database refuses what the service would.
"""

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    DateTime,
    Dialect,
    Enum,
    MetaData,
    Text,
    TypeDecorator,
    UniqueConstraint,
    Uuid,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from course_service import course as limits
from course_service.course import State

SCHEMA_REVISION = "0001_create_courses"
"""The migration that this code needs; a later one is fine, for migrations only ever add what old code can ignore."""


class UtcText(TypeDecorator[datetime]):
    """SQLite has no time with a zone: UTC as text of fixed width, so that text order is time order."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Turn a time of any zone into naive UTC."""
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Turn naive UTC into UTC."""
        return None if value is None else value.replace(tzinfo=UTC)


# PostgreSQL compares text by the database's locale unless told otherwise; "C" is code-point order, as in SQLite.
_Text = Text().with_variant(Text(collation="C"), "postgresql")
_Time = DateTime(timezone=True).with_variant(UtcText(), "sqlite")
_Json = JSON().with_variant(JSONB(), "postgresql")


class Base(DeclarativeBase):
    """Names every constraint, because errors are told apart by constraint name."""

    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "ix": "ix_%(table_name)s_%(column_0_name)s",
        }
    )


class CourseRow(Base):
    """One course; the columns are the fields of `course.Course`."""

    __tablename__ = "courses"

    uid: Mapped[str] = mapped_column(Uuid(as_uuid=False), primary_key=True)
    course_id: Mapped[str] = mapped_column(_Text)
    title: Mapped[str] = mapped_column(_Text)
    code: Mapped[str] = mapped_column(_Text)
    description: Mapped[str] = mapped_column(_Text)
    owner: Mapped[str] = mapped_column(_Text)
    language_code: Mapped[str] = mapped_column(_Text)
    subjects: Mapped[list[str]] = mapped_column(_Json)
    labels: Mapped[dict[str, str]] = mapped_column(_Json)
    state: Mapped[State] = mapped_column(Enum(State, native_enum=False, create_constraint=False, length=16))
    create_time: Mapped[datetime] = mapped_column(_Time)
    update_time: Mapped[datetime] = mapped_column(_Time)
    revision: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = (
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
    )
