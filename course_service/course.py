"""The course: the resource that this service owns, and the rules of its life."""

import enum
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

COLLECTION = "courses/"

# Limits. Lengths count code points. The contract states them, `schemas.py` refuses what exceeds them, and the database
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
COURSE_ID_MAX_LENGTH = 63


class State(enum.StrEnum):
    """Where a course stands in its life."""

    DRAFT = "DRAFT"


@dataclass(frozen=True, slots=True)
class Course:
    """One version of a course of the catalogue.

    The fields' meaning and limits are those of `course.v1.Course` in the contract. Times are UTC, to the microsecond.
    `revision` counts the committed versions of the course from 1 on.
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
    state: State
    create_time: datetime
    update_time: datetime
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
