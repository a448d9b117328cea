"""Fill in the search text of courses that were there, and build the indexes, both while services go on writing."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0003_fill_and_index"
down_revision: str | None = "0002_add_lifecycle"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

BATCH = 500
INDEXES: dict[str, list[str | sa.TextClause]] = {
    "ix_courses_code": ["code", "course_id"],
    "ix_courses_create_time": ["create_time", "course_id"],
    "ix_courses_update_time": ["update_time", "course_id"],
    "ix_courses_owner": ["owner", "create_time", "course_id"],
    "ix_courses_purge_time": ["purge_time"],
}
GIN_INDEXES = ["subjects", "labels"]

courses = sa.table(
    "courses",
    sa.column("uid", sa.Uuid(as_uuid=False)),
    sa.column("title", sa.Text()),
    sa.column("code", sa.Text()),
    sa.column("description", sa.Text()),
    sa.column("search_text", sa.Text()),
)


def upgrade() -> None:
    # Outside of a transaction each step is committed by itself, so that no lock is held for long. Run again after it
    # was cut short, every step does what is left.
    with op.get_context().autocommit_block():
        fill_search_text()
        build_indexes()


def fill_search_text() -> None:
    """Give every course without one its search text: title, code and description, in folded case."""
    connection = op.get_bind()
    fields = (courses.c.uid, courses.c.title, courses.c.code, courses.c.description)
    some = sa.select(*fields).where(courses.c.search_text == "").limit(BATCH)
    update = (
        courses.update()
        .where(courses.c.uid == sa.bindparam("its_uid"), courses.c.search_text == "")
        .values(search_text=sa.bindparam("folded"))
    )
    while rows := connection.execute(some).all():
        folded = [
            {"its_uid": row.uid, "folded": "\x1f".join((row.title, row.code, row.description)).casefold()}
            for row in rows
        ]
        connection.execute(update, folded)


def build_indexes() -> None:
    """Build the indexes without keeping writers out, and check the rows that 0002 did not."""
    on_postgresql = op.get_bind().dialect.name == "postgresql"
    # A whole title can be too large for an index of PostgreSQL.
    titles: dict[str, list[str | sa.TextClause]] = (
        {"ix_courses_title_beginning": [sa.text("substr(title, 1, 600)"), "course_id"]}
        if on_postgresql
        else {"ix_courses_title": ["title", "course_id"]}
    )
    for name, columns in {**INDEXES, **titles}.items():
        op.drop_index(op.f(name), "courses", if_exists=True)  # half-built, perhaps
        op.create_index(op.f(name), "courses", columns, postgresql_concurrently=True)
    if not on_postgresql:
        return
    for column in GIN_INDEXES:
        name = op.f(f"ix_courses_{column}")
        op.drop_index(name, "courses", if_exists=True)
        op.create_index(
            name,
            "courses",
            [column],
            postgresql_using="gin",
            postgresql_ops={column: "jsonb_path_ops"},
            postgresql_concurrently=True,
        )
    for constraint in ("delete_time", "purge_time", "state_before_delete"):
        op.execute(f"ALTER TABLE courses VALIDATE CONSTRAINT ck_courses_{constraint}")


def downgrade() -> None:
    for name in (*INDEXES, "ix_courses_title", "ix_courses_title_beginning"):
        op.drop_index(op.f(name), "courses", if_exists=True)
    if op.get_bind().dialect.name == "postgresql":
        for column in GIN_INDEXES:
            op.drop_index(op.f(f"ix_courses_{column}"), "courses")
