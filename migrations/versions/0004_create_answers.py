"""Create the table of answers to requests that came with a request_id."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0004_create_answers"
down_revision: str | None = "0003_fill_and_index"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    on_postgresql = op.get_bind().dialect.name == "postgresql"
    text = sa.Text(collation="C") if on_postgresql else sa.Text()
    time = sa.DateTime(timezone=True) if on_postgresql else sa.DateTime()
    op.create_table(
        "answers",
        sa.Column("caller", text, nullable=False),
        sa.Column("method", text, nullable=False),
        sa.Column("request_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("fingerprint", text, nullable=False),
        sa.Column("courses", text),
        sa.Column("create_time", time, nullable=False),
        sa.PrimaryKeyConstraint("caller", "method", "request_id", name=op.f("pk_answers")),
    )
    op.create_index(op.f("ix_answers_create_time"), "answers", ["create_time"])


def downgrade() -> None:
    op.drop_table("answers")
