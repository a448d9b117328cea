"""The settings: every `COURSE_*` variable, checked, in one frozen class."""

import difflib
import ipaddress
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError

from course_service.environment import DEFAULT_GRPC_ADDRESS, PREFIX, course_variables
from course_service.startup import StartupError
from course_service.store.hosts import hosts_of, parse_url

DEVELOPMENT_SECRET = "for-development-only"  # noqa: S105  # it is no secret
"""Everybody knows it, so everybody can make page tokens; the service warns of it in the log."""


class SettingsError(StartupError):
    """A `COURSE_*` variable is unknown or has an unusable value; the message names it, never its value."""


def _address(text: str) -> str:
    host, separator, port = text.rpartition(":")
    if not (separator and host and port.isascii() and port.isdigit() and int(port) <= 65_535):
        raise ValueError("must be HOST:PORT, such as 127.0.0.1:50051 or [::1]:50051")
    return text


def is_loopback(address: str) -> bool:
    """Whether nobody but this machine reaches an address, `HOST:PORT`. Of names, `localhost` alone is known to."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _optional_address(text: str) -> str:
    return _address(text) if text else text


def _database_url(text: str) -> str:
    try:
        url = parse_url(text)
        hosts_of(url)
    except (ArgumentError, ValueError):
        raise ValueError(
            "must be a URL such as sqlite:///var/course.db, postgresql://user:password@host/name"
            " or postgresql://user:password@host1:5432,host2:5432/name"
        ) from None
    if url.drivername == "sqlite":
        if not url.database or url.database == ":memory:":
            raise ValueError("must name a file, such as sqlite:///var/course.db; a database in memory keeps nothing")
    elif url.drivername not in {"postgresql", "postgresql+psycopg2"}:
        raise ValueError("must begin with sqlite:/// or postgresql://")
    return text


Address = Annotated[str, AfterValidator(_address)]
OptionalAddress = Annotated[str, AfterValidator(_optional_address)]
DatabaseUrl = Annotated[str, AfterValidator(_database_url)]


class Settings(BaseModel):
    """How this process of the service runs; each field is the variable `COURSE_<FIELD>`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    database_url: DatabaseUrl = Field("sqlite:///var/course.db", repr=False)
    """`sqlite:///FILE` (relative to the working directory) or `postgresql://USER:PASSWORD@HOST:PORT/NAME`."""
    grpc_address: Address = DEFAULT_GRPC_ADDRESS
    """Where gRPC listens, `HOST:PORT`; port 0 takes a free one."""
    http_address: OptionalAddress = "127.0.0.1:8080"
    """Where HTTP listens, `HOST:PORT`; empty turns HTTP off."""
    health_address: OptionalAddress = ""
    """Where a small server has the health of the process for probes, by gRPC without TLS; empty turns it off."""
    database_session_settings: bool = True
    """Ask PostgreSQL for time limits and UTC when connecting; PgBouncer refuses that, so there they go on the role."""
    page_token_secret: Annotated[str, Field(min_length=16)] = Field(DEVELOPMENT_SECRET, repr=False)
    """Signs the page tokens of lists; all replicas must have the same, and nobody else."""
    threads: Annotated[int, Field(ge=1, le=64)] = 8
    """Calls worked on at once by gRPC, and as many by HTTP; each has a database connection."""
    max_waiting: Annotated[int, Field(ge=1, le=100_000)] = 1_000
    """Calls that may wait for a thread by gRPC, and as many by HTTP; more are refused at once."""
    max_connections: Annotated[int, Field(ge=1, le=100_000)] = 2_000
    """How many connections gRPC takes at once, and as many HTTP."""
    max_connection_age_seconds: Annotated[float, Field(ge=1, le=86_400)] = 300.0
    """After how long callers by gRPC are asked to connect anew, so that they spread over new replicas."""
    drain_seconds: Annotated[float, Field(ge=0, le=300)] = 5.0
    """How long the service goes on serving after SIGTERM while it reports NOT_SERVING, so that callers can leave."""
    tls_certificate_file: str = ""
    """TLS on the ports of gRPC and HTTP: the certificate and those that lead to its authority, as PEM."""
    tls_key_file: str = ""
    """The certificate's key, as PEM."""
    tls_client_ca_file: str = ""
    """The authorities whose clients may connect, as PEM. If it is set, every client has to show a certificate."""
    token_issuer: str = ""
    """Who makes the tokens that callers show: the `iss` of a token."""
    token_audience: str = ""
    """Whom the tokens are for: the `aud` of a token."""
    token_keys: str = ""
    """The keys that tokens are signed with: a file or an https URL of a JWKS."""
    policy_file: str = ""
    """Who may what, as TOML."""
    reflection: bool = True
    """Let readers ask for the contract by gRPC; grpcurl and buf curl do."""
    insecure_plaintext: bool = False
    """Listen without TLS where other machines reach the ports."""
    insecure_no_auth: bool = False
    """Let in everybody where other machines reach the ports."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """The lowest severity that is logged."""

    @property
    def authenticates(self) -> bool:
        """Whether callers have to say who they are."""
        return bool(self.tls_client_ca_file or self.token_keys)

    @model_validator(mode="after")
    def _is_whole_and_closed(self) -> "Settings":
        """Refuse what is configured by half, and what is open to other machines without being said aloud."""
        if problems := list(self._problems()):
            raise ValueError("; ".join(problems))
        return self

    def _problems(self) -> Iterator[str]:
        tls = bool(self.tls_certificate_file)
        tokens = [self.token_issuer, self.token_audience, self.token_keys]
        if tls != bool(self.tls_key_file):
            yield "COURSE_TLS_CERTIFICATE_FILE and COURSE_TLS_KEY_FILE go together; set both or none"
        if self.tls_client_ca_file and not tls:
            yield "COURSE_TLS_CLIENT_CA_FILE: needs COURSE_TLS_CERTIFICATE_FILE and COURSE_TLS_KEY_FILE"
        if any(tokens) and not all(tokens):
            yield "COURSE_TOKEN_ISSUER, COURSE_TOKEN_AUDIENCE and COURSE_TOKEN_KEYS go together; set all or none"
        if self.tls_client_ca_file and self.token_keys:
            yield "COURSE_TLS_CLIENT_CA_FILE and COURSE_TOKEN_KEYS: a call has one credential; set one of them"
        if self.authenticates and not self.policy_file:
            yield "COURSE_POLICY_FILE: has to say who may what"
        if self.policy_file and not self.authenticates:
            yield "COURSE_POLICY_FILE: nobody has an identity; set COURSE_TLS_CLIENT_CA_FILE or COURSE_TOKEN_KEYS"
        addresses = {"COURSE_GRPC_ADDRESS": self.grpc_address, "COURSE_HTTP_ADDRESS": self.http_address}
        is_open = [name for name, address in addresses.items() if address and not is_loopback(address)]
        where = f"{' and '.join(is_open)}: other machines reach"
        if is_open and not tls and not self.insecure_plaintext:
            yield f"{where} what is not encrypted; set COURSE_TLS_CERTIFICATE_FILE, or COURSE_INSECURE_PLAINTEXT=true"
        if is_open and not self.authenticates and not self.insecure_no_auth:
            yield (
                f"{where} what is open to everybody; set COURSE_TLS_CLIENT_CA_FILE or COURSE_TOKEN_KEYS,"
                " or COURSE_INSECURE_NO_AUTH=true"
            )

    @property
    def database(self) -> URL:
        """The database's URL, parsed, with the driver that the service uses."""
        url = parse_url(self.database_url)
        return url if url.drivername == "sqlite" else url.set(drivername="postgresql+psycopg2")


def load_settings() -> Settings:
    """Read the environment, or raise `SettingsError` with one line that names everything unusable."""
    try:
        return Settings.model_validate(course_variables())
    except ValidationError as error:
        faults = [_fault(details) for details in error.errors(include_url=False, include_input=False)]
        raise SettingsError("; ".join(faults)) from None


def _fault(details: Mapping[str, Any]) -> str:
    """Say what is wrong with a variable. Its value is not repeated, for it may hold a password."""
    if not details["loc"]:
        return str(details["msg"].removeprefix("Value error, "))
    field = str(details["loc"][0])
    problem = details["msg"].removeprefix("Value error, ")
    if details["type"] == "extra_forbidden":
        nearest = difflib.get_close_matches(field, Settings.model_fields, n=1, cutoff=0.0)[0]
        problem = f"there is no such setting; the nearest is {PREFIX}{nearest.upper()}"
    return f"{PREFIX}{field.upper()}: {problem}"
