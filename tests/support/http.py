"""Callers by HTTP without TLS."""

import ssl
from collections.abc import Mapping

import httpx2

_NO_AUTHORITIES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""By itself each client would read all authorities that there are, which takes longer than most tests."""


def http_client(address: str, *, headers: Mapping[str, str] | None = None, seconds: float = 20) -> httpx2.Client:
    """A client of what serves at an address, such as http://127.0.0.1:8080."""
    return httpx2.Client(base_url=address, headers=headers, timeout=seconds, verify=_NO_AUTHORITIES)
