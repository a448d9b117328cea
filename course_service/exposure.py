"""Who may reach the service, checked before it listens: nothing is open to other machines unless that is said aloud."""

import ipaddress
from collections.abc import Iterator

from course_service.settings import Settings, SettingsError


def check_exposure(settings: Settings) -> None:
    """Raise `SettingsError` if TLS or authentication is configured by half, or missing where others reach a port."""
    if problems := list(_problems(settings)):
        raise SettingsError("; ".join(problems))


def _problems(settings: Settings) -> Iterator[str]:
    tls = bool(settings.tls_certificate_file)
    tokens = [settings.token_issuer, settings.token_audience, settings.token_keys]
    if tls != bool(settings.tls_key_file):
        yield "COURSE_TLS_CERTIFICATE_FILE and COURSE_TLS_KEY_FILE go together; set both or none"
    if settings.tls_client_ca_file and not tls:
        yield "COURSE_TLS_CLIENT_CA_FILE: needs COURSE_TLS_CERTIFICATE_FILE and COURSE_TLS_KEY_FILE"
    if any(tokens) and not all(tokens):
        yield "COURSE_TOKEN_ISSUER, COURSE_TOKEN_AUDIENCE and COURSE_TOKEN_KEYS go together; set all or none"
    if settings.tls_client_ca_file and settings.token_keys:
        yield "COURSE_TLS_CLIENT_CA_FILE and COURSE_TOKEN_KEYS: a call has one credential; set one of them"
    if settings.authenticates and not settings.policy_file:
        yield "COURSE_POLICY_FILE: has to say who may what"
    if settings.policy_file and not settings.authenticates:
        yield "COURSE_POLICY_FILE: nobody has an identity; set COURSE_TLS_CLIENT_CA_FILE or COURSE_TOKEN_KEYS"
    addresses = {"COURSE_GRPC_ADDRESS": settings.grpc_address, "COURSE_HTTP_ADDRESS": settings.http_address}
    is_open = [name for name, address in addresses.items() if address and not is_loopback(address)]
    where = f"{' and '.join(is_open)}: other machines reach"
    if is_open and not tls and not settings.insecure_plaintext:
        yield f"{where} what is not encrypted; set COURSE_TLS_CERTIFICATE_FILE, or COURSE_INSECURE_PLAINTEXT=true"
    if is_open and not settings.authenticates and not settings.insecure_no_auth:
        yield (
            f"{where} what is open to everybody; set COURSE_TLS_CLIENT_CA_FILE or COURSE_TOKEN_KEYS,"
            " or COURSE_INSECURE_NO_AUTH=true"
        )


def is_loopback(address: str) -> bool:
    """Whether nobody but this machine reaches an address, `HOST:PORT`. Of names, `localhost` alone is known to."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
