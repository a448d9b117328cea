"""A service over a database with a few courses in it, which no bad input changes."""

import re
from collections.abc import Callable, Sequence

from sqlalchemy import Engine, text

from tests.conftest import Service
from tests.faults.bad_inputs.faces import FACES, OK, Fields, Outcome
from tests.support.calls import call

SEED = "courses/seed"
OTHER = "courses/seed-other"
ARCHIVED = "courses/seed-archived"
DELETED = "courses/seed-deleted"
_SEEDS = "'seed', 'seed-other', 'seed-archived', 'seed-deleted'"
_COUNT = ", ".join(f"(SELECT count(*) FROM {table})" for table in ("courses", "course_external_ids", "answers"))
_FORGET = (
    "DELETE FROM answers",
    f"DELETE FROM course_external_ids WHERE course_uid IN (SELECT uid FROM courses WHERE course_id NOT IN ({_SEEDS}))",
    f"DELETE FROM courses WHERE course_id NOT IN ({_SEEDS})",
)
_VARIES = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Tally:
    """What all runs together have come to."""

    def __init__(self) -> None:
        self.control = ""
        """What was seen with the validator off."""
        self._cases: set[str] = set()
        self._runs = 0
        self._right = 0
        self._seen: dict[tuple[str, ...], object] = {}
        self._differences = 0

    def begin(self, cases: Sequence[str]) -> None:
        self._cases |= set(cases)
        self._runs += len(cases)

    def end(self, cases: Sequence[str]) -> None:
        self._right += len(cases)

    def compare(self, cases: Sequence[str], face: str, outcome: Outcome) -> None:
        """Hold an outcome against the one that the other database gave, its message included."""
        found = (outcome, _VARIES.sub("…", outcome.message))
        first = self._seen.setdefault((face, *cases), found)
        self._differences += first != found
        assert found == first, "the databases differ"

    def __str__(self) -> str:
        return (
            f"{len(self._cases):,} cases in {self._runs:,} runs: {self._runs - self._right} wrong,"
            f" {self._differences} differences between the databases"
        )


class World:
    """The service, and what its database has."""

    def __init__(self, service: Service, engine: Engine, tally: Tally) -> None:
        self.service = service
        self.engine = engine
        self._tally = tally
        self._seeded = self.rows()

    def seed(self) -> None:
        """Empty the database but for the few courses."""
        with self.engine.begin() as connection:
            for table in ("course_external_ids", "courses", "answers"):
                connection.execute(text(f"DELETE FROM {table}"))
        for name in (SEED, OTHER, ARCHIVED, DELETED):
            course = {"title": "№", "external_ids": {"seed": name}}
            call(self.service, "CreateCourse", course=course, course_id=name.removeprefix("courses/"))
        call(self.service, "PublishCourse", name=ARCHIVED)
        call(self.service, "ArchiveCourse", name=ARCHIVED)
        call(self.service, "DeleteCourse", name=DELETED)
        self._seeded = self.rows()

    def forget(self) -> None:
        """Remove what a test has stored."""
        with self.engine.begin() as connection:
            for statement in _FORGET:
                connection.execute(text(statement))

    def rows(self) -> tuple[int, ...]:
        """How many courses, external ids and answers are stored."""
        with self.engine.connect() as connection:
            return tuple(connection.execute(text(f"SELECT {_COUNT}")).one())

    def etag(self, name: str) -> str:
        etag: str = call(self.service, "GetCourse", name=name).etag
        return etag

    def check(self, face: str, send: Callable[[], Outcome], expected: Outcome, *cases: str) -> Outcome:
        """Send what must end as expected, alike on both databases; what fails stores nothing. Counts as some cases."""
        self._tally.begin(cases)
        before = self.rows()
        outcome = send()
        assert outcome == expected, outcome.message
        self._tally.compare(cases, face, outcome)
        assert outcome == OK or self.rows() == before, "something is stored"
        self._tally.end(cases)
        return outcome

    def call(self, face: str, method: str, fields: Fields, expected: Outcome, *cases: str) -> Outcome:
        """Make a call by one face, to be checked."""
        return self.check(face, lambda: FACES[face](self.service, method, fields), expected, *cases)

    def check_alive(self) -> None:
        """Look whether Get and List work by both faces."""
        for by in FACES.values():
            assert by(self.service, "GetCourse", {"name": SEED}).response["name"] == SEED
            assert by(self.service, "ListCourses", {"page_size": 1}).response["courses"]

    def clean_up(self) -> None:
        """Remove what a test has stored, and look whether the service works on: one call by each face, for speed."""
        assert FACES["grpc"](self.service, "ListCourses", {"page_size": 1}) == OK
        assert FACES["http"](self.service, "GetCourse", {"name": SEED}) == OK
        if self.rows() != self._seeded:
            self.forget()
