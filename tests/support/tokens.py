"""An issuer of tokens, right ones and wrong ones."""

import json
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

ISSUER = "https://issuer.example"
AUDIENCE = "course-service"


def new_key(algorithm: str = "ES256", *, bits: int = 2048) -> Any:
    if algorithm == "ES256":
        return ec.generate_private_key(ec.SECP256R1())
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def jwk(key: Any, kid: str, **members: Any) -> dict[str, Any]:
    """A key of a JWKS; of a private key it is the private one."""
    kinds = {"RSA": RSAAlgorithm, "Ell": ECAlgorithm, "EC": ECAlgorithm, "Ed2": OKPAlgorithm}
    made: Any = next(each for name, each in kinds.items() if name in type(key).__name__)
    return {**json.loads(made.to_jwk(key)), "kid": kid, **members}


def jwks(*keys: Mapping[str, Any]) -> bytes:
    return json.dumps({"keys": keys}).encode()


class Issuer:
    """Makes tokens with one key."""

    def __init__(self, algorithm: str = "ES256", kid: str = "k1") -> None:
        self.algorithm = algorithm
        self.kid = kid
        self.key = new_key(algorithm)

    @property
    def public(self) -> dict[str, Any]:
        return jwk(self.key.public_key(), self.kid)

    def claims(self, **claims: Any) -> dict[str, Any]:
        """Good claims but for what is given; None leaves one out."""
        now = int(time.time())
        good = {"iss": ISSUER, "aud": AUDIENCE, "sub": "svc-enrol", "iat": now - 1, "exp": now + 300}
        return {name: value for name, value in {**good, **claims}.items() if value is not None}

    def token(self, headers: Mapping[str, Any] | None = None, **claims: Any) -> str:
        header = {"kid": self.kid, **(headers or {})}
        return jwt.encode(self.claims(**claims), self.key, self.algorithm, headers=header)

    def raw(self, header: str | Mapping[str, Any], payload: str | Mapping[str, Any]) -> str:
        """A token of any header and payload, well signed."""
        texts = [each if isinstance(each, str) else json.dumps(each) for each in (header, payload)]
        signed = ".".join(encoded(text.encode()) for text in texts)
        algorithm = jwt.get_algorithm_by_name(self.algorithm)
        return f"{signed}.{encoded(algorithm.sign(signed.encode(), self.key))}"


def encoded(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def decoded(part: str) -> bytes:
    return urlsafe_b64decode(part + "=" * (-len(part) % 4))
