"""INSERT … ON CONFLICT DO NOTHING, which SQLAlchemy has for each database but not for both."""

from typing import Any

from sqlalchemy import Insert
from sqlalchemy.dialects import postgresql, sqlite


def insert_unless_present(row: type[Any]) -> dict[str, Insert]:
    """Make the statement that inserts rows and skips those whose unique key is taken, by name of the dialect."""
    return {
        "postgresql": postgresql.insert(row).on_conflict_do_nothing(),
        "sqlite": sqlite.insert(row).on_conflict_do_nothing(),
    }
