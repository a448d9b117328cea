"""What a certificate says of its owner, whatever is in it."""

import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from course_service.auth.certificates import MAX_NAME_LENGTH, identity_of
from course_service.auth.errors import CertificateInvalid
from tests.support.certificates import Authority
from tests.support.fuzzing import fuzzed

KEY = ed25519.Ed25519PrivateKey.generate()
NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


def certificate(names: list[str], uris: list[str], hosts: list[str]) -> bytes:
    """A certificate with just these names."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in names])
    builder = x509.CertificateBuilder(subject, subject, KEY.public_key(), 1, NOW - DAY, NOW + DAY)
    others: list[x509.GeneralName] = [
        *map(x509.UniformResourceIdentifier, uris),
        *map(x509.DNSName, hosts),
        x509.RFC822Name("ann@example.com"),
    ]
    builder = builder.add_extension(x509.SubjectAlternativeName(others), critical=False)
    return builder.sign(KEY, None).public_bytes(Encoding.DER)


def identity(shown: bytes) -> str | None:
    try:
        return identity_of(shown)
    except CertificateInvalid:
        return None


@pytest.mark.parametrize(
    ("names", "uris", "hosts", "expected"),
    [
        (["ann"], [], [], "cn:ann"),
        (["ann"], [], ["a.internal"], "dns:a.internal"),
        (["ann"], ["spiffe://prod.example/a"], ["a.internal"], "spiffe://prod.example/a"),
        (["ann", "bob"], [], [], None),
        ([], [], [], None),
        (["ann"], ["spiffe://prod.example/a", "spiffe://prod.example/b"], [], None),
        (["ann"], ["spiffe://prod.example/a", "https://prod.example"], [], None),
        (["ann"], ["spiffe://"], [], None),
        (["ann"], ["spiffe://prod.example/a?b"], [], None),
        (["ann"], ["SPIFFE://prod.example/a"], [], None),
        (["ann"], [], ["a", "b"], None),
        (["spiffe://prod.example/a"], [], [], "cn:spiffe://prod.example/a"),
        (["a\u200b"], [], [], None),
        ([" ann"], [], [], None),
    ],
)
def test_the_first_kind_of_name_that_there_is_has_to_be_there_once(
    names: list[str], uris: list[str], hosts: list[str], expected: str | None
) -> None:
    assert identity(certificate(names, uris, hosts)) == expected


def test_pem_and_der_say_the_same() -> None:
    pem = Authority().client("ann").certificate
    der = x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
    assert identity(pem) == identity(der) == "cn:ann"


NAME = st.text(st.characters(codec="utf-8"), min_size=1, max_size=16)  # of 64 bytes at most
ASCII = st.text(st.characters(codec="ascii"), max_size=300)


@fuzzed
@given(st.lists(NAME, max_size=2), st.lists(ASCII, max_size=2), st.lists(ASCII, max_size=2))
def test_whatever_names_a_certificate_has_its_identity_fits_into_a_line(
    names: list[str], uris: list[str], hosts: list[str]
) -> None:
    found = identity(certificate(names, uris, hosts))
    if found is not None:
        assert found.isprintable()
        assert len(found) <= MAX_NAME_LENGTH + len("dns:")
        assert found.startswith(("spiffe://", "dns:", "cn:"))


GOOD = certificate(["ann"], ["spiffe://prod.example/a"], [])


@fuzzed
@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255), st.binary(max_size=20))
def test_bytes_that_are_no_certificate_are_refused_as_one(place: int, byte: int, more: bytes) -> None:
    altered = GOOD[:place] + bytes([byte]) + GOOD[place + 1 :]
    for shown in (altered, altered + more, GOOD[:place], more):
        found = identity(shown)
        assert found is None or found.isprintable()
