"""TLS of both faces, from files that may be replaced while the service runs."""

import ssl
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from course_service.auth.watched import Unusable, Watched

_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"


@dataclass(frozen=True)
class _Material:
    for_grpc: grpc.ServerCertificateConfiguration
    for_http: ssl.SSLContext
    not_after: float


class Tls:
    """The certificate and key that the service shows, and the authorities whose clients it lets in, if any.

    A connection keeps what it was made with.
    """

    def __init__(self, certificate_file: str, key_file: str, client_ca_file: str = "") -> None:
        self._certificate_file, self._key_file, self._client_ca_file = certificate_file, key_file, client_ca_file
        paths = list(filter(None, (certificate_file, key_file, client_ca_file)))
        self._files = Watched("TLS", paths, self._load)
        self.asks_clients = bool(client_ca_file)
        """Whether clients have to show a certificate."""

    @property
    def not_after(self) -> float:
        """When the certificate that is shown now ends, by `time.time()`."""
        return self._files.current.not_after

    def for_grpc(self) -> grpc.ServerCredentials:
        """Return what gRPC listens with. It asks at every handshake whether there is something new.

        If there is, grpc's core frees what handshakes that begin at the same moment may still read
        (https://github.com/grpc/grpc/issues/36693). So the same files must not be said to be new each time.
        """
        shown = self._files.current.for_grpc

        def newer() -> grpc.ServerCertificateConfiguration | None:
            nonlocal shown
            newest = self._files.current.for_grpc
            if newest is shown:
                return None
            shown = newest
            return newest

        return grpc.dynamic_ssl_server_credentials(
            shown,
            newer,  # type: ignore[arg-type]  # its types leave out the None that it is documented to take
            require_client_authentication=self.asks_clients,
        )

    def for_http(self) -> ssl.SSLContext:
        """Return what HTTP listens with. Every connection is made by the context of the newest files.

        So a session that a client has kept ends with the files that it was made with: it is known to one context only.
        """
        return _Newest(self._files)

    def close(self) -> None:
        """Look no more for changes of the files."""
        self._files.close()

    def _load(self, contents: Sequence[bytes]) -> _Material:
        certificates, key, *authorities = contents
        chain = _certificates(certificates, self._certificate_file)
        if Path(self._key_file).stat().st_mode & stat.S_IROTH:
            raise Unusable(f"everybody on this machine may read {self._key_file}")
        try:
            public = load_pem_private_key(key, None).public_key()
        except (ValueError, TypeError):
            raise Unusable(f"{self._key_file} is not a private key as PEM without a password") from None
        if _bytes(public) != _bytes(chain[0].public_key()):
            raise Unusable(f"the key of {self._key_file} is not that of the certificate")
        not_after = chain[0].not_valid_after_utc
        if not_after <= datetime.now(UTC):
            raise Unusable(f"the certificate of {self._certificate_file} has expired")
        if chain[0].not_valid_before_utc > datetime.now(UTC):
            raise Unusable(f"the time of the certificate of {self._certificate_file} has not begun")
        try:
            context = _context(asks_clients=bool(authorities))
            context.load_cert_chain(self._certificate_file, self._key_file)
            for each in _certificates(authorities[0], self._client_ca_file) if authorities else ():
                context.load_verify_locations(cadata=each.public_bytes(Encoding.DER))
        except OSError:  # they are being replaced
            raise Unusable("the certificate and its key do not go together") from None
        roots = authorities[0] if authorities else None
        pair = grpc.ssl_server_certificate_configuration([(key, certificates)], root_certificates=roots)
        return _Material(pair, context, not_after.timestamp())


class _Newest(ssl.SSLContext):
    """Has asyncio's connections made by another context: that of the newest files."""

    _files: Watched[_Material]

    def __new__(cls, files: Watched[_Material]) -> Self:
        self = super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)
        self._files = files
        return self

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:  # noqa: ANN401  # passed on as they are
        """Make one side of a connection."""
        return self._files.current.for_http.wrap_bio(*arguments, **options)


def _context(*, asks_clients: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.set_alpn_protocols(["http/1.1"])
    if asks_clients:
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # an authority below another one will do, as for gRPC
    return context


def _certificates(pem: bytes, file: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise Unusable(f"{file} has no certificates as PEM") from None


def _bytes(public_key: object) -> bytes:
    return public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined,no-any-return]  # every kind has it
