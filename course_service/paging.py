"""Pages of a list: their order, their size, and the tokens that lead from one to the next."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from itsdangerous import BadData, URLSafeSerializer

from course_service.course import Course
from course_service.errors import OrderByInvalid, PageSizeNegative, PageTokenInvalid, PageTokenMismatch
from course_service.schemas import ListCoursesRequest

DEFAULT_SIZE = 50
MAX_SIZE = 1000
MAX_BYTES = 3 << 20
"""About where a page ends early, so that it stays below the 4 MiB that a client accepts by default."""

ORDER_FIELDS = ("title", "code", "create_time", "update_time")
_MAX_TOKEN_LENGTH = 16_384
_MAX_ORDER_BY_LENGTH = 256

Key = tuple[str | datetime, ...]
"""Where a course stands in a list: its value of each field that the list is sorted by, its course_id last."""


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
    """Read an order_by; the last field is always course_id, so that no two courses stand in one place.

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
            raise OrderByInvalid(f"{found[1]} is there twice", position)
        orders.append(Order(found[1], found[2] == "desc"))
        position += len(part) + 1
    return (*orders, Order("course_id", orders[-1].descending))


class PageTokens:
    """Makes and reads page tokens, signed with a secret that all replicas share."""

    def __init__(self, secret: str) -> None:
        self._serializer = URLSafeSerializer(secret, salt="page", signer_kwargs={"digest_method": hashlib.sha256})

    def make(self, request: ListCoursesRequest, orders: Sequence[Order], last: Course) -> str:
        """Make the token that leads to what comes after a course."""
        return self._sign(_digest(request), [getattr(last, order.field) for order in orders])

    def read(self, request: ListCoursesRequest, orders: Sequence[Order]) -> Key | None:
        """Read a request's token, None without one; raises `PageTokenInvalid`, `PageTokenMismatch`."""
        token = request.page_token
        if not token:
            return None
        if len(token) > _MAX_TOKEN_LENGTH or not token.isascii():
            raise PageTokenInvalid
        try:
            digest, *texts = self._serializer.loads(token)
        except BadData:
            raise PageTokenInvalid from None
        if digest != _digest(request):
            raise PageTokenMismatch
        key = [
            datetime.fromisoformat(text) if order.field.endswith("_time") else text
            for order, text in zip(orders, texts, strict=True)
        ]
        # Base64 has spare bits, so that several texts stand for the same bytes; only the one that was made counts.
        if self._sign(digest, key) != token:
            raise PageTokenInvalid
        return tuple(key)

    def _sign(self, digest: str, key: Sequence[str | datetime]) -> str:
        texts = [value.isoformat() if isinstance(value, datetime) else value for value in key]
        return str(self._serializer.dumps([digest, *texts]))


def _digest(request: ListCoursesRequest) -> str:
    """Stand for everything that must be the same on every page of a list."""
    same = (request.filter, request.order_by, request.show_deleted, request.view.value)
    return hashlib.blake2b(repr(same).encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
