"""INSERT … ON CONFLICT DO NOTHING, which SQLAlchemy has for each database but not for both."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Column, Connection, Table
from sqlalchemy.dialects import postgresql, sqlite

from course_service.store.statements import WriteStatement


class Inserts:
    """Inserts rows into a table, and skips those whose unique key is taken."""

    def __init__(self, table: Table) -> None:
        self._many = {
            "postgresql": postgresql.insert(table).on_conflict_do_nothing(),
            "sqlite": sqlite.insert(table).on_conflict_do_nothing(),
        }
        self._one = WriteStatement(self._many["postgresql"], sqlite=self._many["sqlite"])

    def one(self, connection: Connection, row: Mapping[str, Any]) -> bool:
        """Insert a row; False if its key is taken."""
        return self._one.execute(connection, row) == 1

    def many(self, connection: Connection, rows: Sequence[Mapping[str, Any]], returning: Column[Any]) -> list[str]:
        """Insert rows; returns a column of those that were inserted."""
        statement = self._many[connection.dialect.name].returning(returning)
        return list(connection.execute(statement, rows).scalars())
