"""Throw-away authorities and the certificates that they sign."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CLIENT, SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as PEM."""

    certificate: bytes
    key: bytes

    def write(self, folder: Path, name: str) -> tuple[str, str]:
        """Write both; returns their paths."""
        certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
        replace(key, self.key)
        replace(certificate, self.certificate)
        return str(certificate), str(key)


def replace(path: Path, content: bytes) -> None:
    """Put a file in the place of another in one step, for its owner alone."""
    new = path.with_suffix(".new")
    new.touch(mode=0o600)
    new.write_bytes(content)
    new.replace(path)


class Authority:
    """Signs certificates."""

    def __init__(self, name: str = "throw-away authority") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._builder(self._name, self._key, timedelta(days=1)).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        self.certificate = certificate.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)

    def server(self, *, days: float = 1) -> Pair:
        """Sign a certificate for this machine."""
        return self.issue("localhost", hosts=["localhost"], usage=SERVER, days=days, address="127.0.0.1")

    def client(
        self, common_name: str = "", *, uris: list[str] | None = None, hosts: list[str] | None = None, days: float = 1
    ) -> Pair:
        """Sign a certificate for a caller."""
        return self.issue(common_name, uris=uris, hosts=hosts, days=days)

    def issue(
        self,
        common_name: str,
        *,
        uris: list[str] | None = None,
        hosts: list[str] | None = None,
        usage: x509.ObjectIdentifier = CLIENT,
        days: float = 1,
        address: str = "",
    ) -> Pair:
        """Sign a certificate."""
        import ipaddress

        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else [])
        builder = self._builder(subject, key, timedelta(days=days))
        names: list[x509.GeneralName] = [
            *map(x509.UniformResourceIdentifier, uris or ()),
            *map(x509.DNSName, hosts or ()),
            *([x509.IPAddress(ipaddress.ip_address(address))] if address else ()),
        ]
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=not common_name)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)
        return Pair(certificate, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, life: timedelta) -> x509.CertificateBuilder:
        end = datetime.now(UTC) + life
        return x509.CertificateBuilder(
            issuer_name=self._name,
            subject_name=subject,
            public_key=key.public_key(),
            serial_number=x509.random_serial_number(),
            not_valid_before=min(datetime.now(UTC), end) - timedelta(days=2),
            not_valid_after=end,
        )
