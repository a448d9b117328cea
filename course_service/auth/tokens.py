"""Bearer tokens: JWTs (RFC 7519) of one issuer for one audience.

PyJWT verifies signatures and claims. It is given nothing but tokens of a strict form, because by itself it accepts
more: other spellings of the same token, headers that bring their own key, claims of the wrong type.
"""

import json
import re
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any, NamedTuple

import jwt

from course_service.auth.errors import TokenExpired, TokenInvalid, TokenKeyUnknown, TokenMalformed
from course_service.auth.keys import Key, KeySet

MAX_LENGTH = 4096
LEEWAY_SECONDS = 30
MAX_SUBJECT_LENGTH = 256
_MAX_KEPT = 1024
"""How many verified tokens are known again without verifying their signatures."""
_MAX_TIME = 1 << 40

_FORM = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
_HEADER = {"alg", "kid", "typ"}
_TYPES = {"jwt", "at+jwt"}
_REQUIRED = ["exp", "iat", "sub", "iss", "aud"]


class _Verified(NamedTuple):
    subject: str
    expires: float


class Tokens:
    """Says whose a token is, if `issuer` has made it for `audience` with one of `keys`."""

    def __init__(self, issuer: str, audience: str, keys: KeySet) -> None:
        self._issuer = issuer
        self._audience = audience
        self._keys = keys
        self._known: dict[str, _Verified] = {}
        self._known_with = keys.current

    def subject(self, token: str) -> str:
        """Return the `sub` of a token.

        Raises `TokenMalformed`, `TokenKeyUnknown`, `TokenExpired`, `TokenInvalid`.
        """
        keys = self._keys.current
        if keys is not self._known_with:
            self._known, self._known_with = {}, keys
        known = self._known
        verified = known.get(token)
        if verified is None:
            verified = self._verified(token)
            if len(known) >= _MAX_KEPT:
                known.clear()
            known[token] = verified
        if verified.expires + LEEWAY_SECONDS <= time.time():
            raise TokenExpired
        return verified.subject

    def _verified(self, token: str) -> _Verified:
        algorithm, kid = _read_header(token)
        key = self._keys.current.get(kid)
        if key is None:
            self._keys.refresh_soon()
            raise TokenKeyUnknown
        if algorithm != key.algorithm:
            raise TokenInvalid
        claims = self._claims(token, key)
        return _Verified(claims["sub"], claims["exp"])

    def _claims(self, token: str, key: Key) -> dict[str, Any]:
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key.public,
                [key.algorithm],
                {"require": _REQUIRED},
                audience=self._audience,
                issuer=self._issuer,
                leeway=LEEWAY_SECONDS,
            )
            exact = _object(token.split(".")[1])  # names that are there twice, and what is no number of JSON
        except jwt.ExpiredSignatureError:
            raise TokenExpired from None
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
            raise TokenInvalid from None
        times = [exact[name] for name in ("exp", "iat", "nbf") if name in exact]
        if exact != claims or not all(map(_is_time, times)) or not _is_subject(exact["sub"]):
            raise TokenInvalid
        return claims


def _read_header(token: str) -> tuple[object, str]:
    """Return `alg` and `kid` of a token. Raises `TokenMalformed` unless token and header have the one form there is."""
    form = _FORM.fullmatch(token) if len(token) <= MAX_LENGTH else None
    if not form or not all(map(_is_canonical, form.groups())):
        raise TokenMalformed
    try:
        header = _object(form[1])
    except (ValueError, TypeError, RecursionError):
        raise TokenMalformed from None
    kid, kind = header.get("kid"), header.get("typ", "JWT")
    if not header.keys() <= _HEADER or not isinstance(kid, str) or not isinstance(kind, str):
        raise TokenMalformed
    if kind.lower() not in _TYPES:
        raise TokenMalformed
    return header.get("alg"), kid


def _is_canonical(part: str) -> bool:
    """Whether a part is the only spelling of its bytes: base64 has spare bits."""
    try:
        return urlsafe_b64encode(_bytes(part)).rstrip(b"=").decode() == part
    except ValueError:
        return False


def _bytes(part: str) -> bytes:
    return urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _object(part: str) -> dict[str, Any]:
    found = json.loads(_bytes(part).decode(), object_pairs_hook=_unique, parse_constant=_no_number)
    if not isinstance(found, dict):
        raise TypeError("no object")
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is there twice")
    return found


def _no_number(_: str) -> None:
    raise ValueError("no number of JSON")


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < _MAX_TIME


def _is_subject(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_SUBJECT_LENGTH and value.isprintable() and " " not in value
