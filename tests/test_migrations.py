"""The migrations: up, down, up; many at once; and the models say what they make."""

import dataclasses
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, inspect, text
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool

from course_service.course import State
from course_service.filters import parse_filter
from course_service.paging import parse_order_by
from course_service.store.database import Database
from course_service.store.models import METADATA, SCHEMA_REVISION, exists_on
from course_service.store.usability import SchemaMissing
from tests.conftest import ROOT, PostgresServer, migrate
from tests.test_repository import COURSE


def engine_of(url: URL) -> Engine:
    return create_engine(url, poolclass=NullPool)


def schema(engine: Engine) -> Any:
    """What the database says of its tables, to the last constraint."""
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            query = "SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'alembic_version%' AND sql IS NOT NULL"
            return {
                name: sorted(line.strip(" ,\t").replace('"', "") for line in sql.splitlines())
                for name, sql in connection.execute(text(query))
            }
        queries = {
            "columns": "SELECT table_name, column_name, data_type, collation_name, is_nullable, column_default"
            " FROM information_schema.columns WHERE table_schema = 'public'",
            "constraints": "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint"
            " WHERE connamespace = 'public'::regnamespace",
            "indexes": "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
        }
        return {
            what: {tuple(row) for row in connection.execute(text(query)) if row[0] != "alembic_version"}
            for what, query in queries.items()
        }


def test_there_is_one_head_and_it_is_what_the_service_asks_for() -> None:
    script = ScriptDirectory.from_config(Config(toml_file=ROOT / "pyproject.toml"))
    assert script.get_heads() == [SCHEMA_REVISION]
    for revision in script.walk_revisions():
        assert revision.path.endswith(f"/{revision.revision}.py")


def test_up_down_and_up_again(empty_database_url: URL) -> None:
    engine = engine_of(empty_database_url)
    migrate(empty_database_url)
    first = schema(engine)
    assert "courses" in inspect(engine).get_table_names()
    migrate(empty_database_url, "base", down=True)
    assert inspect(engine).get_table_names() == ["alembic_version"]
    migrate(empty_database_url)
    assert schema(engine) == first


def test_migrating_again_keeps_the_courses(empty_database_url: URL) -> None:
    migrate(empty_database_url)
    database = Database(empty_database_url, connections=1)
    database.write(lambda stored: stored.courses.add(COURSE))
    migrate(empty_database_url)
    assert database.read(lambda courses: courses.get(COURSE.course_id)) == COURSE
    database.close()


def test_down_to_0001_and_up_again_loses_nothing_that_0001_knows(empty_database_url: URL) -> None:
    migrate(empty_database_url)
    deleted = dataclasses.replace(
        COURSE, uid=COURSE.uid.replace("0000-7", "0001-7"), course_id="gone", external_ids={"sis": "1"}
    ).deleted(datetime.now(UTC))
    with_text = dataclasses.replace(COURSE, description="é\n", labels={"a": "b"})
    database = Database(empty_database_url, connections=1)
    database.write(lambda stored: stored.courses.add_all([with_text, deleted]))
    database.close()
    kept = "uid, course_id, title, code, description, owner, language_code, subjects, labels, state, create_time,"
    query = text(f"SELECT {kept} update_time, revision FROM courses ORDER BY uid")

    def rows() -> list[Any]:
        with engine_of(empty_database_url).connect() as connection:
            return [tuple(row) for row in connection.execute(query)]

    before = rows()
    migrate(empty_database_url, "0001_create_courses", down=True)
    assert rows() == before
    migrate(empty_database_url)
    assert rows() == before
    database = Database(empty_database_url, connections=1)
    assert database.read(lambda courses: courses.get(COURSE.course_id)) == with_text
    back = database.read(lambda courses: courses.get("gone"))
    assert back
    assert back.purge_time == back.update_time + timedelta(days=30)
    assert back.undeleted(datetime.now(UTC)).state is State.DRAFT
    page = database.read(
        lambda courses: courses.page(parse_filter("É"), parse_order_by(""), None, limit=9, show_deleted=True, full=True)
    )
    assert [course.course_id for course in page] == [COURSE.course_id]
    database.close()


def drift(url: URL) -> Any:
    """What Alembic would change to make the tables of a database what the models say."""
    with engine_of(url).connect() as connection:
        plugins = ["alembic.autogenerate.*", "alembic.ext.checkconstraint_byname"]
        context = MigrationContext.configure(
            connection,
            opts={
                "autogenerate_plugins": plugins,
                "include_object": lambda _, name, *__: exists_on(name, connection.dialect.name),
            },
        )
        return compare_metadata(context, METADATA)


def test_models_and_migrations_agree(database_url: URL, empty_database_url: URL) -> None:
    assert drift(database_url) == []
    # Alembic compares names and types; the database itself also tells bodies, collations and defaults.
    from_models = engine_of(empty_database_url)
    METADATA.create_all(from_models)
    assert schema(from_models) == schema(engine_of(database_url))


def test_a_migration_that_was_cut_short_does_what_is_left(empty_database_url: URL) -> None:
    engine = engine_of(empty_database_url)
    migrate(empty_database_url, "0003_fill_and_index")
    whole = schema(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0002_add_lifecycle'"))
        connection.execute(text("DROP INDEX ix_courses_code"))
    migrate(empty_database_url, "0003_fill_and_index")
    assert schema(engine) == whole


def test_a_database_without_the_schema_is_told_from_one_that_does_not_answer(empty_database_url: URL) -> None:
    engine_of(empty_database_url).connect().close()  # SQLite: makes the file
    database = Database(empty_database_url, connections=1)
    with pytest.raises(SchemaMissing, match=r"no schema yet.*make migrate"):
        database.check()
    migrate(empty_database_url)
    database.check()
    with engine_of(empty_database_url).begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0000_older'"))
    with pytest.raises(SchemaMissing, match="0000_older"):
        database.check()
    with engine_of(empty_database_url).begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999_newer'"))
    database.check()
    database.close()


def start_migration(url: URL) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "alembic", "upgrade", "head"],
        cwd=ROOT,
        env={**os.environ, "COURSE_DATABASE_URL": url.render_as_string(hide_password=False)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_five_migrations_at_once_all_succeed(empty_database_url: URL) -> None:
    processes = [start_migration(empty_database_url) for _ in range(5)]
    errors = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 5, errors
    database = Database(empty_database_url, connections=1)
    database.check()
    database.close()


def test_a_migration_that_waits_for_traffic_gives_way_and_tries_again(postgres_server: PostgresServer) -> None:
    with postgres_server.new_database() as url:
        migrate(url)
        migrate(url, "base", down=True)
        with engine_of(url).connect() as holder:
            # Creating the version row needs this table; dropping is what 0001's downgrade would wait for.
            holder.execute(text("LOCK TABLE alembic_version IN ACCESS EXCLUSIVE MODE"))
            process = start_migration(url)
            assert process.stderr
            assert any("trying again" in line for line in process.stderr)
            holder.rollback()
        assert process.wait(timeout=60) == 0
        process.stderr.close()
