"""Page tokens: a place in a list, signed, so that only this service can make one."""

import hashlib
from collections.abc import Sequence
from datetime import datetime

from itsdangerous import BadData, URLSafeSerializer

from course_service.errors import PageTokenInvalid, PageTokenMismatch
from course_service.paging import Order, Place

_MAX_LENGTH = 16_384


class PageTokens:
    """Makes and reads page tokens, signed with a secret that all replicas share."""

    def __init__(self, secret: str) -> None:
        self._serializer = URLSafeSerializer(secret, salt="page", signer_kwargs={"digest_method": hashlib.sha256})

    def make(self, query: str, place: Place) -> str:
        """Make the token of a place in the list of a query."""
        texts = [value.isoformat() if isinstance(value, datetime) else value for value in place]
        return str(self._serializer.dumps([query, *texts]))

    def read(self, token: str, query: str, orders: Sequence[Order]) -> Place | None:
        """Return the place of a token, None for an empty one.

        Raises `PageTokenInvalid`, and `PageTokenMismatch` if the token was made for another query.
        """
        if not token:
            return None
        if len(token) > _MAX_LENGTH or not token.isascii():
            raise PageTokenInvalid
        try:
            made_for, *texts = self._serializer.loads(token)
        except BadData:
            raise PageTokenInvalid from None
        if made_for != query:
            raise PageTokenMismatch
        place = tuple(
            datetime.fromisoformat(text) if order.field.endswith("_time") else text
            for order, text in zip(orders, texts, strict=True)
        )
        # Base64 has spare bits, so that several texts stand for the same bytes; only the one that was made counts.
        if self.make(query, place) != token:
            raise PageTokenInvalid
        return place
