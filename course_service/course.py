"""The course: the resource that this service owns, and the rules of its life."""

from __future__ import annotations

import dataclasses
import enum
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from course_service.errors import (
    CourseArchived,
    CourseDeleted,
    CourseNotDeleted,
    CourseNotFound,
    InvalidStateTransition,
)

COLLECTION = "courses/"

# Limits. Lengths count code points. The contract states them, `fields.py` refuses what exceeds them, and the database
# would too.
TITLE_MAX_LENGTH = 750
CODE_MAX_LENGTH = 255
DESCRIPTION_MAX_LENGTH = 30_000
OWNER_MAX_LENGTH = 255
LANGUAGE_CODE_MAX_LENGTH = 100
SUBJECTS_MAX_ITEMS = 20
SUBJECT_MAX_LENGTH = 100
LABELS_MAX_ITEMS = 64
LABEL_VALUE_MAX_LENGTH = 63
EXTERNAL_IDS_MAX_ITEMS = 20
EXTERNAL_ID_VALUE_MAX_LENGTH = 255
COURSE_ID_MAX_LENGTH = 63

RETENTION = timedelta(days=30)
"""How long a deleted course can be undeleted."""


class State(enum.StrEnum):
    """The states of a course's lifecycle."""

    DRAFT = "DRAFT"
    PUBLISHED = "PUBLISHED"
    ARCHIVED = "ARCHIVED"
    DELETED = "DELETED"


_TRANSITIONS = {(State.DRAFT, State.PUBLISHED), (State.ARCHIVED, State.PUBLISHED), (State.PUBLISHED, State.ARCHIVED)}
"""From and to; deleting and undeleting are possible from and to every state."""


@dataclass(slots=True)  # frozen, it would take ten times as long to make: a tenth of what a course of a list costs
class Course:
    """One version of a course of the catalogue; nobody changes it.

    The fields' meaning and limits are those of `course.v1.Course` in the contract. Times are UTC, to the microsecond.
    `revision` counts the committed versions of the course from 1 on; `state_before_delete` is where undeleting leads.
    Methods that change a course return the new version; the old one stays as it is.
    """

    uid: str
    course_id: str
    title: str
    code: str
    description: str
    owner: str
    language_code: str
    subjects: Sequence[str]
    labels: Mapping[str, str]
    external_ids: Mapping[str, str]
    state: State
    create_time: datetime
    update_time: datetime
    delete_time: datetime | None
    purge_time: datetime | None
    state_before_delete: State | None
    revision: int

    @property
    def name(self) -> str:
        """The resource name, `courses/{course_id}`."""
        return COLLECTION + self.course_id

    @property
    def etag(self) -> str:
        """The quoted, strong tag of this version (RFC 9110); no other version of any course has it."""
        # Hashed, so that nobody builds on what is in it.
        digest = hashlib.blake2b(f"{self.uid}.{self.revision}".encode(), digest_size=12)
        return f'"{digest.hexdigest()}"'

    @property
    def search_text(self) -> str:
        """What a word of a filter is searched in: title, code and description, in folded case."""
        # No field can hold the separator, so nothing is found across two fields.
        return "\x1f".join((self.title, self.code, self.description)).casefold()

    @property
    def approximate_bytes(self) -> int:
        """About how large the course is in a response; rather too much than too little."""
        texts = (self.title, self.code, self.description, self.owner, *self.subjects)
        pairs = (*self.labels, *self.labels.values(), *self.external_ids, *self.external_ids.values())
        return 400 + len("".join((*texts, *pairs)).encode()) + 4 * (len(texts) + len(pairs))

    def updated(self, changes: Mapping[str, object], now: datetime) -> Course:
        """Replace fields; the same course if they were so already. Raises `CourseArchived`, `CourseDeleted`."""
        if self.state is State.DELETED:
            raise CourseDeleted(self.name)
        if self.state is State.ARCHIVED:
            raise CourseArchived(self.name)
        if all(getattr(self, field) == value for field, value in changes.items()):
            return self
        return self._next(now, **changes)

    def moved_to(self, state: State, now: datetime) -> Course:
        """Publish or archive; raises `InvalidStateTransition`."""
        if (self.state, state) not in _TRANSITIONS:
            raise InvalidStateTransition(self.name, self.state, state)
        return self._next(now, state=state)

    def deleted(self, now: datetime) -> Course:
        """Delete; raises `CourseNotFound` if that has been done already."""
        if self.state is State.DELETED:
            raise CourseNotFound(self.name)
        return self._next(
            now, state=State.DELETED, delete_time=now, purge_time=now + RETENTION, state_before_delete=self.state
        )

    def undeleted(self, now: datetime) -> Course:
        """Bring back; raises `CourseNotDeleted`."""
        if self.state is not State.DELETED:
            raise CourseNotDeleted(self.name)
        return self._next(
            now, state=self.state_before_delete, delete_time=None, purge_time=None, state_before_delete=None
        )

    def _next(self, now: datetime, **changes: object) -> Course:
        # Clocks of two machines differ; time must not run backwards all the same.
        update_time = max(now, self.update_time)
        return dataclasses.replace(self, **{**changes, "update_time": update_time, "revision": self.revision + 1})  # type: ignore[arg-type]  # fields by name
