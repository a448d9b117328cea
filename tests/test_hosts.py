"""Which hosts a database URL names, and to which of several the service connects."""

import contextlib
import resource
import socket
import time
from collections.abc import Iterator

import psycopg2
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from course_service.call import Call, deadline_after, working_on
from course_service.settings import Settings, SettingsError, load_settings
from course_service.store import faults
from course_service.store import postgresql_engine as postgresql
from course_service.store.hosts import Host, hosts_of, parse_url
from course_service.store.postgresql_engine import postgresql_engine
from tests.conftest import PostgresServer


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("postgresql://u:p@db/course", [Host("db", None)]),
        ("postgresql://u:p@db:6000/course", [Host("db", 6000)]),
        ("postgresql:///course", [Host("", None)]),
        ("postgresql:///course?host=/run/postgresql", [Host("/run/postgresql", None)]),
        ("postgresql://u:p@one,two:6000/course", [Host("one", None), Host("two", 6000)]),
        ("postgresql://one:1,two:2,three:3/course?sslmode=require", [Host("one", 1), Host("two", 2), Host("three", 3)]),
        ("postgresql://u:p%2C@[::1]:1,[::2]/course", [Host("::1", 1), Host("::2", None)]),
        ("postgresql://u:p@/course?host=one:1&host=two:2", [Host("one", 1), Host("two", 2)]),
        ("postgresql://u:p@/course?host=one,two&port=1,2", [Host("one", 1), Host("two", 2)]),
        ("postgresql://u:p@/course?host=one&host=two&port=7", [Host("one", 7), Host("two", 7)]),
    ],
)
def test_both_forms_of_several_hosts_are_understood(url: str, hosts: list[Host]) -> None:
    parsed = parse_url(url)
    assert hosts_of(parsed) == hosts
    assert parsed.database == "course"
    if ":p" in url:
        assert (parsed.username, (parsed.password or "")[:1]) == ("u", "p")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://one:x,two/course",
        "postgresql://one,two/course?host=three",
        "postgresql://u@/c?host=a,b&port=1,2,3",
    ],
)
def test_hosts_that_contradict_each_other_are_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COURSE_DATABASE_URL", url)
    with pytest.raises(SettingsError, match="COURSE_DATABASE_URL: must be a URL such as"):
        load_settings()


def test_the_password_of_several_hosts_is_kept() -> None:
    settings = Settings(database_url="postgresql://me:a%2Cb@one,two/course")
    assert settings.database.password == "a,b"
    assert settings.database.drivername == "postgresql+psycopg2"


@contextlib.contextmanager
def silent_server() -> Iterator[int]:
    """A server that accepts connections, as the kernel of a frozen one does, and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def engine_on(server: PostgresServer, *others: str) -> Engine:
    folder = server.url.query["host"]
    url = server.url.set(query={"host": (*others, str(folder))})
    return postgresql_engine(url, poolclass=NullPool)


def test_a_host_that_does_not_respond_is_left_for_the_next_and_asked_last_from_then_on(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "CONNECT_SECONDS", 0.3)
    with silent_server() as port:
        engine = engine_on(postgres_server, f"127.0.0.1:{port}")
        start = time.monotonic()
        engine.connect().close()
        first = time.monotonic() - start
        start = time.monotonic()
        engine.connect().close()
        assert 0.3 <= first < 1.5
        assert time.monotonic() - start < 0.3


def test_a_refused_connection_goes_on_to_the_next_host(postgres_server: PostgresServer) -> None:
    engine_on(postgres_server, "127.0.0.1:1").connect().close()


def test_of_several_hosts_none_that_is_read_only_is_taken(postgres_server: PostgresServer) -> None:
    with postgres_server.new_database() as url:
        postgres_server.execute(f"ALTER DATABASE {url.database} SET default_transaction_read_only = on")
        folder = str(url.query["host"])
        engine = postgresql_engine(url.set(query={"host": (folder, folder)}), poolclass=NullPool)
        with pytest.raises(OperationalError) as caught:
            engine.connect()
        assert faults.cause(caught.value) == "no host accepts writes (NoHostAcceptsWrites)"


def test_the_only_host_is_taken_even_if_it_is_read_only(postgres_server: PostgresServer) -> None:
    with postgres_server.new_database() as url:
        postgres_server.execute(f"ALTER DATABASE {url.database} SET default_transaction_read_only = on")
        postgresql_engine(url, poolclass=NullPool).connect().close()


# How long the driver waits


def test_a_statement_ends_at_the_calls_deadline_though_the_server_says_nothing(postgres_server: PostgresServer) -> None:
    engine = postgresql_engine(postgres_server.url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        start = time.monotonic()
        with working_on(Call(deadline=deadline_after(0.3))), pytest.raises(OperationalError) as caught:
            connection.execute(text("SELECT pg_sleep(4)"))
        assert 0.3 <= time.monotonic() - start < 1
        assert caught.value.connection_invalidated
        assert faults.cause(caught.value) == "no response in time (NoResponse)"


def test_outside_of_a_call_a_statement_may_take_its_time(postgres_server: PostgresServer) -> None:
    engine = postgresql_engine(postgres_server.url, poolclass=NullPool)
    with engine.connect() as connection, working_on(Call(deadline=deadline_after(5))):
        connection.execute(text("SELECT pg_sleep(0.1)"))
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_sleep(0.1)"))


def test_a_statement_that_times_out_leaves_the_other_connections_alone(postgres_server: PostgresServer) -> None:
    engine = postgresql_engine(postgres_server.url, pool_size=2, isolation_level="AUTOCOMMIT")

    def session() -> int:
        with engine.connect() as connection:
            return int(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())

    with engine.connect() as slow:
        kept = session()
        with working_on(Call(deadline=deadline_after(0.1))), pytest.raises(OperationalError):
            slow.execute(text("SELECT pg_sleep(4)"))
    assert session() == kept
    engine.dispose()


def test_a_connection_with_a_high_file_number_is_waited_for_too(postgres_server: PostgresServer) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 2_000), hard), hard))
    holders = [socket.socket() for _ in range(1_100)]
    try:
        engine = postgresql_engine(postgres_server.url, poolclass=NullPool)
        with engine.connect() as connection:
            driver = connection.connection.dbapi_connection
            assert isinstance(driver, psycopg2.extensions.connection)
            assert driver.fileno() > 1_023
            assert connection.execute(text("SELECT 1")).scalar() == 1
    finally:
        for holder in holders:
            holder.close()
