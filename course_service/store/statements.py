"""Statements that write, compiled once and sent as text: to have SQLAlchemy run them costs more than twice as much."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Dialect
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import UpdateBase


class WriteStatement:
    """A statement for one set of parameters at a time, which returns no rows."""

    def __init__(self, statement: UpdateBase | Callable[[str], UpdateBase]) -> None:
        """Take a statement, or what makes it for the dialect of a name."""
        self._statement = statement
        self._texts: dict[str, _Text] = {}

    def execute(self, connection: Connection, parameters: Mapping[str, Any]) -> int:
        """Run it; returns how many rows it wrote."""
        text = self.text(connection.dialect)
        return connection.exec_driver_sql(text.sql, text.parameters(parameters)).rowcount

    def text(self, dialect: Dialect) -> "_Text":
        """Return it as it is sent."""
        text = self._texts.get(dialect.name)
        if text is None:
            statement = self._statement(dialect.name) if callable(self._statement) else self._statement
            text = self._texts[dialect.name] = _Text(statement, dialect)
        return text


class StatementsAtOnce:
    """Statements that share one set of parameters and are sent as one text, where the database takes that.

    PostgreSQL makes a transaction of such a text, unless it is in one.
    """

    def __init__(self, *statements: WriteStatement) -> None:
        self._statements = statements

    def execute(self, connection: Connection, parameters: Mapping[str, Any]) -> int:
        """Run them; returns how many rows the last one wrote."""
        if connection.dialect.positional:
            return [statement.execute(connection, parameters) for statement in self._statements][-1]
        texts = [statement.text(connection.dialect) for statement in self._statements]
        values = dict(parameters)
        for text in texts:
            values |= text.processed(parameters)
        return connection.exec_driver_sql("; ".join(text.sql for text in texts), values).rowcount


class _Text:
    def __init__(self, statement: UpdateBase, dialect: Dialect) -> None:
        compiled = statement.compile(dialect=dialect)
        assert isinstance(compiled, SQLCompiler)
        self.sql = compiled.string
        self._positions: Sequence[str] = compiled.positiontup or ()
        self._processors: dict[str, Callable[[Any], object]] = {
            name: processor
            for name, parameter in compiled.binds.items()
            if (processor := parameter.type.dialect_impl(dialect).bind_processor(dialect))
        }

    def parameters(self, given: Mapping[str, Any]) -> dict[str, object] | tuple[object, ...]:
        """Return parameters as the driver takes them."""
        values = {**given, **self.processed(given)}
        return tuple(values[name] for name in self._positions) if self._positions else values

    def processed(self, given: Mapping[str, Any]) -> dict[str, object]:
        """Return those parameters that the driver takes as something else."""
        return {name: processor(given[name]) for name, processor in self._processors.items()}
