"""Who calls: the step of the guard that reads a certificate or a token."""

from typing import Protocol

from course_service.auth.certificates import identity_of
from course_service.auth.errors import CredentialsAmbiguous, CredentialsMissing, TokenMalformed
from course_service.auth.policy import is_public
from course_service.call import ANONYMOUS, Call
from course_service.guard.steps import Credentials

_SCHEME = "bearer "


class Verifier(Protocol):
    """Says whose a token is."""

    def subject(self, token: str) -> str:
        """Return the subject of a token, or raise one of the errors of tokens."""


def by_certificate(call: Call, credentials: Credentials) -> str:
    """Return the identity of the client's certificate. Raises the errors of certificates and credentials."""
    if is_public(call.method):
        return ANONYMOUS
    certificate = credentials.certificate()
    if certificate is None:
        raise CredentialsMissing
    if credentials.values("authorization"):
        raise CredentialsAmbiguous
    return identity_of(certificate)


class ByToken:
    """Returns the identity of the call's token. Raises the errors of tokens and credentials."""

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier

    def __call__(self, call: Call, credentials: Credentials) -> str:
        """Return the identity of the call's token."""
        if is_public(call.method):
            return ANONYMOUS
        headers = credentials.values("authorization")
        if not headers:
            raise CredentialsMissing
        if len(headers) > 1:
            raise CredentialsAmbiguous
        header = headers[0]
        if header[: len(_SCHEME)].lower() != _SCHEME:
            raise TokenMalformed
        return f"jwt:{self._verifier.subject(header[len(_SCHEME) :])}"
