"""The settings: every `COURSE_*` variable, checked, in one frozen class."""

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError

from course_service.environment import DEFAULT_GRPC_ADDRESS, PREFIX, course_variables
from course_service.startup import StartupError
from course_service.store.hosts import hosts_of, parse_url

DEVELOPMENT_SECRET = "for-development-only"  # noqa: S105  # it is no secret
"""Everybody knows it, so everybody can make page tokens; the service warns of it in the log."""


MIN_SECRET_LENGTH = 16


class SettingsError(StartupError):
    """A `COURSE_*` variable is unknown or has an unusable value; the message names it, never its value."""


def _address(text: str) -> str:
    host, separator, port = text.rpartition(":")
    if not (separator and host and port.isascii() and port.isdigit() and int(port) <= 65_535):
        raise ValueError("must be HOST:PORT, such as 127.0.0.1:50051 or [::1]:50051")
    return text


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


def _optional_url(text: str) -> str:
    if not text:
        return text
    try:
        url = urlsplit(text)
        is_usable = url.scheme in {"http", "https"} and url.hostname and url.port != 0
    except ValueError:
        is_usable = False
    if not is_usable or url.query or url.fragment or not text.isascii() or not text.isprintable():
        raise ValueError("must be a URL such as http://127.0.0.1:4318")
    return text


Address = Annotated[str, AfterValidator(_address)]
OptionalAddress = Annotated[str, AfterValidator(_optional_address)]
OptionalUrl = Annotated[str, AfterValidator(_optional_url)]
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
    metrics_address: OptionalAddress = ""
    """Where Prometheus reads metrics, at `/metrics`, by HTTP without TLS; empty turns them off."""
    otlp_endpoint: OptionalUrl = Field("", repr=False)
    """The OTLP collector that traces are sent to, by HTTP, such as http://127.0.0.1:4318; empty turns them off."""
    trace_sample_ratio: Annotated[float, Field(ge=0, le=1)] = 1.0
    """How many of the traces that begin here are recorded; in the others the caller has decided."""
    database_session_settings: bool = True
    """Ask PostgreSQL for time limits and UTC when connecting; PgBouncer refuses that, so there they go on the role."""
    search_index: Literal["keep", "build", "drop"] = "keep"
    """What `migrate` does, besides, about the index that makes searches for words fast on PostgreSQL."""
    page_token_secret: Annotated[str, Field(min_length=MIN_SECRET_LENGTH)] = Field(DEVELOPMENT_SECRET, repr=False)
    """Signs the page tokens of lists; all replicas must have the same, and nobody else."""
    page_token_secret_file: str = ""
    """Has such secrets instead, one a line: the first signs, all are taken. It is read again when it changes."""
    threads: Annotated[int, Field(ge=1, le=64)] = 8
    """Calls worked on at once by gRPC, and as many by HTTP; each has a database connection."""
    max_waiting: Annotated[int, Field(ge=1, le=100_000)] = 1_000
    """Calls that may wait for a thread by gRPC, and as many by HTTP; more are refused at once."""
    max_connections: Annotated[int, Field(ge=1, le=100_000)] = 2_000
    """How many connections gRPC takes at once, and as many HTTP."""
    max_connection_age_seconds: Annotated[float, Field(ge=1, le=86_400)] = 300.0
    """After how long callers are asked to connect anew, so that they spread over new replicas."""
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
    log_format: Literal["auto", "text", "json"] = "auto"
    """How a line of the log is written; `auto`: as text on a terminal, else as a JSON object."""

    @property
    def authenticates(self) -> bool:
        """Whether callers have to say who they are."""
        return bool(self.tls_client_ca_file or self.token_keys)

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
    field = str(details["loc"][0])
    problem = details["msg"].removeprefix("Value error, ")
    if details["type"] == "extra_forbidden":
        nearest = difflib.get_close_matches(field, Settings.model_fields, n=1, cutoff=0.0)[0]
        problem = f"there is no such setting; the nearest is {PREFIX}{nearest.upper()}"
    return f"{PREFIX}{field.upper()}: {problem}"
