"""Orders of a list, and what comes after a place in one (keyset pagination), as SQL."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Select, and_, literal, or_, tuple_

from course_service.paging import Order, Place
from course_service.store.models import TITLE_BEGINNING, TITLE_BEGINNING_LENGTH, CourseRow


def in_order(statement: Select[Any], orders: Sequence[Order], after: Place | None, dialect: str) -> Select[Any]:
    """Sort a statement by `orders`, and leave out everything up to the place `after`."""
    columns: list[tuple[Any, bool]] = []  # with whether it descends
    place: list[Any] = []
    for number, order in enumerate(orders):
        if order.field == "title" and dialect == "postgresql":
            # A whole title can be too large for an index there; its beginning, compared first, says the same.
            columns.append((TITLE_BEGINNING, order.descending))
            place += [after[number][:TITLE_BEGINNING_LENGTH]] if after else []  # type: ignore[index]  # a title is text
        columns.append((getattr(CourseRow, order.field), order.descending))
        place += [after[number]] if after else []
    statement = statement.order_by(*(column.desc() if descending else column for column, descending in columns))
    if after is None:
        return statement
    first, first_descending = columns[0]
    if len({descending for _, descending in columns}) == 1:
        here = tuple_(*(column for column, _ in columns))
        there = tuple_(*(literal(value, column.type) for (column, _), value in zip(columns, place, strict=True)))
        return statement.where(here < there if first_descending else here > there)
    # This is implied by the condition below, but lets an index be used.
    statement = statement.where(first <= place[0] if first_descending else first >= place[0])
    further = []
    for index, (column, descending) in enumerate(columns):
        same = [columns[before][0] == place[before] for before in range(index)]
        further.append(and_(*same, column < place[index] if descending else column > place[index]))
    return statement.where(or_(*further))
