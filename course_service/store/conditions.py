"""From a filter's tree to SQL.

Every condition is true or false, never NULL, so that NOT turns it around: what is compared with nothing is false.
"""

import dataclasses
import operator
import re
from collections.abc import Callable
from typing import Any

from sqlalchemy import (
    ColumnElement,
    SQLColumnExpression,
    and_,
    case,
    exists,
    func,
    literal,
    not_,
    or_,
    select,
    true,
    type_coerce,
)
from sqlalchemy.dialects.postgresql import JSONB

from course_service.course import COLLECTION
from course_service.filters import And, Comparison, Condition, Not, Or, Present, Search
from course_service.store.models import COURSES, EXTERNAL_IDS, TITLE_BEGINNING, TITLE_BEGINNING_LENGTH

Sql = ColumnElement[bool]

_OPERATORS: dict[str, Callable[[Any, Any], Sql]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}

# What a service of before 0002 stores while it still runs has no search text; case then counts beyond ASCII.
SEARCHED = case(
    (COURSES.c.search_text != "", COURSES.c.search_text),
    else_=func.lower(COURSES.c.title + "\x1f" + COURSES.c.code + "\x1f" + COURSES.c.description),
)
"""What a word is searched in."""

_HAS_TRIGRAM = re.compile(r"[^\W_]{3}")
"""What pg_trgm surely makes a trigram of: for a text without any, it would read the whole index."""


class Conditions:
    """Writes conditions in the words of one database, `postgresql` or `sqlite`, that has a search index or not."""

    def __init__(self, dialect: str, *, has_search_index: bool = False) -> None:
        self._on_postgresql = dialect == "postgresql"
        self._has_search_index = has_search_index

    def sql(self, condition: Condition) -> Sql:  # noqa: C901  # one case for each kind of condition
        """Write a condition."""
        match condition:
            case And(parts):
                return and_(*map(self.sql, parts))
            case Or(parts):
                return or_(*map(self.sql, parts))
            case Not(part):
                return not_(self.sql(part))
            case Search(text):
                return self._found(text.casefold())
            case Present():
                return self._present(condition)
            case Comparison(field="subjects"):
                return self._among_subjects(condition)
            case Comparison(field="labels"):
                return self._label(condition)
            case Comparison(field="external_ids"):
                return self._external_id(condition)
            case Comparison(field="delete_time"):
                return and_(COURSES.c.delete_time.is_not(None), self._compare(COURSES.c.delete_time, condition))
            case Comparison(field="name"):
                return self._name(condition)
            case Comparison(field="title", operator="=") if self._on_postgresql:
                # The index is on the beginning of titles.
                beginning = self._compare(TITLE_BEGINNING, dataclasses.replace(condition, value=_beginning(condition)))
                return and_(beginning, self._compare(COURSES.c.title, condition))
            case Comparison(field="state" | "uid", operator=":"):
                return COURSES.c[condition.field] == condition.value
            case Comparison():
                return self._compare(COURSES.c[condition.field], condition)

    def _found(self, text: str) -> Sql:
        if self._has_search_index and _HAS_TRIGRAM.search(text):
            return SEARCHED.contains(text, autoescape=True)  # LIKE can use the index
        # Without it, LIKE would have PostgreSQL read every course to find a word that it wrongly takes to be rare.
        return self._contains(SEARCHED, text)

    def _present(self, condition: Present) -> Sql:
        match condition:
            case Present("labels", str(key)):
                return self._label_value(key).is_not(None)
            case Present("external_ids", str(key)):
                return self._has_external_id(EXTERNAL_IDS.c.key == key)
            case Present("subjects"):
                length = func.jsonb_array_length if self._on_postgresql else func.json_array_length
                return length(COURSES.c.subjects) > 0
            case Present("delete_time"):
                return COURSES.c.delete_time.is_not(None)
            case Present("name" | "uid" | "state" | "create_time" | "update_time"):
                return true()
            case Present(field):
                return COURSES.c[field] != ""

    def _compare(self, column: SQLColumnExpression[Any], condition: Comparison) -> Sql:
        value = condition.value
        if condition.prefix:
            begins = self._begins(column, str(value))
            return not_(begins) if condition.operator == "!=" else begins
        if condition.operator == ":":
            return self._contains(column, str(value))
        return _OPERATORS[condition.operator](column, value)

    def _contains(self, column: SQLColumnExpression[Any], text: str) -> Sql:
        # LIKE ignores case on SQLite and has wildcards; these do not.
        return (func.strpos if self._on_postgresql else func.instr)(column, text) > 0

    def _begins(self, column: SQLColumnExpression[Any], text: str) -> Sql:
        if self._on_postgresql:
            return column.startswith(text, autoescape=True)  # LIKE can use an index
        return func.substr(column, 1, len(text)) == text

    def _name(self, condition: Comparison) -> Sql:
        value = str(condition.value)
        if value.startswith(COLLECTION) and condition.operator != ":":
            # Both sides begin alike, so that comparing the rest is the same, and an index can serve it.
            rest = Comparison("course_id", None, condition.operator, value.removeprefix(COLLECTION), condition.prefix)
            return self._compare(COURSES.c.course_id, rest)
        return self._compare(literal(COLLECTION) + COURSES.c.course_id, condition)

    def _label_value(self, key: str) -> ColumnElement[Any]:
        value: ColumnElement[Any] = COURSES.c.labels[key].as_string()
        return value.collate("C") if self._on_postgresql else value

    def _label(self, condition: Comparison) -> Sql:
        assert condition.key
        if self._on_postgresql and condition.operator == "=" and not condition.prefix:
            # An index serves this form.
            return type_coerce(COURSES.c.labels, JSONB).contains({condition.key: condition.value})
        value = self._label_value(condition.key)
        return and_(value.is_not(None), self._compare(value, condition))

    def _external_id(self, condition: Comparison) -> Sql:
        return self._has_external_id(
            and_(EXTERNAL_IDS.c.key == condition.key, self._compare(EXTERNAL_IDS.c.value, condition))
        )

    def _has_external_id(self, which: Sql) -> Sql:
        return COURSES.c.uid.in_(select(EXTERNAL_IDS.c.course_uid).where(which))

    def _among_subjects(self, condition: Comparison) -> Sql:
        text = str(condition.value)
        if self._on_postgresql and not condition.prefix:
            return type_coerce(COURSES.c.subjects, JSONB).contains([text])
        each = func.jsonb_array_elements_text if self._on_postgresql else func.json_each
        subject = each(COURSES.c.subjects).table_valued("value")
        found = self._begins(subject.c.value, text) if condition.prefix else subject.c.value == text
        return exists(select(1).select_from(subject).where(found))


def _beginning(condition: Comparison) -> str:
    return str(condition.value)[:TITLE_BEGINNING_LENGTH]
