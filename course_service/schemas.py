"""What a caller may send and what it gets, as Pydantic models: the one validator behind gRPC and HTTP.

A model that exists is valid: services take these models and check no field again. A rule that is broken becomes a
`Violation`, whose reason is one of

FIELD_REQUIRED, FIELD_TOO_LONG, FIELD_TOO_MANY_ITEMS, FIELD_BLANK (nothing visible in it), FIELD_NOT_TRIMMED (white
space at an end), FIELD_BAD_CHARACTER (a control character or half a surrogate pair), FIELD_BAD_FORMAT, FIELD_DUPLICATE,
FIELD_UNKNOWN and FIELD_WRONG_TYPE (the last two by HTTP only; a gRPC client cannot send such a message).
"""

import json
import re
import unicodedata
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, TypeVar

import langcodes
from pydantic import (
    AfterValidator,
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

COURSE_ID_PATTERN = "^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$"
UUID_PATTERN = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
_EXISTING_ID_PATTERN = f"{COURSE_ID_PATTERN}|{UUID_PATTERN}"
OWNER_PATTERN = r"^(users/[A-Za-z0-9._~!$&'()*+,;=:@-]+)?$"
LABEL_KEY_PATTERN = "^[a-z][a-z0-9_-]{0,62}$"

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
CourseId = Annotated[
    str,
    Field(max_length=limits.COURSE_ID_MAX_LENGTH, json_schema_extra={"pattern": COURSE_ID_PATTERN}),
    AfterValidator(_course_id),
]
"""An id that a caller may choose, or nothing."""
ExistingCourseId = Annotated[str, Field(pattern=_EXISTING_ID_PATTERN)]
"""An id that a course may have: chosen by a caller or made by the service."""
CourseName = Annotated[str, Field(pattern="|".join(f"^{COLLECTION}{p[1:]}" for p in _EXISTING_ID_PATTERN.split("|")))]


class CourseCreate(BaseModel):
    """A course to create. Output-only fields, the name and the etag may be sent along and are ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: Title
    code: Code = ""
    description: Description = ""
    owner: Owner = ""
    language_code: LanguageCode = ""
    subjects: Subjects = []
    labels: Labels = {}

    @model_validator(mode="before")
    @classmethod
    def _without_ignored_fields(cls, data: object) -> object:
        # null stands for a field that is not set, as in protobuf's JSON.
        if isinstance(data, dict):
            return {field: value for field, value in data.items() if value is not None and field not in _IGNORED_FIELDS}
        return data


_IGNORED_FIELDS = {"name", "uid", "state", "create_time", "update_time", "etag"}


class CreateCourseRequest(BaseModel):
    """What CreateCourse takes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    course: CourseCreate
    course_id: CourseId = ""


class GetCourseRequest(BaseModel):
    """What GetCourse takes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: CourseName

    @property
    def course_id(self) -> str:
        """The last part of the name."""
        return self.name.removeprefix(COLLECTION)


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
    state: State
    create_time: datetime
    update_time: datetime
    etag: str


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
    "string_too_long": ("FIELD_TOO_LONG", "Must have at most {max_length} code points."),
    "string_pattern_mismatch": ("FIELD_BAD_FORMAT", "Must match {pattern}."),
    "string_unicode": ("FIELD_BAD_CHARACTER", "Must have no lone surrogates."),
    "extra_forbidden": ("FIELD_UNKNOWN", "There is no such field."),
}


def _violation(details: Mapping[str, Any]) -> Violation:
    kind: str = details["type"]
    if kind.startswith("FIELD_"):  # one of the rules above
        reason, sentence = kind, details["msg"]
    elif kind in _BUILT_IN_RULES:
        reason, template = _BUILT_IN_RULES[kind]
        sentence = template.format(**details.get("ctx", {}))
    else:
        reason, sentence = "FIELD_WRONG_TYPE", f"{details['msg']}."
    return Violation(field=_path(details["loc"]), reason=reason, description=sentence)


def _path(location: Sequence[str | int]) -> str:
    """Write a location as the contract does: `course.labels["x"]`, `course.subjects[1]`."""
    path = ""
    inside_map = False
    for step in location:
        if step == "[key]":  # Pydantic's mark of a fault in the key before it
            continue
        if isinstance(step, int):
            path += f"[{step}]"
        elif inside_map:
            path += f"[{json.dumps(step[:80])}]"
        else:
            path += f".{step}" if path else step
        inside_map = step == "labels"
    return path
