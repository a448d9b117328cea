"""The queries on idempotency records: what is kept under a request_id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from pydantic import TypeAdapter
from pydantic_core import from_json, to_json
from sqlalchemy import Connection, and_, bindparam, delete, select, tuple_, update

from course_service.course import Course
from course_service.store.courses import course_row
from course_service.store.inserts import Inserts
from course_service.store.models import IDEMPOTENCY_RECORDS
from course_service.store.recorded_creates import add_recorded
from course_service.store.statements import WriteStatement

_RECORDS = Inserts(IDEMPOTENCY_RECORDS)
_KEY = (IDEMPOTENCY_RECORDS.c.caller, IDEMPOTENCY_RECORDS.c.method, IDEMPOTENCY_RECORDS.c.request_id)
_WITH_KEY = and_(*(column == bindparam(f"its_{column.key}") for column in _KEY))
_FIND = select(IDEMPOTENCY_RECORDS.c.fingerprint, IDEMPOTENCY_RECORDS.c.courses).where(_WITH_KEY)
_COMPLETE = WriteStatement(update(IDEMPOTENCY_RECORDS).where(_WITH_KEY).values(courses=bindparam("its_courses")))

_COURSES = TypeAdapter(list[Course])

ABSENT_FIELDS: Mapping[str, object] = {
    "code": "",
    "description": "",
    "owner": "",
    "language_code": "",
    "subjects": [],
    "labels": {},
    "external_ids": {},
    "delete_time": None,
    "purge_time": None,
    "state_before_delete": None,
}
"""What a field is if a record lacks it. Replicas of two releases share their records: one that an older release wrote
lacks the fields that came later, and one that a newer release wrote has fields that are skipped."""


@dataclass(frozen=True, slots=True)
class RecordKey:
    """What a record is kept under."""

    caller: str
    method: str
    request_id: str

    @property
    def parameters(self) -> dict[str, str]:
        """The parameters of the statements that find the record."""
        return {"its_caller": self.caller, "its_method": self.method, "its_request_id": self.request_id}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a write returned: courses, and whether an update created its course."""

    courses: Sequence[Course]
    created: bool = False


@dataclass(frozen=True, slots=True)
class IdempotencyRecord:
    """The fingerprint of the first request under a key, and its outcome."""

    fingerprint: str
    outcome: Outcome


class IdempotencyRecords:
    """The idempotency records of the database behind one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def claim(self, key: RecordKey, fingerprint: str, now: datetime, outcome: Outcome | None) -> bool:
        """Insert a record, with its outcome if that is known; False if the key has a record.

        While another transaction has inserted one and not ended, waits for its end.
        """
        return _RECORDS.one(self._connection, _row(key, fingerprint, now, outcome))

    def add_with_course(self, key: RecordKey, fingerprint: str, now: datetime, course: Course) -> bool:
        """Insert a record together with the new course that is its outcome, in one round trip; False if it was there.

        Nobody else may be able to take the course's id: it has to be its uid.
        """
        return add_recorded(self._connection, course_row(course), _row(key, fingerprint, now, Outcome([course])))

    def complete(self, key: RecordKey, outcome: Outcome) -> None:
        """Add the outcome to a record that this transaction has claimed without it."""
        _COMPLETE.execute(self._connection, {**key.parameters, "its_courses": _to_json(outcome)})

    def find(self, key: RecordKey) -> IdempotencyRecord | None:
        """Return the record of a key, or None."""
        row = self._connection.execute(_FIND, key.parameters).one_or_none()
        return row and IdempotencyRecord(row.fingerprint, _from_json(row.courses))

    def purge(self, before: datetime, limit: int) -> int:
        """Remove records made before a time, at most `limit`; returns how many."""
        due = (
            select(*_KEY)
            .where(IDEMPOTENCY_RECORDS.c.create_time < before)
            .order_by(IDEMPOTENCY_RECORDS.c.create_time)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        return self._connection.execute(delete(IDEMPOTENCY_RECORDS).where(tuple_(*_KEY).in_(due))).rowcount


def _row(key: RecordKey, fingerprint: str, now: datetime, outcome: Outcome | None) -> dict[str, object]:
    return {
        "caller": key.caller,
        "method": key.method,
        "request_id": key.request_id,
        "fingerprint": fingerprint,
        "courses": None if outcome is None else _to_json(outcome),
        "create_time": now,
    }


def _to_json(outcome: Outcome) -> str:
    if not outcome.created:
        return _COURSES.dump_json(list(outcome.courses)).decode()
    courses = _COURSES.dump_python(list(outcome.courses), mode="json")
    return to_json([{**course, "created": True} for course in courses]).decode()


def _from_json(text: str) -> Outcome:
    courses = from_json(text)
    created = any(course.get("created") for course in courses)
    return Outcome(_COURSES.validate_python([{**ABSENT_FIELDS, **course} for course in courses]), created)
