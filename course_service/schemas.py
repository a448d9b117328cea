"""What a caller may send and what it gets, as Pydantic models: the one validator behind gRPC and HTTP.

A model that exists is valid: services take these models and check no field again. `fields.py` has each field's rules.
"""

import enum
import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, ClassVar

from pydantic import AliasPath, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from course_service.course import COLLECTION, State
from course_service.fields import (
    Code,
    CourseId,
    CourseName,
    Description,
    ExternalIds,
    Labels,
    LanguageCode,
    Owner,
    RequestId,
    Subjects,
    Title,
    at_most,
)

MAX_BATCH = 100
"""How many courses one call can get or create."""


class View(enum.StrEnum):
    """How much of a course is returned: everything but the description, or everything."""

    BASIC = "BASIC"
    FULL = "FULL"


class _Input(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _CourseInput(_Input):
    """The fields that callers may set. Others of a course may be sent along and are ignored."""

    title: Title
    code: Code = ""
    description: Description = ""
    owner: Owner = ""
    language_code: LanguageCode = ""
    subjects: Subjects = []
    labels: Labels = {}
    external_ids: ExternalIds = {}

    @model_validator(mode="before")
    @classmethod
    def _without_ignored_fields(cls, data: object) -> object:
        if isinstance(data, dict):
            return {
                field: cls._EMPTY.get(field) if value is None else value  # null stands for empty, as in protobuf's JSON
                for field, value in data.items()
                if field not in cls.IGNORED_FIELDS
            }
        return data

    IGNORED_FIELDS: ClassVar[frozenset[str]] = frozenset(
        {"name", "uid", "state", "create_time", "update_time", "delete_time", "purge_time", "etag"}
    )
    _EMPTY: ClassVar[Mapping[str, object]] = {
        "etag": "", "title": "", "code": "", "description": "", "owner": "", "language_code": "", "subjects": [],
        "labels": {}, "external_ids": {},
    }  # fmt: skip


class CourseCreate(_CourseInput):
    """A course to create. Output-only fields, the name and the etag may be sent along and are ignored."""


class CourseUpdate(_CourseInput):
    """Fields of a course to change: those that are sent; null clears. Output-only fields and the name are ignored.

    An etag that is sent is the one that the course must have.
    """

    title: Title = ""
    etag: str = ""

    IGNORED_FIELDS: ClassVar[frozenset[str]] = _CourseInput.IGNORED_FIELDS - {"etag"}


class _Write(_Input):
    """What every write takes."""

    request_id: RequestId = ""
    validate_only: bool = False

    @property
    def fingerprint(self) -> str:
        """The same for requests that ask for the same."""
        return hashlib.sha256(json.dumps(self._asked(), sort_keys=True).encode()).hexdigest()

    def _asked(self) -> dict[str, object]:
        """Tell what is asked for, the same by gRPC and HTTP."""
        return self.model_dump(exclude={"request_id", "validate_only"})


class _Named(_Input):
    """What everything about one course takes."""

    name: CourseName

    @property
    def course_id(self) -> str:
        """The last part of the name."""
        return self.name.removeprefix(COLLECTION)


class CreateCourseRequest(_Write):
    """What CreateCourse takes."""

    course: CourseCreate
    course_id: CourseId = ""


class GetCourseRequest(_Named):
    """What GetCourse takes."""


class ListCoursesRequest(_Input):
    """What ListCourses takes. Page, filter and order are checked there: their faults have reasons of their own."""

    page_size: int = 0
    page_token: str = ""
    filter: str = ""
    order_by: str = ""
    show_deleted: bool = False
    view: View = View.BASIC


class UpdateCourseRequest(_Named, _Write):
    """What UpdateCourse takes."""

    # By gRPC the name is a field of the course, and that is where its violations point.
    model_config = ConfigDict(validate_by_alias=True, validate_by_name=True)

    name: CourseName = Field(validation_alias=AliasPath("course", "name"))
    course: CourseUpdate
    update_mask: Sequence[str] | None = None
    """The fields to change; None: those that were sent."""
    if_match: str = ""
    allow_missing: bool = False

    @property
    def etag(self) -> str:
        """The etag that the course must have, or nothing."""
        return self.if_match or self.course.etag

    def _asked(self) -> dict[str, object]:
        # Of the course only what was sent counts, and only what is to be changed, unless it may have to be created.
        sent = self.course.model_dump(exclude_unset=True, exclude={"etag"}) if self.allow_missing else None
        return {"name": self.name, "changes": self.changes, "sent": sent, "etag": self.etag}

    @property
    def changes(self) -> dict[str, object]:
        """The new values of the fields to change."""
        fields = self.course.model_fields_set if self.update_mask is None else self.update_mask
        return {field: getattr(self.course, field) for field in fields if field != "etag"}


class Change(_Write):
    """What UndeleteCourse, PublishCourse and ArchiveCourse take beside the name."""

    etag: str = ""


class ChangeCourseRequest(_Named, Change):
    """What UndeleteCourse, PublishCourse and ArchiveCourse take."""


class DeleteCourseRequest(ChangeCourseRequest):
    """What DeleteCourse takes."""

    allow_missing: bool = False


class BatchGetCoursesRequest(_Input):
    """What BatchGetCourses takes."""

    names: Annotated[list[CourseName], Field(min_length=1), at_most(MAX_BATCH)]
    view: View = View.FULL


def _unset(value: object) -> object:
    if value:
        raise PydanticCustomError("FIELD_NOT_ALLOWED", "Must not be set here; set it for the whole batch.")
    return value


class BatchItem(CreateCourseRequest):
    """One course of BatchCreateCourses; what goes for the whole batch is not for its items."""

    request_id: Annotated[RequestId, BeforeValidator(_unset)] = ""
    validate_only: Annotated[bool, BeforeValidator(_unset)] = False


class BatchCreateCoursesRequest(_Write):
    """What BatchCreateCourses takes."""

    requests: Annotated[list[BatchItem], Field(min_length=1), at_most(MAX_BATCH)]


class CourseResponse(BaseModel):
    """A course as HTTP callers get it. Times are UTC, to the microsecond."""

    model_config = ConfigDict(from_attributes=True)

    name: str
    uid: str
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
    etag: str


class ListCoursesResponse(BaseModel):
    """A page of courses; `next_page_token` is empty on the last."""

    model_config = ConfigDict(from_attributes=True)

    courses: Sequence[CourseResponse]
    next_page_token: str


class CoursesResponse(BaseModel):
    """Courses in the order asked."""

    courses: Sequence[CourseResponse]
