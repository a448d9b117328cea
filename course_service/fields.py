"""What each field may hold: a type for each, with the rules of the contract in it, and the limits of `course.py`."""

import re
import unicodedata
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated

import langcodes
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic.config import JsonDict
from pydantic_core import InitErrorDetails, PydanticCustomError

from course_service import course as limits
from course_service.course import COLLECTION
from course_service.validation import violation

_CONTROL_OR_SURROGATE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_CONTROL_OR_SURROGATE_BUT_LINES = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_INVISIBLE = {"Cc", "Cf", "Zs", "Zl", "Zp"}


COURSE_ID_PATTERN = "^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$"
UUID_PATTERN = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
EXISTING_ID_PATTERN = f"{COURSE_ID_PATTERN}|{UUID_PATTERN}"
COURSE_NAME_PATTERN = "|".join(f"^{COLLECTION}{pattern[1:]}" for pattern in (COURSE_ID_PATTERN, UUID_PATTERN))
OWNER_PATTERN = r"^(users/[A-Za-z0-9._~!$&'()*+,;=:@-]+)?$"
LABEL_KEY_PATTERN = "^[a-z][a-z0-9_-]{0,62}$"
EXTERNAL_ID_KEY_PATTERN = "^[a-z][a-z0-9_]{0,31}$"


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
    lower = text.lower()  # capitals or not, it is the same id
    if not re.fullmatch(UUID_PATTERN, lower) or lower == str(uuid.UUID(int=0)):
        raise PydanticCustomError("FIELD_BAD_FORMAT", "Must be a UUID such as {uuid}.", {"uuid": uuid.uuid4()})
    return lower


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


def at_most(limit: int) -> BeforeValidator:
    """Refuse a collection by its size before its items are looked at, so that a huge one costs nothing."""

    def check(value: object) -> object:
        if isinstance(value, list | dict) and len(value) > limit:
            raise PydanticCustomError("FIELD_TOO_MANY_ITEMS", "Must have at most {limit} items.", {"limit": limit})
        return value

    return BeforeValidator(check)


def also(find: Callable[[object], Iterable[InitErrorDetails]]) -> WrapValidator:
    """Refuse what `find` finds wrong with a collection as a whole, along with whatever is wrong with single items."""
    return WrapValidator(lambda value, validate: _with(find, value, validate))


def _with(
    find: Callable[[object], Iterable[InitErrorDetails]], value: object, validate: ValidatorFunctionWrapHandler
) -> object:
    errors: list[InitErrorDetails] = []
    sent = value
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
            for details, violation in ((details, violation(details)) for details in error.errors(include_url=False))
        ]
    errors += find(sent)
    if errors:
        raise ValidationError.from_exception_data("collection", errors)
    return value


def _repetitions(value: object) -> Iterator[InitErrorDetails]:
    seen: dict[object, int] = {}
    for index, item in enumerate(value if isinstance(value, list) else []):
        if isinstance(item, str) and seen.setdefault(item, index) != index:
            duplicate = PydanticCustomError("FIELD_DUPLICATE", "Must not repeat item {first}.", {"first": seen[item]})
            yield InitErrorDetails(type=duplicate, loc=(index,), input=item)


def _map_of_at_most(limit: int) -> Callable[[JsonDict], None]:
    """Document a map as generators of clients understand it: by its values, and its keys apart."""

    def document(schema: JsonDict) -> None:
        pattern_properties = schema.pop("patternProperties")
        assert isinstance(pattern_properties, dict)
        ((pattern, values),) = pattern_properties.items()
        schema.update(additionalProperties=values, propertyNames={"pattern": pattern}, maxProperties=limit)

    return document


Title = Annotated[
    str,
    Field(max_length=limits.TITLE_MAX_LENGTH, json_schema_extra={"minLength": 1}),
    AfterValidator(_title),
]
Code = Annotated[str, Field(max_length=limits.CODE_MAX_LENGTH), AfterValidator(_line)]
Description = Annotated[str, Field(max_length=limits.DESCRIPTION_MAX_LENGTH), AfterValidator(_lines)]
Owner = Annotated[str, Field(max_length=limits.OWNER_MAX_LENGTH, pattern=OWNER_PATTERN)]
LanguageCode = Annotated[
    str,
    Field(max_length=limits.LANGUAGE_CODE_MAX_LENGTH),
    AfterValidator(_language_code),
]
Subject = Annotated[str, Field(min_length=1, max_length=limits.SUBJECT_MAX_LENGTH), AfterValidator(_line)]
Subjects = Annotated[
    list[Subject],
    Field(json_schema_extra={"maxItems": limits.SUBJECTS_MAX_ITEMS, "uniqueItems": True}),
    also(_repetitions),
    at_most(limits.SUBJECTS_MAX_ITEMS),
]
LabelKey = Annotated[str, Field(pattern=LABEL_KEY_PATTERN)]
LabelValue = Annotated[str, Field(max_length=limits.LABEL_VALUE_MAX_LENGTH), AfterValidator(_line)]
Labels = Annotated[
    dict[LabelKey, LabelValue],
    Field(json_schema_extra=_map_of_at_most(limits.LABELS_MAX_ITEMS)),
    at_most(limits.LABELS_MAX_ITEMS),
]
ExternalIdKey = Annotated[str, Field(pattern=EXTERNAL_ID_KEY_PATTERN)]
ExternalIdValue = Annotated[
    str, Field(min_length=1, max_length=limits.EXTERNAL_ID_VALUE_MAX_LENGTH), AfterValidator(_line)
]
ExternalIds = Annotated[
    dict[ExternalIdKey, ExternalIdValue],
    Field(json_schema_extra=_map_of_at_most(limits.EXTERNAL_IDS_MAX_ITEMS)),
    at_most(limits.EXTERNAL_IDS_MAX_ITEMS),
]
CourseId = Annotated[
    str,
    Field(max_length=limits.COURSE_ID_MAX_LENGTH, json_schema_extra={"pattern": f"^({COURSE_ID_PATTERN[1:-1]})?$"}),
    AfterValidator(_course_id),
]
"""An id that a caller may choose, or nothing."""
ExistingCourseId = Annotated[str, Field(pattern=EXISTING_ID_PATTERN)]
"""An id that a course may have: chosen by a caller or made by the service."""
CourseName = Annotated[str, Field(pattern=COURSE_NAME_PATTERN)]
RequestId = Annotated[str, Field(json_schema_extra={"format": "uuid"}), AfterValidator(_request_id)]
"""A UUID of the caller's making, or nothing."""
RequestIdHeader = Annotated[
    str,
    Field(json_schema_extra={"pattern": "^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$"}),
    AfterValidator(_request_id),
]
"""The same as a header. By its pattern, because generators make a UUID of the format, which no header can be."""
