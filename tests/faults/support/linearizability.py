"""Whether what callers saw of one course can have happened in some order, one call after the other.

A history is linearizable if each call can be given a moment between its start and its end at which it took effect at
once, so that all of them together are what one course does. The search is that of Wing and Gong (1993), which tries
the calls that may come next; what was tried is remembered, as Lowe (2017) does, and no state is tried twice.

A write without a known outcome may have taken effect at any moment after its start, long after its caller gave up, or
never.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

OK = "OK"
UNKNOWN = "UNKNOWN"


@dataclass(frozen=True)
class Version:
    """What a course is at a moment, or what a caller is told it is."""

    value: str
    is_deleted: bool
    etag: str
    """Empty in the search if nobody was told it: it is that of a write without a known outcome."""


@dataclass(frozen=True)
class Operation:
    """One call: what was asked, what came back, and when."""

    kind: str
    """create, get, update, delete or undelete."""
    start: float
    end: float
    """Infinite if the outcome is unknown."""
    result: str
    """OK, UNKNOWN, or the reason of a failure."""
    value: str = ""
    """What a create or an update writes; no two writes of a history write the same."""
    etag: str = ""
    """The version that the course must have; empty if any will do."""
    seen: Version | None = None
    """What a call that succeeded returned."""


def violation(history: Sequence[Operation]) -> str:
    """Say why a history of one course is not linearizable; nothing if it is."""
    known = sorted((call for call in history if call.result != UNKNOWN), key=lambda call: call.start)
    unknown = sorted(
        (call for call in history if call.result == UNKNOWN and call.kind != "get"), key=lambda call: call.start
    )
    furthest: tuple[int, str] = (-1, "")
    tried: set[tuple[int, int, Version | None]] = set()
    waiting: list[tuple[int, int, Version | None]] = [(0, 0, None)]
    while waiting:
        # Bits say which calls have taken effect.
        done, happened, version = waiting.pop()
        if (done, happened, version) in tried:
            continue
        tried.add((done, happened, version))
        next_known = list(_next(known, done))
        if not next_known:
            return ""
        limit = min(known[index].end for index in next_known)
        # What changes nothing and is possible now may as well come now: no order is lost.
        idle = [index for index in next_known if version in _after(version, known[index]) and _is_sure(version)]
        if idle:
            waiting.append((done | sum(1 << index for index in idle), happened, version))
            continue
        if done.bit_count() > furthest[0]:
            furthest = done.bit_count(), f"{version}: none of {[known[index] for index in next_known]} is possible"
        for index, call in enumerate(unknown):
            if call.start <= limit and not happened >> index & 1:
                waiting += ((done, happened | 1 << index, after) for after in _after(version, call))
        for index in next_known:
            waiting += ((done | 1 << index, happened, after) for after in _after(version, known[index]))
    return f"after {furthest[0]} of {len(known)} calls, when the course is {furthest[1]}"


def _next(calls: Sequence[Operation], done: int) -> Iterator[int]:
    """The calls that may take effect next: none that is still to come ended before they began."""
    earliest_end = math.inf
    first = (~done & (done + 1)).bit_length() - 1
    for index in range(first, len(calls)):
        if calls[index].start > earliest_end:
            return
        if not done >> index & 1:
            earliest_end = min(earliest_end, calls[index].end)
            yield index


def _is_sure(version: Version | None) -> bool:
    return version is None or version.etag != ""


def _after(version: Version | None, call: Operation) -> Iterator[Version | None]:
    """What a course can be after a call that takes effect now; nothing if what the call returned is impossible."""
    yield from _after_exactly(version, call)
    if version and call.etag and not version.etag:  # it may be the version that the call names
        yield from _after_exactly(Version(version.value, version.is_deleted, call.etag), call)


def _after_exactly(version: Version | None, call: Operation) -> Iterator[Version | None]:
    result, after = _outcome(version, call)
    if call.result == UNKNOWN:
        if result == OK:
            yield after
    elif call.result == result:
        if result != OK:
            yield after
        elif _is_shown(after, call.seen):
            yield call.seen


def _is_shown(version: Version | None, seen: Version | None) -> bool:
    """Whether a call that finds or makes a version can have returned what its caller saw."""
    if version is None or seen is None:
        return False
    same = (version.value, version.is_deleted) == (seen.value, seen.is_deleted)
    return same and version.etag in {"", seen.etag}


def _outcome(version: Version | None, call: Operation) -> tuple[str, Version | None]:
    """How a call ends, and what the course is then."""
    match call.kind, version:
        case "create", None:
            return OK, Version(call.value, is_deleted=False, etag="")
        case "create", Version(is_deleted=is_deleted):
            return "COURSE_ID_HELD_BY_DELETED_COURSE" if is_deleted else "COURSE_ALREADY_EXISTS", version
        case _, None:
            return "COURSE_NOT_FOUND", None
        case "get", _:
            return OK, version
        case _, Version(etag=etag) if call.etag and call.etag != etag:
            return "ETAG_MISMATCH", version
        case "update", Version(is_deleted=False):
            return OK, Version(call.value, is_deleted=False, etag="")
        case "delete", Version(value=value, is_deleted=False):
            return OK, Version(value, is_deleted=True, etag="")
        case "undelete", Version(value=value, is_deleted=True):
            return OK, Version(value, is_deleted=False, etag="")
        case kind, _:
            return _OF_A_COURSE_IN_THE_WRONG_STATE[kind], version


_OF_A_COURSE_IN_THE_WRONG_STATE = {
    "update": "COURSE_DELETED",
    "delete": "COURSE_NOT_FOUND",
    "undelete": "COURSE_NOT_DELETED",
}
