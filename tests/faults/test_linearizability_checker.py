"""The checker of histories finds what is planted, and accepts what one course can have done."""

import itertools
import math
import random
from collections.abc import Sequence

import pytest

from tests.faults.support.linearizability import OK, UNKNOWN, Operation, Version, violation


def seen(value: str, etag: str = "", *, is_deleted: bool = False) -> Version:
    return Version(value, is_deleted, etag or f"etag of {value}")


def create(start: float, end: float, value: str, result: str = OK) -> Operation:
    return Operation("create", start, end, result, value, seen=seen(value) if result == OK else None)


def update(start: float, end: float, value: str, result: str = OK, etag: str = "") -> Operation:
    return Operation("update", start, end, result, value, etag, seen(value) if result == OK else None)


def get(start: float, end: float, value: str) -> Operation:
    return Operation("get", start, end, OK, seen=seen(value))


def unknown(kind: str, start: float, value: str = "") -> Operation:
    return Operation(kind, start, math.inf, UNKNOWN, value)


def test_calls_one_after_the_other_are_accepted() -> None:
    assert not violation(
        [
            Operation("get", 0, 1, "COURSE_NOT_FOUND"),
            create(2, 3, "a"),
            get(4, 5, "a"),
            update(6, 7, "b", etag="etag of a"),
            Operation("delete", 8, 9, OK, seen=seen("b", "deleted", is_deleted=True)),
            update(10, 11, "c", "COURSE_DELETED"),
            create(12, 13, "d", "COURSE_ID_HELD_BY_DELETED_COURSE"),
            Operation("delete", 14, 15, "COURSE_NOT_FOUND"),
            Operation("undelete", 16, 17, OK, seen=seen("b", "back")),
            update(18, 19, "e", "ETAG_MISMATCH", etag="etag of b"),
        ]
    )


def test_concurrent_calls_are_accepted_in_any_order_that_explains_them() -> None:
    assert not violation([create(0, 1, "a"), update(2, 6, "b"), update(2, 6, "c"), get(3, 5, "c"), get(7, 8, "b")])
    assert not violation([create(0, 1, "a"), update(2, 6, "b"), get(3, 4, "a"), get(5, 7, "b")])
    assert not violation([create(0, 3, "a"), create(1, 2, "b", "COURSE_ALREADY_EXISTS")])


def test_a_stale_read_is_found() -> None:
    assert violation([create(0, 1, "a"), update(2, 3, "b"), get(4, 5, "a")])


def test_a_read_older_than_one_before_it_is_found() -> None:
    # Both reads are during the update: each alone may have seen either.
    assert violation([create(0, 1, "a"), update(2, 9, "b"), get(3, 4, "b"), get(5, 6, "a")])


def test_a_lost_update_is_found() -> None:
    both = [update(2, 5, "b", etag="etag of a"), update(3, 6, "c", etag="etag of a")]
    assert violation([create(0, 1, "a"), *both])
    assert not violation([create(0, 1, "a"), both[0], update(3, 6, "c", "ETAG_MISMATCH", etag="etag of a")])


def test_an_update_that_never_shows_is_found() -> None:
    assert violation([create(0, 1, "a"), update(2, 3, "b"), get(4, 5, "a"), get(6, 7, "a")])


def test_two_creates_of_one_course_are_found() -> None:
    assert violation([create(0, 2, "a"), create(1, 3, "b")])


def test_a_value_that_nobody_wrote_is_found() -> None:
    assert violation([create(0, 1, "a"), get(2, 3, "z")])


def test_a_write_of_unknown_outcome_may_take_effect_at_once_later_or_never() -> None:
    history = [create(0, 1, "a"), unknown("update", 2, "b")]
    assert not violation([*history, get(3, 4, "b")])
    assert not violation([*history, get(3, 4, "a"), get(5, 6, "a"), get(7, 8, "b")])
    assert not violation([*history, get(3, 4, "a"), update(5, 6, "c", etag="etag of a")])


def test_a_write_of_unknown_outcome_takes_effect_once_and_not_before_it_began() -> None:
    history = [create(0, 1, "a"), unknown("update", 4, "b")]
    assert violation([*history, get(2, 3, "b")])
    assert violation([*history, get(5, 6, "b"), update(7, 8, "c"), get(9, 10, "b")])


def test_an_etag_that_nobody_was_told_is_learnt_from_the_next_read() -> None:
    history = [create(0, 1, "a"), unknown("update", 2, "b"), get(3, 4, "b")]
    assert not violation([*history, update(5, 6, "c", etag="etag of b")])
    assert violation([*history, update(5, 6, "c", "ETAG_MISMATCH", etag="etag of b")])


def simulated(seed: int, calls: int, clients: int) -> list[Operation]:
    """A history of a course that does what it should; some writes are cut off, and take effect or not."""
    chance = random.Random(seed)
    etags = map(str, itertools.count())
    version: Version | None = None
    history = []
    free = [0.0] * clients
    for number, moment in enumerate(sorted(chance.uniform(0, calls / clients * 1.5) for _ in range(calls))):
        client = chance.randrange(clients)
        start = max(free[client], moment - chance.random())
        if start > moment:
            continue
        kind = chance.choice(("create", "get", "get", "get", "update", "update", "delete", "undelete"))
        etag = version.etag if version and kind == "update" and chance.random() < 0.6 else ""
        result, after = outcome(version, kind, f"v{number}", etag, next(etags))
        is_cut_off = kind != "get" and chance.random() < 0.03
        if is_cut_off and chance.random() < 0.5:
            after = version
        version = after
        end = free[client] = moment + chance.random()
        value = f"v{number}" if kind in {"create", "update"} else ""
        if is_cut_off:
            history.append(Operation(kind, start, math.inf, UNKNOWN, value, etag))
        else:
            history.append(Operation(kind, start, end, result, value, etag, version if result == OK else None))
    return history


def outcome(version: Version | None, kind: str, value: str, etag: str, new_etag: str) -> tuple[str, Version | None]:
    if version is None:
        return (OK, Version(value, is_deleted=False, etag=new_etag)) if kind == "create" else ("COURSE_NOT_FOUND", None)
    if kind == "get":
        return OK, version
    if kind == "create":
        return "COURSE_ID_HELD_BY_DELETED_COURSE" if version.is_deleted else "COURSE_ALREADY_EXISTS", version
    if kind == "undelete":
        if not version.is_deleted:
            return "COURSE_NOT_DELETED", version
        return OK, Version(version.value, is_deleted=False, etag=new_etag)
    if version.is_deleted:
        return "COURSE_DELETED" if kind == "update" else "COURSE_NOT_FOUND", version
    return OK, Version(value if kind == "update" else version.value, is_deleted=kind == "delete", etag=new_etag)


def with_a_stale_read(history: Sequence[Operation], seed: int) -> list[Operation]:
    """Let one read return what was overwritten well before it began."""
    chance = random.Random(seed)
    writes = [call for call in history if call.kind in {"create", "update"} and call.result == OK]
    old, overwriting = chance.choice(list(itertools.pairwise(writes)))
    late = max(call.end for call in (old, overwriting)) + 5
    return [*history, Operation("get", late, late + 0.1, OK, seen=old.seen)]


@pytest.mark.parametrize("seed", range(20))
def test_long_histories_are_checked_quickly_and_a_stale_read_in_them_is_found(seed: int) -> None:
    history = simulated(seed, calls=400, clients=8)
    assert len(history) > 200
    assert not violation(history)
    assert violation(with_a_stale_read(history, seed))
