"""Reading a request strictly: what would be dropped or altered silently is refused."""

import json
from collections import Counter
from collections.abc import Collection, Iterable
from email.message import Message
from typing import Any
from urllib.parse import unquote_to_bytes

import anyio
from fastapi import Request

from course_service import call
from course_service.errors import (
    DeadlineExceeded,
    HeadersTooLarge,
    RequestInvalid,
    RequestMalformed,
    RequestTooLarge,
    Violation,
)
from course_service.rest.protocol import MAX_HEADER_BYTES
from course_service.validation import field_name

MAX_BODY_BYTES = 1 << 20


class StrictRequest(Request):
    """A request whose body is read once, no further than MAX_BODY_BYTES, and is strict JSON."""

    async def read_json(self) -> None:
        """Read the body as a JSON document in UTF-8, or nothing.

        A repeated name, NaN and Infinity are refused. Raises `RequestTooLarge`, `RequestMalformed`, and
        `DeadlineExceeded` if it does not arrive in time.
        """
        chunks: list[bytes] = []
        size = 0
        try:
            with anyio.fail_after(min(call.BODY_SECONDS, call.remaining())):
                async for chunk in self.stream():
                    size += len(chunk)
                    if size > MAX_BODY_BYTES:
                        raise RequestTooLarge(MAX_BODY_BYTES)
                    chunks.append(chunk)
        except TimeoutError:
            raise DeadlineExceeded from None
        self._body = b"".join(chunks)  # where `body` and `json`, which FastAPI calls, look first
        if not self._body:
            return
        if not _is_json(self.headers.get("content-type", "")):
            raise body_malformed()
        try:
            self._json = json.loads(self._body.decode(), object_pairs_hook=_no_name_twice, parse_constant=_no_constant)
        except (ValueError, RecursionError):
            raise body_malformed() from None


def check_query(request: Request, known: Collection[str], lists: Collection[str]) -> None:
    """Raise `RequestInvalid` if a query parameter is not known, or is given twice and is no list.

    And `RequestMalformed` if the query is not in UTF-8, of which starlette would make other text.
    """
    try:
        unquote_to_bytes(request.scope["query_string"]).decode()
    except UnicodeDecodeError:
        raise RequestMalformed("The query must be in UTF-8.") from None
    counts = Counter(name for name, _ in request.query_params.multi_items())
    violations = [
        Violation(field_name(name), "FIELD_UNKNOWN", "There is no such query parameter.")
        for name in counts
        if name not in known
    ] + [
        Violation(name, "FIELD_DUPLICATE", "Must be given once.")
        for name, count in counts.items()
        if count > 1 and name in known and name not in lists
    ]
    if violations:
        raise RequestInvalid(violations)


def check_headers(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Raise `HeadersTooLarge`, and `RequestMalformed` if they say in two ways where the body ends."""
    size = 0
    ends = set()
    for name, value in headers:
        size += len(name) + len(value)
        if name in {b"content-length", b"transfer-encoding"}:
            ends.add(name)
    if size > MAX_HEADER_BYTES:
        raise HeadersTooLarge(MAX_HEADER_BYTES)
    if len(ends) > 1:
        raise RequestMalformed("A request has Content-Length or Transfer-Encoding, not both.")


def body_malformed() -> RequestMalformed:
    """Make the error of a body that cannot be read."""
    return RequestMalformed("The body must be a JSON object in UTF-8, sent as Content-Type: application/json.")


def _is_json(content_type: str) -> bool:
    message = Message()
    message["content-type"] = content_type
    subtype = message.get_content_subtype()
    return message.get_content_maintype() == "application" and (subtype == "json" or subtype.endswith("+json"))


def _no_name_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a name is repeated")
    return members


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
