"""What a caller may send and what it gets, as Pydantic models: the one validator behind gRPC and HTTP.

A model that exists is valid: services take these models and check no field again. A rule that is broken becomes a
`Violation`, whose reason is one of

FIELD_REQUIRED, FIELD_TOO_LONG, FIELD_TOO_MANY_ITEMS, FIELD_BLANK (nothing visible in it), FIELD_NOT_TRIMMED (white
space at an end), FIELD_BAD_CHARACTER (a control character or half a surrogate pair), FIELD_BAD_FORMAT, FIELD_DUPLICATE,
FIELD_NOT_ALLOWED (in an item of a batch), FIELD_UNKNOWN and FIELD_WRONG_TYPE (these two mostly by HTTP: gRPC clients
hardly can send such a message).
"""

import enum
import hashlib
import json
import re
import unicodedata
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, ClassVar, TypeVar

import langcodes
from pydantic import (
    AfterValidator,
    AliasPath,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from course_service import course as limits
from course_service.course import COLLECTION, State
from course_service.errors import RequestInvalid, Violation

_CONTROL_OR_SURROGATE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_CONTROL_OR_SURROGATE_BUT_LINES = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_INVISIBLE = {"Cc", "Cf", "Zs", "Zl", "Zp"}

MAX_BATCH = 100
"""How many courses one call can get or create."""

COURSE_ID_PATTERN = "^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$"
UUID_PATTERN = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
_EXISTING_ID_PATTERN = f"{COURSE_ID_PATTERN}|{UUID_PATTERN}"
OWNER_PATTERN = r"^(users/[A-Za-z0-9._~!$&'()*+,;=:@-]+)?$"
LABEL_KEY_PATTERN = "^[a-z][a-z0-9_-]{0,62}$"
EXTERNAL_ID_KEY_PATTERN = "^[a-z][a-z0-9_]{0,31}$"

_ModelT = TypeVar("_ModelT", bound=BaseModel)


def _refuse(pattern: re.Pattern[str], text: str) -> None:
    if found := pattern.search(text):
        raise PydanticCustomError(
            "FIELD_BAD_CHARACTER",
            "Must have no control characters and no lone surrogates; has {character} at position {position}.",
            {"character": f"U+{ord(found.group()):04X}", "position": found.start()},
        )


def _line(text: str) -> str:
    _refuse(_CONTROL_OR_SURROGATE, text)
    return text


def _lines(text: str) -> str:
    _refuse(_CONTROL_OR_SURROGATE_BUT_LINES, text)
    return text


def _title(text: str) -> str:
    if not text:
        raise PydanticCustomError("FIELD_REQUIRED", "Must be given.")
    _refuse(_CONTROL_OR_SURROGATE, text)
    if all(unicodedata.category(character) in _INVISIBLE or character.isspace() for character in text):
        raise PydanticCustomError("FIELD_BLANK", "Must have at least one visible character.")
    if text != text.strip():
        raise PydanticCustomError("FIELD_NOT_TRIMMED", "Must have no white space at either end.")
    return text


def _course_id(text: str) -> str:
    if not text:
        return text
    if not re.fullmatch(COURSE_ID_PATTERN, text):
        raise PydanticCustomError("FIELD_BAD_FORMAT", "Must match {pattern}.", {"pattern": COURSE_ID_PATTERN})
    try:
        uuid.UUID(text)
    except ValueError:
        return text
    raise PydanticCustomError("FIELD_BAD_FORMAT", "Must not read as a UUID; leave it empty to be given one.")


def _request_id(text: str) -> str:
    if not text:
        return text
    try:
        number = uuid.UUID(text)
    except ValueError:
        number = uuid.UUID(int=0)
    if number.int == 0 or len(text) != 36:
        raise PydanticCustomError("FIELD_BAD_FORMAT", "Must be a UUID such as {uuid}.", {"uuid": uuid.uuid4()})
    return str(number)  # capitals or not, it is the same id


def _unset(value: object) -> object:
    if value:
        raise PydanticCustomError("FIELD_NOT_ALLOWED", "Must not be set here; set it for the whole batch.")
    return value


def _language_code(text: str) -> str:
    if not text:
        return text
    try:
        canonical = langcodes.standardize_tag(text)
        known = langcodes.tag_is_valid(text)
    except ValueError:
        known = False
    if not known:
        raise PydanticCustomError("FIELD_BAD_FORMAT", "Must be a BCP-47 language tag such as en or pt-BR.")
    if text != canonical:
        raise PydanticCustomError(
            "FIELD_BAD_FORMAT",
            "Must be in canonical form, which is {canonical}.",
            {"canonical": canonical},
        )
    return text


def _at_most(limit: int) -> BeforeValidator:
    """Refuse a collection by its size before its items are looked at, so that a huge one costs nothing."""

    def check(value: object) -> object:
        if isinstance(value, list | dict) and len(value) > limit:
            raise PydanticCustomError("FIELD_TOO_MANY_ITEMS", "Must have at most {limit} items.", {"limit": limit})
        return value

    return BeforeValidator(check)


def _distinct(value: object, validate: ValidatorFunctionWrapHandler) -> object:
    """Refuse the second and later appearances of an item, along with whatever is wrong with single items."""
    errors: list[InitErrorDetails] = []
    try:
        value = validate(value)
    except ValidationError as error:
        errors = [
            InitErrorDetails(
                # The text is final: as a template without context it is not filled in again.
                type=PydanticCustomError(violation.reason, violation.description),
                loc=details["loc"],
                input=details["input"],
            )
            for details, violation in ((details, _violation(details)) for details in error.errors(include_url=False))
        ]
    seen: dict[object, int] = {}
    for index, item in enumerate(value if isinstance(value, list) else []):
        if isinstance(item, str) and seen.setdefault(item, index) != index:
            duplicate = PydanticCustomError("FIELD_DUPLICATE", "Must not repeat item {first}.", {"first": seen[item]})
            errors.append(InitErrorDetails(type=duplicate, loc=(index,), input=item))
    if errors:
        raise ValidationError.from_exception_data("distinct items", errors)
    return value


Title = Annotated[
    str,
    Field(max_length=limits.TITLE_MAX_LENGTH, json_schema_extra={"minLength": 1}),
    AfterValidator(_title),
]
Code = Annotated[str, Field(max_length=limits.CODE_MAX_LENGTH), AfterValidator(_line)]
Description = Annotated[str, Field(max_length=limits.DESCRIPTION_MAX_LENGTH), AfterValidator(_lines)]
Owner = Annotated[str, Field(max_length=limits.OWNER_MAX_LENGTH, pattern=OWNER_PATTERN)]
LanguageCode = Annotated[str, Field(max_length=limits.LANGUAGE_CODE_MAX_LENGTH), AfterValidator(_language_code)]
Subject = Annotated[str, Field(min_length=1, max_length=limits.SUBJECT_MAX_LENGTH), AfterValidator(_line)]
Subjects = Annotated[
    list[Subject],
    Field(json_schema_extra={"maxItems": limits.SUBJECTS_MAX_ITEMS, "uniqueItems": True}),
    WrapValidator(_distinct),
    _at_most(limits.SUBJECTS_MAX_ITEMS),
]
LabelKey = Annotated[str, Field(pattern=LABEL_KEY_PATTERN)]
LabelValue = Annotated[str, Field(max_length=limits.LABEL_VALUE_MAX_LENGTH), AfterValidator(_line)]
Labels = Annotated[
    dict[LabelKey, LabelValue],
    Field(json_schema_extra={"maxProperties": limits.LABELS_MAX_ITEMS}),
    _at_most(limits.LABELS_MAX_ITEMS),
]
ExternalIdKey = Annotated[str, Field(pattern=EXTERNAL_ID_KEY_PATTERN)]
ExternalIdValue = Annotated[
    str, Field(min_length=1, max_length=limits.EXTERNAL_ID_VALUE_MAX_LENGTH), AfterValidator(_line)
]
ExternalIds = Annotated[
    dict[ExternalIdKey, ExternalIdValue],
    Field(json_schema_extra={"maxProperties": limits.EXTERNAL_IDS_MAX_ITEMS}),
    _at_most(limits.EXTERNAL_IDS_MAX_ITEMS),
]
CourseId = Annotated[
    str,
    Field(max_length=limits.COURSE_ID_MAX_LENGTH, json_schema_extra={"pattern": COURSE_ID_PATTERN}),
    AfterValidator(_course_id),
]
"""An id that a caller may choose, or nothing."""
ExistingCourseId = Annotated[str, Field(pattern=_EXISTING_ID_PATTERN)]
"""An id that a course may have: chosen by a caller or made by the service."""
CourseName = Annotated[str, Field(pattern="|".join(f"^{COLLECTION}{p[1:]}" for p in _EXISTING_ID_PATTERN.split("|")))]
RequestId = Annotated[str, Field(json_schema_extra={"format": "uuid"}), AfterValidator(_request_id)]
"""A UUID of the caller's making, or nothing."""


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


class UpdateCourseRequest(_Write):
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

    @property
    def course_id(self) -> str:
        """The last part of the name."""
        return self.name.removeprefix(COLLECTION)


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

    names: Annotated[list[CourseName], Field(min_length=1), _at_most(MAX_BATCH)]
    view: View = View.FULL


class BatchItem(CreateCourseRequest):
    """One course of BatchCreateCourses; what goes for the whole batch is not for its items."""

    request_id: Annotated[RequestId, BeforeValidator(_unset)] = ""
    validate_only: Annotated[bool, BeforeValidator(_unset)] = False


class BatchCreateCoursesRequest(_Write):
    """What BatchCreateCourses takes."""

    requests: Annotated[list[BatchItem], Field(min_length=1), _at_most(MAX_BATCH)]


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


def validated(model: type[_ModelT], data: Mapping[str, object]) -> _ModelT:
    """Make a model of `data`, or raise `RequestInvalid` with everything that is wrong with it."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise RequestInvalid(violations(error.errors(include_url=False))) from None


def violations(errors: Iterable[Mapping[str, Any]]) -> list[Violation]:
    """Turn Pydantic's errors into the contract's violations."""
    return [_violation(details) for details in errors]


# Pydantic's own rules, as the contract's reasons and sentences; the braces name what Pydantic says of the rule.
_BUILT_IN_RULES = {
    "missing": ("FIELD_REQUIRED", "Must be given."),
    "string_too_short": ("FIELD_REQUIRED", "Must not be empty."),
    "too_short": ("FIELD_REQUIRED", "Must have at least {min_length} item(s)."),
    "string_too_long": ("FIELD_TOO_LONG", "Must have at most {max_length} code points."),
    "string_pattern_mismatch": ("FIELD_BAD_FORMAT", "Must match {pattern}."),
    "string_unicode": ("FIELD_BAD_CHARACTER", "Must have no lone surrogates."),
    "extra_forbidden": ("FIELD_UNKNOWN", "There is no such field."),
}


def _violation(details: Mapping[str, Any]) -> Violation:
    kind: str = details["type"]
    location = details["loc"]
    if kind == "string_pattern_mismatch" and details["input"] == "" and location[-1] != "[key]":
        kind = "missing"  # protobuf cannot tell one from the other
    if kind.startswith("FIELD_"):  # one of the rules above
        reason, sentence = kind, details["msg"]
    elif kind in _BUILT_IN_RULES:
        reason, template = _BUILT_IN_RULES[kind]
        sentence = template.format(**details.get("ctx", {}))
    else:
        reason, sentence = "FIELD_WRONG_TYPE", f"{details['msg']}."
    return Violation(field=_path(location), reason=reason, description=sentence)


_MAPS = {"labels", "external_ids"}


def _path(location: Sequence[str | int]) -> str:
    """Write a location as the contract does: `course.labels["x"]`, `course.subjects[1]`."""
    path = ""
    above: str | int = ""
    for step in location:
        if isinstance(step, int):
            path += f"[{step}]"
        elif above in _MAPS:
            path += f"[{json.dumps(step[:80])}]"
        elif path.endswith("]") and step == "[key]":
            pass  # Pydantic's mark of a fault in the key before it
        else:
            name = step if step.isidentifier() and len(step) <= 80 else json.dumps(step[:80])
            path += f".{name}" if path else name
        above = step if above not in _MAPS else ""
    return path
