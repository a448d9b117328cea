"""The index for words: built and dropped as the operator says; it makes searches faster, and changes no answer.

The wheel's PostgreSQL lacks the extension that it needs, Debian's has it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import random
import threading
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool

from course_service.commands import migrate as command
from course_service.course import Course
from course_service.schemas import ListCoursesRequest
from course_service.services import list_courses
from course_service.startup import StartupError
from course_service.store.database import Database
from tests.conftest import PostgresServer, empty_database, migrate
from tests.faults.support.postgres import Postgres, debian_binaries
from tests.support.waiting import until
from tests.test_filters import quoted
from tests.test_migrations import drift
from tests.test_plans import TOKENS, fill, plan
from tests.test_repository import COURSE

# What wildcards, escapes, foldings and the edges of words are made of.
ALPHABET = "ab1%_\\/ -.'\"éÉßſΣσςİıЯя語\U0001f600"


def hostile_courses() -> list[Course]:
    made = random.Random(7)

    def some(length: int) -> str:
        return "".join(made.choices(ALPHABET, k=made.randint(0, length)))

    return [
        dataclasses.replace(
            COURSE,
            uid=f"01994a1c-0000-7000-8000-{number:012}",
            course_id=f"c{number}",
            title=f"{some(8)}x",
            code=some(6),
            description=some(60),
        )
        for number in range(100)
    ]


COURSES = hostile_courses()
needles = st.one_of(
    st.text(ALPHABET, min_size=1, max_size=6),
    st.builds(
        lambda description, start, length: description[start : start + length],
        st.sampled_from([course.description for course in COURSES]),
        st.integers(0, 50),
        st.integers(1, 8),
    ).flatmap(lambda found: st.sampled_from([found, found.upper(), found.casefold()])),
).filter(bool)


@pytest.fixture(scope="module")
def debian() -> Iterator[Postgres]:
    """A PostgreSQL that has the extension."""
    binaries = debian_binaries()
    if binaries is None:
        pytest.skip("not installed: postgresql (apt-get install postgresql)")
    with contextlib.closing(Postgres(binaries, fsync="off")) as server:
        yield server


def execute(url: URL, statement: str) -> None:
    engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))


def index_of(url: URL) -> tuple[int, bool] | None:
    """Which index a database has, by its number, and whether it can be used."""
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        query = (
            "SELECT indexrelid::bigint, indisvalid FROM pg_index WHERE indexrelid = to_regclass('ix_courses_search')"
        )
        row = connection.execute(text(query)).one_or_none()
        return None if row is None else (row[0], row[1])


def is_valid(url: URL) -> bool:
    found = index_of(url)
    return found is not None and found[1]


def migrate_and(choice: str, url: URL) -> None:
    """Run the command `migrate` with this COURSE_SEARCH_INDEX."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COURSE_DATABASE_URL", url.render_as_string(hide_password=False))
        patch.setenv("COURSE_SEARCH_INDEX", choice)
        assert command.main() == 0


@pytest.fixture
def url(debian: Postgres) -> Iterator[URL]:
    """A migrated, empty database with the extension at hand."""
    with debian.new_database() as url:
        yield url


def test_it_is_built_kept_and_dropped(url: URL) -> None:
    migrate_and("keep", url)
    assert index_of(url) is None
    migrate_and("build", url)
    built = index_of(url)
    assert is_valid(url)
    for choice in ("build", "keep"):
        migrate_and(choice, url)
        assert index_of(url) == built
    assert drift(url) == []
    for _ in range(2):
        migrate_and("drop", url)
        assert index_of(url) is None


def test_one_whose_building_was_cut_short_is_built_anew_and_not_used_meanwhile(url: URL) -> None:
    migrate_and("build", url)
    execute(url, "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'ix_courses_search'::regclass")
    cut_short = index_of(url)
    with contextlib.closing(Database(url, connections=1)) as database:
        database.check()
        assert "strpos" in plan(database, ListCoursesRequest(filter="biology"))
        migrate_and("build", url)
        assert index_of(url) not in (None, cut_short)
        database.check()
        assert "strpos" not in plan(database, ListCoursesRequest(filter="biology"))


def test_writers_go_on_while_it_waits_for_one_of_them(url: URL) -> None:
    with contextlib.closing(Database(url, connections=1)) as database:
        engine = create_engine(url, poolclass=NullPool)
        with engine.connect() as writer:
            writer.execute(text("LOCK TABLE courses IN ROW EXCLUSIVE MODE"))  # as one that has written
            building = threading.Thread(target=migrate_and, args=("build", url), daemon=True)
            building.start()
            until(lambda: index_of(url))
            database.write(lambda stored: stored.courses.add(COURSE))
            assert not is_valid(url)
            writer.rollback()
        building.join(timeout=20)
        assert is_valid(url)


@pytest.fixture(scope="module", params=["sqlite", "postgresql", "indexed"])
def hostile(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """A database with courses that are hard to search, without the index and with it."""
    if request.param == "indexed":
        server: Postgres = request.getfixturevalue("debian")
        made = server.new_database()
    else:
        made = empty_database(request.param, request, tmp_path_factory.mktemp("hostile"))
    with made as url:
        migrate(url)
        database = Database(url, connections=2)
        database.write(lambda stored: stored.courses.add_all(COURSES))
        if request.param == "indexed":
            migrate_and("build", url)
            # Or PostgreSQL would read a table of this size as a whole, and compile what then looks costly.
            for setting in ("enable_seqscan", "enable_indexscan", "jit"):
                execute(url, f"ALTER DATABASE {url.database} SET {setting} = off")
            database.close()
        database.check()
        yield database
        database.close()


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(needle=needles)
def test_a_text_is_found_where_python_finds_it(hostile: Database, needle: str) -> None:
    request = ListCoursesRequest(filter=quoted(needle), page_size=1000)
    found = {course.course_id for course in list_courses(hostile, TOKENS, request).courses}
    assert found == {course.course_id for course in COURSES if needle.casefold() in course.search_text}


@pytest.fixture(scope="module")
def indexed(debian: Postgres) -> Iterator[Database]:
    """A database with 1,000 courses and the index, for tests that only ask."""
    with debian.new_database() as url, contextlib.closing(Database(url, connections=2)) as database:
        fill(database, url, count=1_000)
        migrate_and("build", url)
        database.check()
        yield database


@pytest.mark.parametrize(
    ("words", "is_used"),
    [
        ("zyzzyva", True),
        ('"course 4998"', True),
        ("zyzzyva 4998", True),
        ("course", False),  # a page is full at once in the list's order
        ("99", False),  # of two characters there are no trigrams
        ('"c-9"', False),
        ('"Яя"', False),
        ('"Яяя"', True),
    ],
)
def test_it_serves_words_that_few_courses_have(indexed: Database, words: str, *, is_used: bool) -> None:
    steps = plan(indexed, ListCoursesRequest(filter=words))
    assert ("ix_courses_search" in steps) == is_used
    assert ("ix_courses_create_time" in steps) != is_used


def refusal(url: URL) -> str:
    with pytest.raises(StartupError) as caught:
        migrate_and("build", url)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("the schema is up to date, but COURSE_SEARCH_INDEX=build cannot be done: ")
    return message


def test_where_there_is_no_extension_it_is_refused_in_one_line(postgres_server: PostgresServer) -> None:
    with postgres_server.new_database() as url:
        assert "the server lacks the extension pg_trgm" in refusal(url)
        migrate_and("drop", url)
        with contextlib.closing(Database(url, connections=1)) as database:
            database.check()  # the schema is there


def test_on_sqlite_it_is_refused_in_one_line(migrated_url: URL) -> None:
    assert "only PostgreSQL has this index" in refusal(migrated_url)
    migrate_and("drop", migrated_url)


def test_who_may_not_create_the_extension_is_told_who_may(debian: Postgres, url: URL) -> None:
    debian.execute("CREATE ROLE writer LOGIN")
    execute(url, "GRANT ALL ON ALL TABLES IN SCHEMA public TO writer")
    assert "have the owner of the database run CREATE EXTENSION pg_trgm" in refusal(url.set(username="writer"))


def test_where_letters_beyond_ascii_are_unknown_it_is_refused(debian: Postgres) -> None:
    debian.execute("CREATE DATABASE ascii TEMPLATE template0 LOCALE 'C'")
    assert "LC_CTYPE" in refusal(debian.url.set(database="ascii"))
