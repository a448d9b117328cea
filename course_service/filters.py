"""The filter language of ListCourses (AIP-160): from text to a tree whose fields, operators and values are checked.

`store/conditions.py` makes SQL of the tree.
"""

import enum
import functools
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import lark

from course_service.course import State
from course_service.errors import FilterInvalid
from course_service.fields import EXTERNAL_ID_KEY_PATTERN, LABEL_KEY_PATTERN

MAX_LENGTH = 2048
MAX_COMPARISONS = 100
MAX_DEPTH = 20


class Kind(enum.Enum):
    """What sort of value a field has, which decides on its operators."""

    TEXT = enum.auto()
    TEXTS = enum.auto()
    TIME = enum.auto()
    STATE = enum.auto()
    UID = enum.auto()


FIELDS = {
    "name": Kind.TEXT,
    "uid": Kind.UID,
    "title": Kind.TEXT,
    "code": Kind.TEXT,
    "owner": Kind.TEXT,
    "language_code": Kind.TEXT,
    "subjects": Kind.TEXTS,
    "state": Kind.STATE,
    "create_time": Kind.TIME,
    "update_time": Kind.TIME,
    "delete_time": Kind.TIME,
}
MAPS = {"labels": LABEL_KEY_PATTERN, "external_ids": EXTERNAL_ID_KEY_PATTERN}
_ORDER = {"<", "<=", ">", ">="}
_OPERATORS = {
    Kind.TEXT: {"=", "!=", ":", *_ORDER},
    Kind.TEXTS: {":"},
    Kind.TIME: {"=", "!=", *_ORDER},
    Kind.STATE: {"=", "!=", ":"},
    Kind.UID: {"=", "!="},
}


@dataclass(frozen=True, slots=True)
class And:
    """All of several conditions."""

    parts: tuple["Condition", ...]


@dataclass(frozen=True, slots=True)
class Or:
    """At least one of several conditions."""

    parts: tuple["Condition", ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite of a condition."""

    part: "Condition"


@dataclass(frozen=True, slots=True)
class Search:
    """Title, code or description has this text, whatever its case."""

    text: str


@dataclass(frozen=True, slots=True)
class Present:
    """The field is not empty; with a key: the map has it."""

    field: str
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """A field, or a map's value under a key, compared with a value. False where there is nothing to compare.

    `:` (has) is: contains, for text; has among them, for texts; equals, for the rest. With `prefix` a text is compared
    by its beginning, by `=`, `!=` and `:` only.
    """

    field: str
    key: str | None
    operator: str
    value: str | datetime | State
    prefix: bool = False


Condition = And | Or | Not | Search | Present | Comparison


_GRAMMAR = r"""
    ?start: expression
    ?expression: sequence ("AND" sequence)*   -> all_of
    ?sequence: factor+                        -> all_of
    ?factor: term ("OR" term)*                -> any_of
    ?term: ("NOT" | "-") simple               -> negation
         | simple
    ?simple: restriction | "(" expression ")"
    restriction: word [OPERATOR value]
    word: TEXT | QUOTED
    value: TEXT | QUOTED | TIME | STAR

    OPERATOR: "!=" | "<=" | ">=" | "=" | "<" | ">" | ":"
    TIME.2: /\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)/
    STAR.2: /\*(?=[\s)]|$)/
    QUOTED: /"(\\[\s\S]|[^"\\])*"|'(\\[\s\S]|[^'\\])*'/
    TEXT: /[^\s()=!<>:"'\\-][^\s()=!<>:"'\\]*/
    %ignore /\s+/
"""
_parser = lark.Lark(_GRAMMAR, parser="lalr", lexer="basic", propagate_positions=True)

_NEVER_STORED = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_PARENTHESES = re.compile(r""""(?:\\[\s\S]|[^"\\])*"|'(?:\\[\s\S]|[^'\\])*'|[()]""")


@functools.lru_cache(maxsize=1024)
def parse_filter(text: str) -> Condition | None:
    """Read a filter; None for an empty one. Raises `FilterInvalid`."""
    if len(text) > MAX_LENGTH:
        raise FilterInvalid(f"A filter has at most {MAX_LENGTH} characters", MAX_LENGTH)
    if not text.strip():
        return None
    if found := _NEVER_STORED.search(text):
        raise FilterInvalid("No course has this character in its text", found.start())
    _check_depth(text)
    try:
        tree = _parser.parse(text)
    except lark.UnexpectedCharacters as error:
        raise FilterInvalid("Unexpected character, or a quote that is not closed", error.pos_in_stream or 0) from None
    except lark.UnexpectedToken as error:
        at_end = error.token.type == "$END"
        problem = "Unexpected end" if at_end else f"Unexpected {str(error.token)[:40]!r}"
        raise FilterInvalid(problem, len(text) if at_end else error.token.start_pos or 0) from None
    try:
        return _Builder().transform(tree)
    except lark.exceptions.VisitError as error:
        raise error.orig_exc from None


def _check_depth(text: str) -> None:
    depth = 0
    for found in _PARENTHESES.finditer(text):
        depth += {"(": 1, ")": -1}.get(found.group(), 0)
        if depth > MAX_DEPTH:
            raise FilterInvalid(f"Parentheses are at most {MAX_DEPTH} deep", found.start())


@dataclass(frozen=True, slots=True)
class _Word:
    """A word or quoted text, with where it stands."""

    text: str
    position: int
    quoted: bool = False
    prefix: bool = False


class _Builder(lark.Transformer[lark.Token, Condition]):
    """Makes conditions of the parser's tree, from the leaves up."""

    def __init__(self) -> None:
        super().__init__()
        self._comparisons = 0

    def all_of(self, parts: list[Condition]) -> Condition:
        """Join conditions that AND, or nothing, separates."""
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def any_of(self, parts: list[Condition]) -> Condition:
        """Join conditions that OR separates."""
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def negation(self, parts: list[Condition]) -> Condition:
        """Turn a condition around."""
        return Not(parts[0])

    def word(self, tokens: list[lark.Token]) -> _Word:
        """Take a word as it is, or a text out of its quotes; a * at the end that is not escaped stands for anything."""
        (token,) = tokens
        text, quoted = str(token), token.type == "QUOTED"
        if quoted:
            text = text[1:-1]
        prefix = re.search(r"(?:^|[^\\])(?:\\\\)*\*$", text) is not None
        if prefix:
            text = text[:-1]
        if quoted:
            text = re.sub(r"\\([\s\S])", r"\1", text)
        return _Word(text, token.start_pos or 0, quoted, prefix)

    value = word

    def restriction(self, parts: list[_Word | lark.Token | None]) -> Condition:
        """Check a comparison, or take a text alone as a search."""
        word, operator, value = parts
        assert isinstance(word, _Word)
        self._comparisons += 1
        if self._comparisons > MAX_COMPARISONS:
            raise FilterInvalid(f"A filter has at most {MAX_COMPARISONS} comparisons", word.position)
        if operator is None:
            if not word.text:
                raise FilterInvalid("An empty text cannot be searched for", word.position)
            return Search(word.text)
        assert isinstance(operator, lark.Token)
        assert isinstance(value, _Word)
        if word.quoted:
            raise FilterInvalid("A field must not be quoted", word.position)
        return _comparison(word, str(operator), operator.start_pos or 0, value)


def _comparison(word: _Word, operator: str, operator_position: int, value: _Word) -> Condition:
    field, _, key = word.text.partition(".")
    if field in MAPS:
        if not key:
            if operator == ":" and not value.prefix and re.fullmatch(MAPS[field], value.text):
                return Present(field, value.text)
            raise FilterInvalid(f"{field} needs a key: {field}.KEY, or {field}:KEY", word.position)
        if not re.fullmatch(MAPS[field], key):
            raise FilterInvalid(f"Not a possible key of {field}", word.position)
        kind = Kind.TEXT
    elif word.text in FIELDS:
        kind = FIELDS[word.text]
    else:
        raise FilterInvalid(f"There is no field {word.text[:40]}", word.position)
    if operator == ":" and value.prefix and not value.text and kind is not Kind.UID:
        return Present(field, key or None)
    if operator not in _OPERATORS[kind]:
        raise FilterInvalid(f"{field} does not take {operator}", operator_position)
    if value.prefix and (kind not in {Kind.TEXT, Kind.TEXTS} or operator in _ORDER):
        raise FilterInvalid(f"{field} {operator} does not take a * at the end", value.position)
    return Comparison(field, key or None, operator, _value(kind, field, value), value.prefix)


def _value(kind: Kind, field: str, value: _Word) -> str | datetime | State:
    match kind:
        case Kind.STATE:
            if value.text not in State.__members__:
                raise FilterInvalid(f"{field} must be one of {', '.join(State)}", value.position)
            return State[value.text]
        case Kind.UID:
            try:
                return str(UUID(value.text))
            except ValueError:
                raise FilterInvalid(f"{field} must be a UUID", value.position) from None
        case Kind.TIME:
            return _time(field, value)
        case _:
            return value.text


_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,6})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def _time(field: str, value: _Word) -> datetime:
    try:
        if _TIME.fullmatch(value.text):
            # To UTC by hand: astimezone() knows no year before 1 or after 9999, which an offset can lead to.
            time = datetime.fromisoformat(value.text.upper())
            return (time.replace(tzinfo=None) - (time.utcoffset() or time - time)).replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        pass
    raise FilterInvalid(
        f"{field} must be a time such as 2026-01-31T12:00:00Z, to the microsecond at most", value.position
    )
