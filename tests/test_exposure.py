"""What starts, and what is said instead: every combination of addresses, TLS, tokens, policy and what is said aloud."""

import itertools
import re
import subprocess
import sys

import pytest

from course_service.exposure import check_exposure, is_loopback
from course_service.settings import Settings, SettingsError
from tests.support.processes import ROOT, environment_of

TLS: dict[str, dict[str, str]] = {
    "no TLS": {},
    "half of TLS": {"tls_certificate_file": "c"},
    "TLS": {"tls_certificate_file": "c", "tls_key_file": "k"},
    "client certificates": {"tls_certificate_file": "c", "tls_key_file": "k", "tls_client_ca_file": "a"},
    "client certificates without TLS": {"tls_client_ca_file": "a"},
}
TOKENS: dict[str, dict[str, str]] = {
    "no tokens": {},
    "half of tokens": {"token_issuer": "i", "token_keys": "f"},
    "tokens": {"token_issuer": "i", "token_audience": "a", "token_keys": "f"},
}
POLICY: dict[str, dict[str, str]] = {"no policy": {}, "policy": {"policy_file": "p"}}
ADDRESSES = {"loopback": "127.0.0.1:1", "everywhere": "0.0.0.0:1"}
ALOUD = [set[str](), {"plaintext"}, {"no_auth"}, {"plaintext", "no_auth"}]


def expected(address: str, tls: str, tokens: str, policy: str, aloud: set[str]) -> set[str]:
    """The settings that each line begins with, said once more and otherwise than in the service."""
    lines = set()
    identities = "client" in tls or "tokens" in tokens.removeprefix("no tokens")
    if tls == "half of TLS":
        lines.add("COURSE_TLS_CERTIFICATE_FILE and COURSE_TLS_KEY_FILE go together")
    if tls == "client certificates without TLS":
        lines.add("COURSE_TLS_CLIENT_CA_FILE: needs")
    if tokens == "half of tokens":
        lines.add("COURSE_TOKEN_ISSUER, COURSE_TOKEN_AUDIENCE and COURSE_TOKEN_KEYS go together")
    if "client" in tls and tokens != "no tokens":
        lines.add("COURSE_TLS_CLIENT_CA_FILE and COURSE_TOKEN_KEYS: a call has one credential")
    if identities and policy == "no policy":
        lines.add("COURSE_POLICY_FILE: has to say")
    if not identities and policy == "policy":
        lines.add("COURSE_POLICY_FILE: nobody has an identity")
    if address == "everywhere" and tls in {"no TLS", "client certificates without TLS"} and "plaintext" not in aloud:
        lines.add("COURSE_GRPC_ADDRESS: other machines reach what is not encrypted")
    if address == "everywhere" and not identities and "no_auth" not in aloud:
        lines.add("COURSE_GRPC_ADDRESS: other machines reach what is open to everybody")
    return lines


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("tls", TLS)
@pytest.mark.parametrize("tokens", TOKENS)
def test_only_what_is_whole_and_closed_or_said_aloud_starts(address: str, tls: str, tokens: str) -> None:
    for policy, aloud in itertools.product(POLICY, ALOUD):
        settings = Settings.model_validate(
            {
                "grpc_address": ADDRESSES[address],
                **TLS[tls],
                **TOKENS[tokens],
                **POLICY[policy],
                **{f"insecure_{each}": "true" for each in aloud},
            }
        )
        said = ""
        try:
            check_exposure(settings)
        except SettingsError as error:
            said = str(error)
        wanted = expected(address, tls, tokens, policy, aloud)
        assert {line for line in wanted if line not in said} == set(), (policy, aloud, said)
        assert len(re.findall("(^|; )COURSE_", said)) == len(wanted), (policy, aloud, said)


@pytest.mark.parametrize(
    ("address", "known"),
    [
        ("127.0.0.1:1", True),
        ("127.8.9.10:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("10.0.0.7:1", False),
        ("localhost.example:1", False),
        ("course:1", False),
    ],
)
def test_an_address_of_this_machine_alone_is_known_as_such(address: str, known: bool) -> None:  # noqa: FBT001  # a table
    assert is_loopback(address) is known


@pytest.mark.parametrize("address", ["COURSE_GRPC_ADDRESS", "COURSE_HTTP_ADDRESS"])
def test_a_service_that_would_be_open_ends_with_one_line(address: str) -> None:
    environment = environment_of(**{address: "0.0.0.0:0"})
    ended = subprocess.run(
        [sys.executable, "-m", "course_service"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"course-service: {address}: other machines reach what is not encrypted; ")
    assert ended.stdout == ""
