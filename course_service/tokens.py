"""Page tokens: a place in a list, signed, so that only this service can make one."""

import hashlib
from collections.abc import Sequence
from datetime import datetime

from itsdangerous import BadData, URLSafeSerializer

from course_service.errors import PageTokenInvalid, PageTokenMismatch
from course_service.paging import Order, Place

_MAX_LENGTH = 16_384


class PageTokens:
    """Makes and reads page tokens, signed with secrets that all replicas share."""

    def __init__(self, *secrets: str) -> None:
        self.use(*secrets)

    def use(self, *secrets: str) -> None:
        """Sign with the first secret from now on, and read what was signed with any of them."""
        self._serializers = [
            URLSafeSerializer(secret, salt="page", signer_kwargs={"digest_method": hashlib.sha256})
            for secret in secrets
        ]

    def make(self, query: str, place: Place) -> str:
        """Make the token of a place in the list of a query."""
        return _made(self._serializers[0], query, place)

    def read(self, token: str, query: str, orders: Sequence[Order]) -> Place | None:
        """Return the place of a token, None for an empty one.

        Raises `PageTokenInvalid`, and `PageTokenMismatch` if the token was made for another query.
        """
        if not token:
            return None
        if len(token) > _MAX_LENGTH or not token.isascii():
            raise PageTokenInvalid
        serializer, (made_for, *texts) = self._loaded(token)
        if made_for != query:
            raise PageTokenMismatch
        place = tuple(
            datetime.fromisoformat(text) if order.field.endswith("_time") else text
            for order, text in zip(orders, texts, strict=True)
        )
        # Base64 has spare bits, so that several texts stand for the same bytes; only the one that was made counts.
        if _made(serializer, query, place) != token:
            raise PageTokenInvalid
        return place

    def _loaded(self, token: str) -> tuple[URLSafeSerializer, list[str]]:
        for serializer in self._serializers:
            try:
                return serializer, serializer.loads(token)
            except BadData:
                continue
        raise PageTokenInvalid


def _made(serializer: URLSafeSerializer, query: str, place: Place) -> str:
    texts = [value.isoformat() if isinstance(value, datetime) else value for value in place]
    return str(serializer.dumps([query, *texts]))
