"""Add what the lifecycle, external ids and searching need; only adds, so that running services are not disturbed."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0002_add_lifecycle"
down_revision: str | None = "0001_create_courses"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def types() -> tuple[sa.Text, sa.DateTime, sa.JSON[object]]:
    """Text in code-point order, time in UTC, and JSON, as each database has them."""
    if op.get_bind().dialect.name == "postgresql":
        return sa.Text(collation="C"), sa.DateTime(timezone=True), postgresql.JSONB()
    return sa.Text(), sa.DateTime(), sa.JSON()


def courses_of_0001() -> sa.Table:
    """The table as 0001 leaves it, for SQLite, which changes a table by copying it."""
    return sa.Table(
        "courses",
        sa.MetaData(),
        sa.Column("uid", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("course_id", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("language_code", sa.Text(), nullable=False),
        sa.Column("subjects", sa.JSON(), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("create_time", sa.DateTime(), nullable=False),
        sa.Column("update_time", sa.DateTime(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("uid", name="pk_courses"),
        sa.UniqueConstraint("course_id", name="uq_courses_course_id"),
        sa.CheckConstraint("length(course_id) BETWEEN 1 AND 63", name="ck_courses_course_id"),
        sa.CheckConstraint("length(title) BETWEEN 1 AND 750", name="ck_courses_title"),
        sa.CheckConstraint("length(code) <= 255", name="ck_courses_code"),
        sa.CheckConstraint("length(description) <= 30000", name="ck_courses_description"),
        sa.CheckConstraint("length(owner) <= 255", name="ck_courses_owner"),
        sa.CheckConstraint("length(language_code) <= 100", name="ck_courses_language_code"),
        sa.CheckConstraint(
            "json_type(subjects) = 'array' AND json_array_length(subjects) <= 20", name="ck_courses_subjects"
        ),
        sa.CheckConstraint("json_type(labels) = 'object'", name="ck_courses_labels"),
        sa.CheckConstraint("state IN ('DRAFT', 'PUBLISHED', 'ARCHIVED', 'DELETED')", name="ck_courses_state"),
        sa.CheckConstraint("update_time >= create_time", name="ck_courses_update_time"),
        sa.CheckConstraint("revision >= 1", name="ck_courses_revision"),
    )


CHECKS = {
    "ck_courses_delete_time": "(state = 'DELETED') = (delete_time IS NOT NULL)"
    " AND (delete_time IS NULL) = (purge_time IS NULL)"
    " AND (delete_time IS NULL) = (state_before_delete IS NULL)",
    "ck_courses_purge_time": "purge_time >= delete_time",
    "ck_courses_state_before_delete": "state_before_delete IN ('DRAFT', 'PUBLISHED', 'ARCHIVED')",
}


def new_columns() -> list[sa.Column[object]]:
    """Columns that an older service leaves out when it stores a course."""
    text, time, json = types()
    return [
        sa.Column("external_ids", json, nullable=False, server_default=sa.text("'{}'")),
        sa.Column("delete_time", time),
        sa.Column("purge_time", time),
        sa.Column("state_before_delete", sa.String(16)),
        sa.Column("search_text", text, nullable=False, server_default=""),
    ]


def upgrade() -> None:
    text, _, _ = types()
    on_postgresql = op.get_bind().dialect.name == "postgresql"
    for column in new_columns():
        op.add_column("courses", column)
    # 0001 allowed the state already.
    later = (
        "update_time + interval '30 days'"
        if on_postgresql
        else "datetime(substr(update_time, 1, 19), '+30 days') || substr(update_time, 20)"
    )
    op.execute(
        f"UPDATE courses SET delete_time = update_time, purge_time = {later}, state_before_delete = 'DRAFT'"  # noqa: S608  # no value from outside
        " WHERE state = 'DELETED'"
    )
    if on_postgresql:
        for name, check in CHECKS.items():
            # Rows are checked by 0003, without the lock that this takes.
            op.create_check_constraint(op.f(name), "courses", check, postgresql_not_valid=True)
    else:
        table = courses_of_0001()
        for column in new_columns():
            table.append_column(column)
        with op.batch_alter_table("courses", copy_from=table, recreate="always") as batch:
            for name, check in CHECKS.items():
                batch.create_check_constraint(op.f(name), check)
    op.create_table(
        "course_external_ids",
        sa.Column("key", text, nullable=False),
        sa.Column("value", text, nullable=False),
        sa.Column("course_uid", sa.Uuid(as_uuid=False), nullable=False),
        sa.PrimaryKeyConstraint("key", "value", name=op.f("pk_course_external_ids")),
        sa.ForeignKeyConstraint(
            ["course_uid"], ["courses.uid"], name=op.f("fk_course_external_ids_course_uid"), ondelete="CASCADE"
        ),
        sa.CheckConstraint("length(key) BETWEEN 1 AND 32", name=op.f("ck_course_external_ids_key")),
        sa.CheckConstraint("length(value) BETWEEN 1 AND 255", name=op.f("ck_course_external_ids_value")),
    )
    op.create_index(op.f("ix_course_external_ids_course_uid"), "course_external_ids", ["course_uid"])


def downgrade() -> None:
    op.drop_table("course_external_ids")
    if op.get_bind().dialect.name == "postgresql":
        for name in CHECKS:
            op.drop_constraint(op.f(name), "courses", type_="check")
        for column in new_columns():
            op.drop_column("courses", column.name)
    else:
        table = courses_of_0001()
        for column in new_columns():
            table.append_column(column)
        with op.batch_alter_table("courses", copy_from=table, recreate="always") as batch:
            for column in new_columns():
                batch.drop_column(column.name)
