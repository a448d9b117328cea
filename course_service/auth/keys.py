"""The keys that tokens are signed with: a JWKS (RFC 7517) from a file or by https, renewed while the service runs."""

import json
import logging
import math
import ssl
import threading
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import AllowedPublicKeys, ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from course_service.auth.watched import Unusable, Watched
from course_service.guard.internal import report
from course_service.startup import StartupError

_log = logging.getLogger("course_service")

_FETCH_EVERY_SECONDS = 300.0
_FETCH_AGAIN_SECONDS = 5.0
"""How long after a fetch a token of an unknown key leads to the next one."""
_TIMEOUT_SECONDS = 5.0
_MAX_BYTES = 256 << 10
_MIN_RSA_BITS = 2048


@dataclass(frozen=True, slots=True)
class Key:
    """One key, and the only algorithm that it is used with."""

    algorithm: str
    public: AllowedPublicKeys


class KeySet:
    """Keys by their id, from a file or an https URL. What cannot be read leaves those that were read before.

    Raises `StartupError` if the file cannot be used. A URL that does not respond is asked again: until it does, no
    token is valid.
    """

    def __init__(self, location: str, context: ssl.SSLContext | None = None) -> None:
        self._location = location
        self._file: Watched[Mapping[str, Key]] | None = None
        self._fetched: Mapping[str, Key] = {}
        self.fetched = math.nan
        """When the keys were fetched last, by `time.time()`; NaN for a file, which is looked at each second."""
        if not location.startswith("https://"):
            if "://" in location:
                raise StartupError("COURSE_TOKEN_KEYS: has to be a file or an https URL")
            self._file = Watched("COURSE_TOKEN_KEYS", [location], lambda contents: read_keys(contents[0]))
            return
        self._opener = urllib.request.build_opener(_NoRedirects, urllib.request.HTTPSHandler(context=context))
        self._asked = threading.Event()
        self._closed = threading.Event()
        self._problem = ""
        """Why the keys could not be fetched when that was tried last."""
        self._fetch()
        self._thread = threading.Thread(target=self._run, name="token-keys", daemon=True)
        self._thread.start()

    @property
    def current(self) -> Mapping[str, Key]:
        """The keys by their id; another object whenever they have changed."""
        return self._file.current if self._file else self._fetched

    def refresh_soon(self) -> None:
        """Have the keys fetched because a token names one that is not known. Does not wait."""
        if not self._file:
            self._asked.set()

    def close(self) -> None:
        """Look or fetch no more, and wait for the end of a fetch that has begun."""
        if self._file:
            self._file.close()
            return
        self._closed.set()
        self._asked.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closed.wait(_FETCH_AGAIN_SECONDS):
            self._asked.wait(_FETCH_EVERY_SECONDS - _FETCH_AGAIN_SECONDS if not self._problem else 0)
            self._asked.clear()
            if self._closed.is_set():
                return
            try:
                self._fetch()
            except Exception as exception:  # or nobody would fetch any more
                report(exception)

    def _fetch(self) -> None:
        try:
            with self._opener.open(self._location, timeout=_TIMEOUT_SECONDS) as response:
                keys = read_keys(_body(response))
        except Unusable as error:
            problem = str(error)
        except (OSError, HTTPException, ValueError) as error:  # its text may quote what was sent
            problem = f"cannot be fetched ({type(error).__name__})"
        else:
            problem = ""
            self.fetched = time.time()
            if keys != self._fetched:
                self._fetched = keys
        if problem and problem != self._problem:  # it is tried again soon, and said once
            _log.warning("COURSE_TOKEN_KEYS: %s; the keys that were known before are still in use", problem)
        self._problem = problem


def read_keys(text: bytes) -> Mapping[str, Key]:
    """Return the keys of a JWKS that may verify tokens; the log names those that are left out. Raises `Unusable`."""
    try:
        entries = json.loads(text)["keys"]
        entries = [entry for entry in entries if isinstance(entry, dict)]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise Unusable("it is not a JWKS") from None
    keys: dict[str, Key] = {}
    twice = set()
    for entry in entries:
        kid = entry.get("kid")
        try:
            key = _key(entry)
        except Unusable as error:
            _log.warning("COURSE_TOKEN_KEYS: key %.40r is left out: %s", kid, error)
            continue
        if kid in keys:
            twice.add(kid)
        keys[kid] = key
    for kid in twice:
        _log.warning("COURSE_TOKEN_KEYS: key %.40r is left out: it is there twice", kid)
        del keys[kid]
    if not keys:
        raise Unusable("it has no key that can be used")
    return keys


def _key(entry: Mapping[str, Any]) -> Key:
    if not isinstance(entry.get("kid"), str) or not entry["kid"]:
        raise Unusable("it has no id")
    if "d" in entry or entry.get("kty") == "oct":
        raise Unusable("it is not a public key")
    if entry.get("use", "sig") != "sig":
        raise Unusable("it is not for signatures")
    try:
        key = _loaded(entry)
    except Unusable:
        raise
    except Exception:  # a parser has many names for what it does not like
        raise Unusable("it cannot be read") from None
    if entry.get("alg", key.algorithm) != key.algorithm:
        raise Unusable(f"it is for another algorithm than {key.algorithm}")
    return key


def _loaded(entry: Mapping[str, Any]) -> Key:
    text = json.dumps(entry)
    match entry.get("kty"), entry.get("crv"):
        case "RSA", _:
            public = RSAAlgorithm.from_jwk(text)
            if not isinstance(public, rsa.RSAPublicKey) or public.key_size < _MIN_RSA_BITS:
                raise Unusable(f"it has less than {_MIN_RSA_BITS} bits")
            return Key("RS256", public)
        case "EC", "P-256":
            curve = ECAlgorithm.from_jwk(text)
            assert isinstance(curve, ec.EllipticCurvePublicKey)
            return Key("ES256", curve)
        case "OKP", "Ed25519":
            edwards = OKPAlgorithm.from_jwk(text)
            assert isinstance(edwards, ed25519.Ed25519PublicKey)
            return Key("EdDSA", edwards)
    raise Unusable("it is not of RS256, ES256 or EdDSA")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        """Follow none: the keys come from where the operator says."""


def _body(response: Any) -> bytes:  # noqa: ANN401  # urllib has no name for it
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    body = b""
    while chunk := response.read1(1 << 14):
        body += chunk
        if len(body) > _MAX_BYTES:
            raise Unusable("it is too long")
        if time.monotonic() > deadline:
            raise TimeoutError
    return body
