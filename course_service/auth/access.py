"""All that decides who gets in, made of the settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from course_service.guard.steps import Authorise, Identify, anonymous, everybody

if TYPE_CHECKING:
    from course_service.auth.keys import KeySet
    from course_service.auth.tls import Tls
    from course_service.settings import Settings


@dataclass(frozen=True)
class Access:
    """TLS for what listens, and two steps for the guard."""

    tls: Tls | None = None
    identify: Identify = anonymous
    authorise: Authorise = everybody
    keys: KeySet | None = None
    """What tokens are verified with."""


def open_access(settings: Settings) -> Access:
    """Read the files that the settings name. Raises `StartupError`.

    Only what they ask for is loaded: cryptography would be a tenth of the memory of a service without any of it.
    """
    tls = None
    if settings.tls_certificate_file:
        from course_service.auth.tls import Tls

        tls = Tls(settings.tls_certificate_file, settings.tls_key_file, settings.tls_client_ca_file)
    if not settings.authenticates:
        return Access(tls)
    from course_service.auth.policy import Policy

    policy = Policy(settings.policy_file)
    if settings.tls_client_ca_file:
        from course_service.auth.identify import by_certificate

        return Access(tls, by_certificate, policy)
    from course_service.auth.identify import ByToken
    from course_service.auth.keys import KeySet
    from course_service.auth.tokens import Tokens

    keys = KeySet(settings.token_keys)
    return Access(tls, ByToken(Tokens(settings.token_issuer, settings.token_audience, keys)), policy, keys)
