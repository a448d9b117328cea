"""The hosts that a PostgreSQL URL names, one or several, in the form of libpq or of SQLAlchemy."""

import re
from dataclasses import dataclass

from sqlalchemy.engine import URL, make_url

# libpq's form of several hosts, which SQLAlchemy does not read: postgresql://user@one:5432,two:5432/name
_SEVERAL = re.compile(
    r"(?P<scheme>[^:/?#]+://)(?P<user>[^/?#@]*@)?(?P<hosts>[^/?#@]*,[^/?#@]*)(?P<rest>[/?#].*|$)", re.S
)


@dataclass(frozen=True, slots=True)
class Host:
    """A host, or the folder of a Unix socket; empty: libpq's default."""

    name: str
    port: int | None


def parse_url(text: str) -> URL:
    """Parse a database URL; libpq's form of several hosts becomes SQLAlchemy's. Raises ArgumentError, ValueError."""
    several = _SEVERAL.fullmatch(text)
    if not several:
        return make_url(text)
    url = make_url(f"{several['scheme']}{several['user'] or ''}{several['rest']}")
    if "host" in url.query or "port" in url.query:
        raise ValueError
    return url.update_query_pairs([("host", host) for host in several["hosts"].split(",")])


def hosts_of(url: URL) -> list[Host]:
    """Return the hosts of a URL in their order. Raises ValueError if a port is none."""
    names = _values(url, "host") or ([url.host] if url.host else [])
    ports = [int(port) for port in _values(url, "port")]
    if len(ports) > 1 and len(ports) != len(names):
        raise ValueError
    found = []
    for index, name in enumerate(names):
        host = _host(name)
        if host.port is None and (ports or url.port):
            host = Host(host.name, ports[index if len(ports) > 1 else 0] if ports else url.port)
        found.append(host)
    return found or [Host("", ports[0] if ports else url.port)]


def _values(url: URL, name: str) -> list[str]:
    """Return the values of an option, which may be given several times or with commas."""
    value = url.query.get(name, ())
    values = [value] if isinstance(value, str) else value
    return [part for each in values for part in each.split(",") if part]


def _host(text: str) -> Host:
    if text.startswith("/"):
        return Host(text, None)
    if text.startswith("["):
        name, _, port = text[1:].partition("]")
        port = port.removeprefix(":")
    elif text.count(":") > 1:  # an IPv6 address without a port
        name, port = text, ""
    else:
        name, _, port = text.partition(":")
    return Host(name, int(port) if port else None)
