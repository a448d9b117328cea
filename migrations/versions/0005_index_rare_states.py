"""Index the states that few courses have, so that a list of those need not walk past all the others."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0005_index_rare_states"
down_revision: str | None = "0004_create_answers"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    if op.get_bind().dialect.name != "postgresql":
        return
    with op.get_context().autocommit_block():
        op.drop_index(op.f("ix_courses_rare_state"), "courses", if_exists=True)  # half-built, perhaps
        op.create_index(
            op.f("ix_courses_rare_state"),
            "courses",
            ["state", "create_time", "course_id"],
            postgresql_where=sa.text("state IN ('ARCHIVED', 'DELETED')"),
            postgresql_concurrently=True,
        )


def downgrade() -> None:
    op.drop_index(op.f("ix_courses_rare_state"), "courses", if_exists=True)
