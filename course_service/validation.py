"""What is wrong with single fields, from Pydantic's errors to the contract's violations.

The reasons are FIELD_REQUIRED, FIELD_TOO_LONG, FIELD_TOO_MANY_ITEMS, FIELD_BLANK (nothing visible in it),
FIELD_NOT_TRIMMED (white space at an end), FIELD_BAD_CHARACTER (a control character or half a surrogate pair),
FIELD_BAD_FORMAT, FIELD_DUPLICATE, FIELD_NOT_ALLOWED (in an item of a batch), FIELD_MASK_INVALID, FIELD_CONFLICT (a
header and a field of the body disagree), FIELD_UNKNOWN and FIELD_WRONG_TYPE (these two mostly by HTTP: gRPC clients
hardly can send such a message).
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from course_service.errors import FieldMaskInvalid, RequestInvalid, Violation

_ModelT = TypeVar("_ModelT", bound=BaseModel)


def validated(model: type[_ModelT], data: Mapping[str, object]) -> _ModelT:
    """Make a model of `data`, or raise `RequestInvalid` with everything that is wrong with it."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise invalid([violation(details) for details in error.errors(include_url=False)]) from None


def invalid(violations: Sequence[Violation]) -> RequestInvalid:
    """Make the error of a request that breaks rules."""
    only_the_mask = all(violation.reason == FieldMaskInvalid.reason for violation in violations)
    return (FieldMaskInvalid if only_the_mask else RequestInvalid)(violations)


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


def violation(details: Mapping[str, Any]) -> Violation:
    """Turn one of Pydantic's errors into a violation."""
    kind: str = details["type"]
    location = details["loc"]
    if kind == "string_pattern_mismatch" and details["input"] == "" and location[-1] != "[key]":
        kind = "missing"  # protobuf cannot distinguish them
    if kind.startswith("FIELD_"):  # one of the rules above
        reason, sentence = kind, details["msg"]
    elif kind in _BUILT_IN_RULES:
        reason, template = _BUILT_IN_RULES[kind]
        sentence = template.format(**details.get("ctx", {}))
    else:
        reason, sentence = "FIELD_WRONG_TYPE", f"{details['msg']}."
    return Violation(field=_path(location), reason=reason, description=sentence)


def field_name(sent: str) -> str:
    """Write the name of a field as it was sent, in quotes if it is an odd one."""
    return sent if sent.isidentifier() and len(sent) <= 80 else json.dumps(sent[:80])


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
            name = field_name(step)
            path += f".{name}" if path else name
        above = step if above not in _MAPS else ""
    return path
