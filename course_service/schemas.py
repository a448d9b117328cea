"""What a caller may send, as Pydantic models: the one validator behind gRPC and HTTP.

A model that exists is valid: services take these models and check no field again. `fields.py` has each field's rules.
"""

import enum
import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import AliasPath, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import InitErrorDetails, PydanticCustomError

from course_service import descriptions
from course_service.course import COLLECTION
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
    also,
    at_most,
)
from course_service.responses import CourseResponse

MAX_BATCH = 100
"""How many courses one call can get or create."""


class View(enum.StrEnum):
    """How much of a course is returned: everything but the description, or everything."""

    BASIC = "BASIC"
    FULL = "FULL"


class _Input(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _ignored_fields(schema: dict[str, Any]) -> None:
    """Document the fields that may be sent along."""
    for name, field in CourseResponse.model_fields.items():
        if name not in schema["properties"]:
            schema["properties"][name] = {"readOnly": True, "description": f"Ignored. {field.description}"}


class _CourseInput(_Input):
    """The fields that callers may set. Others of a course may be sent along and are ignored; null stands for empty."""

    model_config = ConfigDict(json_schema_extra=_ignored_fields)

    # With factories, because JSON Schema has no use for an empty default: a generated client would send it.
    title: Title | None = Field(default_factory=str, description=f"{descriptions.TITLE} Cannot be cleared.")
    code: Code | None = Field(default_factory=str, description=descriptions.CODE)
    description: Description | None = Field(default_factory=str, description=descriptions.DESCRIPTION)
    owner: Owner | None = Field(default_factory=str, description=descriptions.OWNER)
    language_code: LanguageCode | None = Field(default_factory=str, description=descriptions.LANGUAGE_CODE)
    subjects: Subjects | None = Field(default_factory=list, description=descriptions.SUBJECTS)
    labels: Labels | None = Field(default_factory=dict, description=descriptions.LABELS)
    external_ids: ExternalIds | None = Field(default_factory=dict, description=descriptions.EXTERNAL_IDS)

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

    title: Title = Field(description=descriptions.TITLE)


class CourseUpdate(_CourseInput):
    """Fields of a course to change: those that are sent; null clears. Output-only fields and the name are ignored."""

    etag: str | None = Field(
        default_factory=str, description="The etag that the course must have; `If-Match` says the same."
    )

    IGNORED_FIELDS: ClassVar[frozenset[str]] = _CourseInput.IGNORED_FIELDS - {"etag"}


def _hash(asked: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


class _Write(_Input):
    """What every write takes."""

    request_id: RequestId = Field(
        default_factory=str,
        description="A UUID of the caller's making that makes the call safe to retry; `Idempotency-Key` says the same.",
    )
    validate_only: bool = Field(
        default_factory=bool, description="Check everything and return the would-be response; store nothing."
    )

    @property
    def fingerprint(self) -> str:
        """The same for requests that ask for the same, by gRPC and HTTP, before and after a field is added."""
        return _hash(self._asked(exclude_defaults=True))

    @property
    def fingerprints(self) -> tuple[str, str]:
        """What an idempotency record of the same request may have: records of version 0.1 counted defaults too."""
        return self.fingerprint, _hash(self._asked(exclude_defaults=False))

    @property
    def course_name(self) -> str:
        """The name of the course that it is about, if the request says it."""
        return ""

    def _asked(self, *, exclude_defaults: bool) -> dict[str, object]:
        """Return what is asked for."""
        return self.model_dump(exclude={"request_id", "validate_only"}, exclude_defaults=exclude_defaults)


class _Named(_Input):
    """What everything about one course takes."""

    name: CourseName

    @property
    def course_id(self) -> str:
        """The last part of the name."""
        return self.name.removeprefix(COLLECTION)

    @property
    def course_name(self) -> str:
        """The name."""
        return self.name


class CreateCourseRequest(_Write):
    """What CreateCourse takes."""

    course: CourseCreate = Field(description="The course.")
    course_id: CourseId = Field(
        default_factory=str,
        description="Last part of the course's name, not to read as a UUID; left out, the service makes a UUID.",
    )

    @property
    def course_name(self) -> str:
        """The name that the course is to have, if the request chooses it."""
        return COLLECTION + self.course_id if self.course_id else ""


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

    @property
    def query(self) -> str:
        """Stands for everything that must be the same on every page of a list."""
        same = (self.filter, self.order_by, self.show_deleted, self.view.value)
        return hashlib.blake2b(repr(same).encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def _mask(paths: Sequence[str] | None) -> list[str] | None:
    """Read an update mask: `*` stands for every field that callers may set, and the others are left out."""
    if paths is None:
        return None
    if "*" in paths and len(paths) > 1:
        raise PydanticCustomError("FIELD_MASK_INVALID", "Must have * alone, or no *.")
    for path in paths:
        if path not in {"*", *CourseResponse.model_fields}:
            raise PydanticCustomError(
                "FIELD_MASK_INVALID", "Must name fields of a course; {path} is none.", {"path": path[:80]}
            )
    settable = CourseCreate.model_fields
    return list(settable) if "*" in paths else [path for path in dict.fromkeys(paths) if path in settable]


class UpdateCourseRequest(_Named, _Write):
    """What UpdateCourse takes."""

    # By gRPC the name is a field of the course, and that is where its violations point.
    model_config = ConfigDict(validate_by_alias=True, validate_by_name=True)

    name: CourseName = Field(validation_alias=AliasPath("course", "name"))
    course: CourseUpdate
    update_mask: Annotated[Sequence[str] | None, BeforeValidator(_mask)] = Field(
        None, description="The fields to change; None: those that were sent."
    )
    if_match: str = ""
    allow_missing: bool = False

    @property
    def etag(self) -> str:
        """The etag that the course must have, or nothing."""
        return self.if_match or self.course.etag or ""

    @property
    def etags(self) -> Collection[str]:
        """The etags of which the course must have one; none if it may have any."""
        return etags_of(self.etag)

    def _asked(self, *, exclude_defaults: bool) -> dict[str, object]:  # it has none
        # Of the course only what was sent counts, and only what is to be changed, unless it may have to be created.
        sent = self.course.model_dump(exclude_unset=True, exclude={"etag"}) if self.allow_missing else None
        return {"name": self.name, "changes": self.changes, "sent": sent, "etag": self.etag}

    @property
    def changes(self) -> dict[str, object]:
        """The new values of the fields to change."""
        fields = self.course.model_fields_set if self.update_mask is None else self.update_mask
        return {field: getattr(self.course, field) for field in fields if field != "etag"}


def etags_of(text: str) -> Collection[str]:
    """Return the etags of a list, with commas between them; none for `*`, which is any."""
    return () if text in {"", "*"} else [etag.strip() for etag in text.split(",")]


class Change(_Write):
    """What UndeleteCourse, PublishCourse and ArchiveCourse take beside the name."""

    etag: str = Field(
        default_factory=str,
        description="An etag that the course must have, or several with commas between them (RFC 9110, If-Match);"
        ' "*": any.',
    )

    @property
    def etags(self) -> Collection[str]:
        """The etags of which the course must have one; none if it may have any."""
        return etags_of(self.etag)


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

    request_id: SkipJsonSchema[Annotated[RequestId, BeforeValidator(_unset)]] = ""
    validate_only: SkipJsonSchema[Annotated[bool, BeforeValidator(_unset)]] = False


def _items_in_conflict(items: object) -> Iterator[InitErrorDetails]:
    """Find what only one course can have and an earlier item of the batch has."""
    first: dict[tuple[object, ...], int] = {}
    for index, item in enumerate(items if isinstance(items, list) else []):
        for *location, value in _unique_parts(item):
            key = (*location, value)
            if first.setdefault(key, index) != index:
                duplicate = PydanticCustomError(
                    "FIELD_DUPLICATE", "Must not repeat that of requests[{first}].", {"first": first[key]}
                )
                yield InitErrorDetails(type=duplicate, loc=(index, *location), input=value)


def _unique_parts(item: object) -> Iterator[tuple[str, ...]]:
    """Return the path of each unique part of an item, followed by its value."""
    if not isinstance(item, dict):
        return
    if isinstance(course_id := item.get("course_id"), str) and course_id:
        yield "course_id", course_id
    course = item.get("course")
    external_ids = course.get("external_ids") if isinstance(course, dict) else None
    for key, value in external_ids.items() if isinstance(external_ids, dict) else ():
        if isinstance(value, str):
            yield "course", "external_ids", key, value


class BatchCreateCoursesRequest(_Write):
    """What BatchCreateCourses takes."""

    requests: Annotated[
        list[BatchItem],
        Field(min_length=1, description="The courses to create.", json_schema_extra={"maxItems": MAX_BATCH}),
        also(_items_in_conflict),
        at_most(MAX_BATCH),
    ]
