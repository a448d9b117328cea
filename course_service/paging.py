"""Pages of a list: their size, their order, and places in it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from course_service.course import Course
from course_service.errors import OrderByInvalid, PageSizeNegative

DEFAULT_SIZE = 50
MAX_SIZE = 1000
MAX_BYTES = 3 << 20
"""About where a page ends early, so that it stays below the 4 MiB that a client accepts by default."""

ORDER_FIELDS = ("title", "code", "create_time", "update_time")
_MAX_ORDER_BY_LENGTH = 256

Place = tuple[str | datetime, ...]
"""The place of a course in a list: its value of each field that the list is sorted by, its course_id last."""


@dataclass(frozen=True, slots=True)
class Order:
    """One field to sort by."""

    field: str
    descending: bool = False


def page_size(asked: int) -> int:
    """Return how many courses a page has at most; raises `PageSizeNegative`."""
    if asked < 0:
        raise PageSizeNegative(asked)
    return min(asked or DEFAULT_SIZE, MAX_SIZE)


def parse_order_by(text: str) -> tuple[Order, ...]:
    """Read an order_by; the last field is always course_id, so that no two courses have the same place.

    Raises `OrderByInvalid`.
    """
    if len(text) > _MAX_ORDER_BY_LENGTH:
        raise OrderByInvalid(f"Has at most {_MAX_ORDER_BY_LENGTH} characters", _MAX_ORDER_BY_LENGTH)
    orders: list[Order] = []
    position = 0
    for part in (text if text.strip() else "create_time").split(","):
        found = re.fullmatch(r"\s*(\w+)(?:\s+(asc|desc))?\s*", part)
        if not found or found[1] not in ORDER_FIELDS:
            raise OrderByInvalid(f"Each field is one of {', '.join(ORDER_FIELDS)}, and desc may follow it", position)
        if found[1] in {order.field for order in orders}:
            raise OrderByInvalid(f"{found[1]} must not be repeated", position)
        orders.append(Order(found[1], found[2] == "desc"))
        position += len(part) + 1
    return (*orders, Order("course_id", orders[-1].descending))


def place_of(course: Course, orders: Sequence[Order]) -> Place:
    """Return the place of a course in a list that is sorted by `orders`."""
    return tuple(getattr(course, order.field) for order in orders)
