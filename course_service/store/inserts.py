"""INSERT … ON CONFLICT DO NOTHING, which SQLAlchemy has for each database but not for both."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Column, Connection, Table
from sqlalchemy.dialects import postgresql

from course_service.store.statements import WriteStatement


class Inserts:
    """Inserts rows into a table, and skips those whose unique key is taken."""

    def __init__(self, table: Table) -> None:
        def statement(dialect: str) -> Any:  # noqa: ANN401  # as below
            return insert(table, dialect).on_conflict_do_nothing()

        self._many = functools.cache(statement)
        self._one = WriteStatement(statement)

    def one(self, connection: Connection, row: Mapping[str, Any]) -> bool:
        """Insert a row; False if its key is taken."""
        return self._one.execute(connection, row) == 1

    def many(self, connection: Connection, rows: Sequence[Mapping[str, Any]], returning: Column[Any]) -> list[str]:
        """Insert rows; returns a column of those that were inserted."""
        statement = self._many(connection.dialect.name).returning(returning)
        return list(connection.execute(statement, rows).scalars())


def insert(table: Table, dialect: str) -> Any:  # noqa: ANN401  # each database has an insert of its own
    """Make an INSERT as the dialect of a name has it."""
    if dialect == "sqlite":
        from sqlalchemy.dialects import sqlite  # not above: beside PostgreSQL it takes memory only

        return sqlite.insert(table)
    return postgresql.insert(table)
