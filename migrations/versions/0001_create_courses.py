"""Create the table of courses."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0001_create_courses"
down_revision: str | None = None
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    on_postgresql = op.get_bind().dialect.name == "postgresql"
    text = sa.Text(collation="C") if on_postgresql else sa.Text()  # code-point order on both
    time = sa.DateTime(timezone=True) if on_postgresql else sa.DateTime()  # UTC
    json = postgresql.JSONB() if on_postgresql else sa.JSON()
    if on_postgresql:
        subjects = "jsonb_typeof(subjects) = 'array' AND jsonb_array_length(subjects) <= 20"
        labels = (
            "jsonb_typeof(labels) = 'object'"
            " AND jsonb_array_length(jsonb_path_query_array(labels, '$.keyvalue()')) <= 64"
        )
    else:
        subjects = "json_type(subjects) = 'array' AND json_array_length(subjects) <= 20"
        labels = "json_type(labels) = 'object'"
    op.create_table(
        "courses",
        sa.Column("uid", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("course_id", text, nullable=False),
        sa.Column("title", text, nullable=False),
        sa.Column("code", text, nullable=False),
        sa.Column("description", text, nullable=False),
        sa.Column("owner", text, nullable=False),
        sa.Column("language_code", text, nullable=False),
        sa.Column("subjects", json, nullable=False),
        sa.Column("labels", json, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("create_time", time, nullable=False),
        sa.Column("update_time", time, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("uid", name=op.f("pk_courses")),
        sa.UniqueConstraint("course_id", name=op.f("uq_courses_course_id")),
        sa.CheckConstraint("length(course_id) BETWEEN 1 AND 63", name=op.f("ck_courses_course_id")),
        sa.CheckConstraint("length(title) BETWEEN 1 AND 750", name=op.f("ck_courses_title")),
        sa.CheckConstraint("length(code) <= 255", name=op.f("ck_courses_code")),
        sa.CheckConstraint("length(description) <= 30000", name=op.f("ck_courses_description")),
        sa.CheckConstraint("length(owner) <= 255", name=op.f("ck_courses_owner")),
        sa.CheckConstraint("length(language_code) <= 100", name=op.f("ck_courses_language_code")),
        sa.CheckConstraint(subjects, name=op.f("ck_courses_subjects")),
        sa.CheckConstraint(labels, name=op.f("ck_courses_labels")),
        sa.CheckConstraint("state IN ('DRAFT', 'PUBLISHED', 'ARCHIVED', 'DELETED')", name=op.f("ck_courses_state")),
        sa.CheckConstraint("update_time >= create_time", name=op.f("ck_courses_update_time")),
        sa.CheckConstraint("revision >= 1", name=op.f("ck_courses_revision")),
    )


def downgrade() -> None:
    op.drop_table("courses")
