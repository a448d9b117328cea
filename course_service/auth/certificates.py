"""What a client's certificate says of its owner."""

import functools
import re
import time
from dataclasses import dataclass

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from course_service.auth.errors import CertificateInvalid

MAX_NAME_LENGTH = 256
_SPIFFE = re.compile(r"spiffe://[a-z0-9._-]+(/[a-zA-Z0-9._-]+)*")
_CLIENT = {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}
_PEM = b"-----BEGIN"


@dataclass(frozen=True, slots=True)
class _Owner:
    identity: str
    """Empty if the certificate has no usable name, or several."""
    not_before: float
    not_after: float


def identity_of(certificate: bytes) -> str:
    """Return the identity that a certificate shows, as PEM or DER: its `spiffe://` URI, `dns:…` or `cn:…`.

    Whether it is signed by a known authority has been checked when the connection was made; its time is checked again
    here, since a connection may outlast it. Raises `CertificateInvalid`.
    """
    owner = _owner(certificate)
    if not owner.identity or not owner.not_before <= time.time() <= owner.not_after:
        raise CertificateInvalid
    return owner.identity


@functools.lru_cache(maxsize=1024)
def _owner(certificate: bytes) -> _Owner:
    try:
        load = x509.load_pem_x509_certificate if certificate.startswith(_PEM) else x509.load_der_x509_certificate
        found = load(certificate)
        identity = _identity(found) if _is_for_clients(found) else ""
        not_before, not_after = found.not_valid_before_utc.timestamp(), found.not_valid_after_utc.timestamp()
    except Exception:  # a parser has many names for what it does not like
        return _Owner("", 0, 0)
    return _Owner(identity, not_before, not_after)


def _is_for_clients(certificate: x509.Certificate) -> bool:
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return not _CLIENT.isdisjoint(usage)


def _identity(certificate: x509.Certificate) -> str:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names = x509.SubjectAlternativeName([])
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    hosts = names.get_values_for_type(x509.DNSName)
    common = [str(each.value) for each in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if uris:
        return uris[0] if len(uris) == 1 and _SPIFFE.fullmatch(uris[0]) and len(uris[0]) <= MAX_NAME_LENGTH else ""
    for prefix, candidates in (("dns", hosts), ("cn", common)):
        if candidates:
            return f"{prefix}:{candidates[0]}" if len(candidates) == 1 and _is_usable(candidates[0]) else ""
    return ""


def _is_usable(name: str) -> bool:
    return 0 < len(name) <= MAX_NAME_LENGTH and name.isprintable() and name == name.strip()
