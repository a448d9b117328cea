"""Statements that write, compiled once and sent as text: to have SQLAlchemy run them costs more than twice as much."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Dialect
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import UpdateBase


class WriteStatement:
    """A statement for one set of parameters at a time, which returns no rows."""

    def __init__(self, statement: UpdateBase, **others: UpdateBase) -> None:
        """Take a statement, and others in its place by name of the dialect."""
        self._statement = statement
        self._others = others
        self._texts: dict[str, _Text] = {}

    def execute(self, connection: Connection, parameters: Mapping[str, Any]) -> int:
        """Run it; returns how many rows it wrote."""
        name = connection.dialect.name
        text = self._texts.get(name)
        if text is None:
            text = self._texts[name] = _Text(self._others.get(name, self._statement), connection.dialect)
        return connection.exec_driver_sql(text.sql, text.parameters(parameters)).rowcount


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
        values = dict(given)
        for name, processor in self._processors.items():
            values[name] = processor(values[name])
        return tuple(values[name] for name in self._positions) if self._positions else values
