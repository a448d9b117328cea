"""Reads of single courses share queries: what each call sees, and what one that hangs does to the others."""

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import pytest

from course_service import call
from course_service.call import Call
from course_service.course import Course
from course_service.errors import DatabaseUnavailable, DeadlineExceeded
from course_service.later import finished
from course_service.store import combined_reads
from course_service.store.combined_reads import MAX_READERS, CombinedReads
from course_service.store.courses import CourseRepository
from tests.support.waiting import until
from tests.test_repository import COURSE

T = TypeVar("T")


def course(course_id: str, title: str = "Biology") -> Course:
    return dataclasses.replace(COURSE, course_id=course_id, title=title)


class Query:
    """One query: what it asks for, and when it may respond."""

    def __init__(self, course_ids: Collection[str]) -> None:
        self.course_ids = set(course_ids)
        self.seconds = call.remaining()
        self._outcome: Future[None] = Future()

    def respond(self, error: BaseException | None = None) -> None:
        if error:
            self._outcome.set_exception(error)
        else:
            self._outcome.set_result(None)

    def wait(self) -> None:
        """Wait for the response as long as the call has time, as the driver does."""
        try:
            self._outcome.result(timeout=call.remaining())
        except TimeoutError:
            raise DeadlineExceeded from None


class Stored:
    """A database whose queries wait to be let go; each sees the courses as they are when it begins."""

    def __init__(self) -> None:
        self.courses: dict[str, Course] = {"a": course("a"), "b": course("b")}
        self.queries: list[Query] = []
        self.waits = True
        self.at_once = 0
        """How many queries have waited at the same time, at most."""
        self._lock = threading.Lock()
        self._now = 0

    def reads(self, work: Callable[[CourseRepository], T]) -> T:
        return work(self)  # type: ignore[arg-type]  # it has what is called

    def get(self, course_id: str) -> Course | None:
        return self.get_many({course_id}, full=True).get(course_id)

    def get_many(self, course_ids: Collection[str], *, full: bool) -> dict[str, Course]:
        assert full
        found = {course_id: self.courses[course_id] for course_id in course_ids if course_id in self.courses}
        query = Query(course_ids)
        self.queries.append(query)
        if self.waits:
            with self._counted():
                query.wait()
        return found

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        with self._lock:
            self._now += 1
            self.at_once = max(self.at_once, self._now)
        try:
            yield
        finally:
            with self._lock:
                self._now -= 1

    def query(self, number: int) -> Query:
        """Wait for a query to begin."""
        until(lambda: len(self.queries) > number)
        return self.queries[number]

    def query_for(self, course_id: str) -> Query:
        """Wait for a query that asks for one course, alone or with others, to begin."""

        def found() -> list[Query]:
            return [query for query in self.queries if course_id in query.course_ids]

        until(lambda: bool(found()))
        return found()[0]


@pytest.fixture
def stored() -> Iterator[Stored]:
    found = Stored()
    yield found
    for query in found.queries:
        if not query._outcome.done():
            query.respond()


@pytest.fixture
def combined(stored: Stored) -> Iterator[CombinedReads]:
    found = CombinedReads(stored.reads)
    yield found
    found.close()


@pytest.fixture
def callers(combined: CombinedReads) -> Iterator[Callable[..., "Future[Course | None]"]]:
    """Gets a course in a thread of its own, for a caller who waits for some seconds."""

    def get(course_id: str, seconds: float) -> Course | None:
        async def course() -> Course | None:
            return await combined.get(course_id)

        with call.working_on(Call(deadline=call.deadline_after(seconds))):
            return finished(course())

    with ThreadPoolExecutor(200) as threads:
        yield lambda course_id, seconds=20.0: threads.submit(get, course_id, seconds)


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> float:
    monkeypatch.setattr(combined_reads, "_PATIENCE_SECONDS", 0.1)
    return 0.1


Callers = Callable[..., "Future[Course | None]"]


def waiting(combined: CombinedReads, count: int) -> None:
    until(lambda: combined._waiting.qsize() == count)


def hold(stored: Stored, callers: Callers) -> tuple[Query, "Future[Course | None]", "Future[Course | None]"]:
    """Have one call ask for itself, and the reader ask for another: what comes now has to wait."""
    alone = callers("a")
    stored.query(0)
    shared = callers("a")
    return stored.query(1), alone, shared


def test_a_call_that_is_alone_asks_for_itself(stored: Stored, combined: CombinedReads, callers: Callers) -> None:
    stored.waits = False
    assert callers("a").result(5) == course("a")
    assert callers("nope").result(5) is None
    assert [query.course_ids for query in stored.queries] == [{"a"}, {"nope"}]
    assert not combined._readers


def test_what_comes_while_a_query_runs_shares_the_next_one(
    stored: Stored, combined: CombinedReads, callers: Callers
) -> None:
    query, alone, shared = hold(stored, callers)
    later = [callers(name) for name in ("a", "b", "nope", "b")]
    waiting(combined, 4)
    query.respond()
    stored.query(2).respond()
    assert [each.result(5) for each in later] == [course("a"), course("b"), None, course("b")]
    assert stored.queries[2].course_ids == {"a", "b", "nope"}
    stored.queries[0].respond()
    assert alone.result(5) == shared.result(5) == course("a")


class Clock:
    """Time that passes in sleeps only, and a process that is busy for some share of it."""

    def __init__(self, busy: float) -> None:
        self._busy = busy
        self._now = time.monotonic()
        self.slept = 0
        self.on_sleep: Callable[[], object] = lambda: None

    def monotonic(self) -> float:
        return self._now

    def process_time(self) -> float:
        return self._now * self._busy

    def sleep(self, seconds: float) -> None:
        self.slept += 1
        self._now += seconds
        self.on_sleep()


@pytest.mark.parametrize(
    ("together", "busy", "coming", "moments"),
    [(4, 1.0, 3, 0), (5, 0.6, 3, 0), (5, 1.0, 3, 4), (5, 1.0, 0, 1), (5, 1.0, 50, 8)],
    ids=["few calls", "time to spare", "until no more come", "none come", "they come without end"],
)
def test_after_many_calls_a_query_waits_for_more_if_the_process_is_busy(
    stored: Stored,
    combined: CombinedReads,
    callers: Callers,
    monkeypatch: pytest.MonkeyPatch,
    together: int,
    busy: float,
    coming: int,
    moments: int,
) -> None:
    query, alone, shared = hold(stored, callers)
    many = [callers("b") for _ in range(together)]
    waiting(combined, together)
    clock = Clock(busy)
    monkeypatch.setattr(combined_reads, "time", clock)
    query.respond()
    first = stored.query(2)
    assert clock.slept == 0
    on_their_way: list[Future[Course | None]] = []

    def another() -> None:
        if clock.slept <= coming:
            on_their_way.append(callers("nope"))
            waiting(combined, clock.slept)

    clock.on_sleep = another
    last = callers("a")
    waiting(combined, 1)
    first.respond()
    stored.query(3).respond()
    assert stored.queries[3].course_ids == ({"a", "nope"} if on_their_way else {"a"})
    assert clock.slept == moments
    stored.queries[0].respond()
    assert [each.result(5) for each in many] == [course("b")] * together
    assert [each.result(5) for each in on_their_way] == [None] * len(on_their_way)
    assert alone.result(5) == shared.result(5) == last.result(5) == course("a")


def test_a_call_sees_what_was_stored_before_it_came(stored: Stored, combined: CombinedReads, callers: Callers) -> None:
    query, _, shared = hold(stored, callers)
    stored.courses["a"] = course("a", "Chemistry")
    later = callers("a")
    waiting(combined, 1)
    query.respond()
    stored.query(2).respond()
    assert shared.result(5) == course("a", "Biology")
    assert later.result(5) == course("a", "Chemistry")
    stored.queries[0].respond()


@pytest.mark.usefixtures("patience")
def test_a_query_that_hangs_costs_its_calls_a_moment_and_the_others_nothing(stored: Stored, callers: Callers) -> None:
    hung, _, shared = hold(stored, callers)
    stored.query(2).respond()  # by another thread, for the same call
    assert shared.result(5) == course("a")
    later = callers("b")
    stored.query_for("b").respond()  # of a slow machine the other may have been asked for once more
    assert later.result(5) == course("b")
    readers = {thread for thread in threading.enumerate() if thread.name == "reader"}
    hung.respond(DatabaseUnavailable("hung"))
    until(lambda: sum(thread.is_alive() for thread in readers) < len(readers))  # it has been relieved
    stored.queries[0].respond()


@pytest.mark.usefixtures("patience")
def test_a_frozen_database_holds_few_queries_and_calls_end_by_their_deadlines(
    stored: Stored, combined: CombinedReads, callers: Callers
) -> None:
    frozen = [callers("a", 1.0) for _ in range(50)]
    for each in frozen:
        with pytest.raises(DeadlineExceeded):
            each.result(5)
    assert stored.at_once <= 1 + MAX_READERS
    for query in stored.queries:
        query.respond()
    stored.waits = False
    assert callers("b").result(5) == course("b")  # it has recovered
    until(lambda: combined._readers == 1)


def test_a_query_has_the_time_of_the_call_that_waits_longest(
    stored: Stored, combined: CombinedReads, callers: Callers
) -> None:
    query, *_ = hold(stored, callers)
    callers("a", 2.0)
    callers("a", 9.0)
    waiting(combined, 2)
    query.respond()
    assert 8 < stored.query(2).seconds <= 9
    for each in stored.queries[::2]:
        each.respond()


def test_a_call_whose_time_is_over_is_not_asked_for(stored: Stored, combined: CombinedReads, callers: Callers) -> None:
    query, *_ = hold(stored, callers)
    late = callers("b", 0.1)
    waiting(combined, 1)
    with pytest.raises(DeadlineExceeded):
        late.result(5)
    query.respond()
    waiting(combined, 0)
    later = callers("a")
    stored.query(2).respond()
    assert later.result(5) == course("a")
    assert stored.queries[2].course_ids == {"a"}
    stored.queries[0].respond()


def test_each_call_has_an_error_of_its_own(stored: Stored, combined: CombinedReads, callers: Callers) -> None:
    query, *_ = hold(stored, callers)
    later = [callers("a") for _ in range(2)]
    waiting(combined, 2)
    query.respond()
    stored.query(2).respond(DatabaseUnavailable("it is away"))
    first, second = (each.exception(5) for each in later)
    assert isinstance(first, DatabaseUnavailable)
    assert isinstance(second, DatabaseUnavailable)
    assert first is not second
    assert first.cause == second.cause == "it is away"
    stored.queries[0].respond()


def test_a_course_that_cannot_be_read_spoils_no_other(
    stored: Stored, combined: CombinedReads, callers: Callers, monkeypatch: pytest.MonkeyPatch
) -> None:
    query, *_ = hold(stored, callers)
    good, bad = callers("a"), callers("b")
    waiting(combined, 2)
    get_many = stored.get_many

    def spoilt(course_ids: Collection[str], **options: Any) -> dict[str, Course]:
        if "b" in course_ids:
            raise ValueError("of the course b")
        return get_many(course_ids, **options)

    monkeypatch.setattr(stored, "get_many", spoilt)
    stored.waits = False
    query.respond()
    assert good.result(5) == course("a")
    with pytest.raises(ValueError, match="of the course b"):
        bad.result(5)
    stored.queries[0].respond()


@pytest.mark.parametrize("name", ["reads", "reader"])
def test_without_threads_for_it_a_read_fails_until_there_are_some(
    stored: Stored, combined: CombinedReads, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    stored.waits = False
    combined._shared_until = time.monotonic() + 60
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == name:
            raise RuntimeError("can't start new thread")
        start(thread)

    async def get() -> Course | None:
        return await combined.get("a")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(DatabaseUnavailable):
            finished(get())
    assert finished(get()) == course("a")
