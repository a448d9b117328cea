"""The service on few courses beside the same on many: what must not get slower with the catalogue.

Both databases are in one PostgreSQL, Debian's where it is installed, and filled by SQL with courses like those of
`calls.course`. Each value that is filtered by is that of `SAME` courses in both, so that both return as much.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import subprocess
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import grpc
from course.v1 import course_pb2
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.engine import URL

from benchmarks import report
from benchmarks.calls import PAGE, Kind, get
from benchmarks.measuring import Row, cores, measure_kind, say
from benchmarks.servers import ROOT, SERVICE, Server, access, service
from course_service.paging import ORDER_FIELDS, parse_order_by
from course_service.schemas import ListCoursesRequest
from course_service.settings import DEVELOPMENT_SECRET, Settings
from course_service.tokens import PageTokens
from tests.faults.support.postgres import Postgres, debian_binaries

SAME = 20
"""How many courses have the same value of a field; as many are ARCHIVED, and as many DELETED."""
_NAMES = 1_000
_ROUNDS = 5
_CALLS = 10
_ORDERS = [f"{field}{direction}" for field in ORDER_FIELDS for direction in ("", " desc")]
_SEARCH_INDEX = "COURSE_SEARCH_INDEX"
_BUILD = "build"

# Course n has the number m / SAME, where m is a permutation of n: those of one number lie far apart. The uuids ascend
# in time, as version 7 does.
_FILL = """
INSERT INTO courses (uid, course_id, title, code, description, owner, language_code, subjects, labels, state,
                     create_time, update_time, revision, external_ids, delete_time, purge_time, state_before_delete,
                     search_text)
SELECT uid, uid, title, code, description, 'users/' || number, '', jsonb_build_array('biology', 'subject ' || number),
       jsonb_build_object('team', number::text), state, created, created + number % 1000 * interval '1 ms', 1,
       jsonb_build_object('sis', n::text), deleted, deleted + interval '30 days',
       CASE WHEN deleted IS NOT NULL THEN 'DRAFT' END, lower(title || chr(31) || code || chr(31) || description)
FROM (SELECT n, n * 48271 % :courses AS m FROM generate_series(1, CAST(:courses AS bigint)) AS n) AS permuted,
     LATERAL (SELECT m / :same AS number, CAST(:first AS timestamptz) + n * interval '1 second' AS created,
                     CASE m % (:courses / :same) WHEN 1 THEN 'ARCHIVED' WHEN 2 THEN 'DELETED' ELSE 'DRAFT' END AS state,
                     CAST('0190' || lpad(to_hex(n), 8, '0') || '7000' || left(md5(n::text), 16) AS uuid) AS uid) AS a,
     LATERAL (SELECT 'Course ' || number AS title, 'C ' || number AS code,
                     repeat('x', 290) || left(md5(number::text), 10) AS description,
                     CASE state WHEN 'DELETED' THEN created END AS deleted) AS b
"""
_FILL_EXTERNAL_IDS = """
INSERT INTO course_external_ids (key, value, course_uid) SELECT 'sis', external_ids ->> 'sis', uid FROM courses
"""
_INDEXES = """
SELECT indexname, indexdef FROM pg_indexes
WHERE tablename IN ('courses', 'course_external_ids') AND indexname NOT IN (SELECT conname FROM pg_constraint)
"""


@dataclass(frozen=True)
class Catalogue:
    """A filled database."""

    courses: int
    first: datetime
    """When the first was created; each second there was another one."""
    names: list[str]
    deep: dict[str, str]
    """Page tokens that stand for half of the courses, by order."""

    def number(self) -> int:
        """Return a number that `SAME` courses have."""
        return random.randrange(self.courses // SAME)

    def seconds(self) -> str:
        """Return a filter that as many courses pass, by time."""
        since = self.first + timedelta(seconds=random.randrange(1, self.courses - SAME))
        until = since + timedelta(seconds=SAME)
        return f'create_time >= "{since.isoformat()}" AND create_time < "{until.isoformat()}"'


_FILTERS: dict[str, Callable[[Catalogue], str]] = {
    "owner = …": lambda catalogue: f'owner = "users/{catalogue.number()}"',
    "code = …": lambda catalogue: f'code = "C {catalogue.number()}"',
    "title = …": lambda catalogue: f'title = "Course {catalogue.number()}"',
    "subjects:…": lambda catalogue: f'subjects:"subject {catalogue.number()}"',
    "labels.team = …": lambda catalogue: f'labels.team = "{catalogue.number()}"',
    "external_ids.sis = …": lambda catalogue: f'external_ids.sis = "{random.randint(1, catalogue.courses)}"',
    "create_time is in a range": Catalogue.seconds,
    "state = ARCHIVED, which few are": lambda _: "state = ARCHIVED",
    "there is a word that none has": lambda _: "nowhere",
    f"there is a word that {SAME} have": lambda catalogue: f'"{_word(catalogue.number())}"',
    "there is a word that all have": lambda _: "course",
}


def compare(few: int, many: int, head: str) -> None:
    """Measure the service on `few` courses and on `many`, and write SIZE.md."""
    core, others = cores()
    # Filled without a thought for crashes, and vacuumed once for all; with the memory of a small server.
    settings = {"fsync": "off", "autovacuum": "off", "max_wal_size": "8GB", "max_parallel_maintenance_workers": "0"}
    binaries = debian_binaries()
    made = [binaries] if binaries else []
    with contextlib.ExitStack() as stack:
        postgres = stack.enter_context(closing(Postgres(*made, shared_buffers="1GB", **settings)))
        version = postgres.execute("SHOW server_version")[0][0]
        granted = stack.enter_context(access())
        catalogues: dict[str, Catalogue] = {}
        found: list[Server] = []
        for courses in (few, many):
            url = stack.enter_context(postgres.new_database())
            name = f"{courses:,} courses"
            say(f"filling {name}\n")
            catalogues[name] = _filled(url, courses)
            is_searched = _add_search_index(url)
            server = stack.enter_context(service(name, url, core, granted))
            server.names[:] = catalogues[name].names
            found.append(server)
        os.sched_setaffinity(0, others)
        results = [(kind.title, _result(found, kind, postgres)) for kind in _kinds(catalogues)]
    about = (
        f"{head}, on PostgreSQL {version}, {_ROUNDS} rounds by turns of {_CALLS} calls, one in flight; the service "
        "with everything on. Values that are filtered by are those of "
        f"{SAME} courses on both sides (external ids: of one), {SAME} are ARCHIVED and {SAME} DELETED. Search by "
        f"trigrams ({_SEARCH_INDEX}) is {'on' if is_searched else 'off'}."
    )
    page = ["# What a call costs on many courses", "", report.paragraph(about), "", *_table(results, *catalogues), ""]
    (ROOT / "benchmarks" / "SIZE.md").write_text("\n".join(page))
    (ROOT / "var" / "size.json").write_text(
        json.dumps([row.as_json() for _, rows in results for row in rows], indent=1)
    )
    print("\n".join(page))
    print("written to benchmarks/SIZE.md and var/size.json")


def _result(found: Sequence[Server], kind: Kind, postgres: Postgres) -> list[Row]:
    """Measure a kind of call; returns nothing if a call fails: without an index it can take longer than it may."""
    try:
        return measure_kind(found, _ROUNDS, kind, postgres, warm_up=1)
    except grpc.RpcError as error:
        say(f"a call failed, {error.code().name}\n")
        return []


def _kinds(catalogues: dict[str, Catalogue]) -> list[Kind]:
    def listing(title: str, make: Callable[[Catalogue], dict[str, Any]]) -> Kind:
        def requests(server: Server, count: int) -> Sequence[course_pb2.ListCoursesRequest]:
            catalogue = catalogues[server.name]
            return [course_pb2.ListCoursesRequest(page_size=PAGE, **make(catalogue)) for _ in range(count)]

        return Kind(title, "ListCourses", requests, 1, _CALLS)

    def by(order: str, catalogue: Catalogue, *, deep: bool) -> dict[str, Any]:
        return {"order_by": order, "page_token": catalogue.deep[order] if deep else ""}

    def where(condition: Callable[[Catalogue], str], catalogue: Catalogue) -> dict[str, Any]:
        return {"filter": condition(catalogue)}

    return [
        Kind("GetCourse", "GetCourse", get, 1, _CALLS),
        *(
            listing(
                f"ListCourses({PAGE}) by {order}, {'from half on' if deep else 'first page'}",
                partial(by, order, deep=deep),
            )
            for order in _ORDERS
            for deep in (False, True)
        ),
        *(
            listing(f"ListCourses({PAGE}) where {title}", partial(where, condition))
            for title, condition in _FILTERS.items()
        ),
        listing(
            f"ListCourses({PAGE}) where state = DELETED, which few are",
            lambda _: {"filter": "state = DELETED", "show_deleted": True},
        ),
    ]


def _filled(url: URL, courses: int) -> Catalogue:
    """Fill an empty, migrated database."""
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    first = datetime.now(UTC) - timedelta(seconds=courses)
    with engine.connect() as connection:
        for setting in ("session_replication_role = replica", "maintenance_work_mem = '512MB'"):  # no foreign keys
            connection.execute(text(f"SET {setting}"))
        indexes = connection.execute(text(_INDEXES)).all()  # faster built once than kept up
        for name, _ in indexes:
            connection.execute(text(f"DROP INDEX {name}"))
        connection.execute(text(_FILL), {"courses": courses, "same": SAME, "first": first})
        connection.execute(text(_FILL_EXTERNAL_IDS))
        for _, definition in indexes:
            connection.execute(text(definition))
        connection.execute(text("VACUUM ANALYZE"))
        connection.execute(text("CHECKPOINT"))
        some = text("SELECT 'courses/' || course_id FROM courses ORDER BY random() LIMIT :names")
        names = list(connection.scalars(some, {"names": _NAMES}))
        deep = {order: _halfway(connection, order, courses) for order in _ORDERS}
    engine.dispose()
    return Catalogue(courses, first, names, deep)


def _halfway(connection: Connection, order_by: str, courses: int) -> str:
    """Make the page token that the service would give with the last course of the first half.

    To get there page by page takes minutes.
    """
    orders = parse_order_by(order_by)
    fields = ", ".join(order.field for order in orders)
    sorted_by = ", ".join(f"{order.field} {'DESC' if order.descending else 'ASC'}" for order in orders)
    place = connection.execute(
        text(f"SELECT {fields} FROM courses WHERE state <> 'DELETED' ORDER BY {sorted_by} LIMIT 1 OFFSET :half"),  # noqa: S608  # names of columns
        {"half": courses // 2},
    ).one()
    return PageTokens(DEVELOPMENT_SECRET).make(ListCoursesRequest(order_by=order_by).query, tuple(place))


def _add_search_index(url: URL) -> bool:
    """Have the service's own command build the index for searching, if both it and PostgreSQL have what that takes."""
    engine = create_engine(url)
    with engine.connect() as connection:
        has_trigrams = connection.scalar(text("SELECT count(*) FROM pg_available_extensions WHERE name = 'pg_trgm'"))
    engine.dispose()
    if not has_trigrams or _SEARCH_INDEX.removeprefix("COURSE_").lower() not in Settings.model_fields:
        return False
    others = {key: value for key, value in os.environ.items() if not key.startswith("COURSE_")}
    mine = {"COURSE_DATABASE_URL": url.render_as_string(hide_password=False), _SEARCH_INDEX: _BUILD}
    subprocess.run([*SERVICE, "migrate"], cwd=ROOT, env={**others, **mine}, check=True)
    return True


def _word(number: int) -> str:
    """Return the word that the courses of a number have in their descriptions."""
    return hashlib.md5(str(number).encode(), usedforsecurity=False).hexdigest()[:10]


def _table(results: Sequence[tuple[str, list[Row]]], few: str, many: str) -> list[str]:
    head = ["call"]
    for what in ("p50 ms", "CPU µs", "PostgreSQL µs"):
        head += [f"{what}: {few}", many, "ratio"]
    lines = [head, ["---"] * len(head)]
    for title, rows in results:
        line = [title]
        if rows:
            one, other = rows
            pairs = [(one.p50, other.p50), (one.cpu_median, other.cpu_median), (one.database_cpu, other.database_cpu)]
            for mine, its in pairs:
                line += [f"{mine:g}", f"{its:g}", f"{its / mine:.2f}"]
        else:
            line += ["a call took too long", *[""] * (len(head) - 2)]
        lines.append(line)
    return ["| " + " | ".join(line) + " |" for line in lines]
