"""Orders of a list, and what comes after a place in one (keyset pagination), as SQL."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Select, and_, bindparam, func, or_, tuple_

from course_service.paging import Order, Place
from course_service.store.models import COURSES, TITLE_BEGINNING, TITLE_BEGINNING_LENGTH


def place_parameters(place: Place) -> dict[str, object]:
    """Return the parameters that a statement made by `in_order` takes for a place."""
    return {f"place_{number}": value for number, value in enumerate(place)}


def in_order(statement: Select[Any], orders: Sequence[Order], dialect: str, *, after_place: bool) -> Select[Any]:
    """Sort a statement by `orders`, and leave out everything up to a place."""
    columns: list[tuple[Any, Any, bool]] = []  # with its value at the place, and with whether it descends
    for number, order in enumerate(orders):
        column = COURSES.c[order.field]
        value = bindparam(f"place_{number}", type_=column.type)
        if order.field == "title" and dialect == "postgresql":
            # A whole title can be too large for an index there; its beginning, compared first, says the same.
            beginning = func.substr(value, 1, TITLE_BEGINNING_LENGTH, type_=column.type)
            columns.append((TITLE_BEGINNING, beginning, order.descending))
        columns.append((column, value, order.descending))
    statement = statement.order_by(*(column.desc() if descending else column for column, _, descending in columns))
    if not after_place:
        return statement
    first, first_value, first_descending = columns[0]
    if len({descending for *_, descending in columns}) == 1:
        here = tuple_(*(column for column, *_ in columns))
        there = tuple_(*(value for _, value, _ in columns))
        return statement.where(here < there if first_descending else here > there)
    # This is implied by the condition below, but lets an index be used.
    statement = statement.where(first <= first_value if first_descending else first >= first_value)
    further = []
    for index, (column, value, descending) in enumerate(columns):
        same = [other == its_value for other, its_value, _ in columns[:index]]
        further.append(and_(*same, column < value if descending else column > value))
    return statement.where(or_(*further))
