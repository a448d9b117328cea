"""The model of the long run finds what is lost, invented or done in part, and accepts what nobody can know."""

from course.v1 import course_pb2

from tests.soak.lists import in_order
from tests.soak.model import Counter, Course, Entry, World, content, lost_or_invented


def course(title: str, etag: str = '"1"', *, code: str = "") -> Course:
    draft = course_pb2.Course.DRAFT
    return Course(name=f"courses/{title}", uid=f"uid of {title}", title=title, code=code, etag=etag, state=draft)


def world(*entries: Entry) -> World:
    made = World()
    made.add(entries)
    return made


def test_what_was_acknowledged_and_is_stored_is_in_order() -> None:
    assert lost_or_invented(world(Entry(course("a")), Entry(course("b"))), [course("a"), course("b")]) == ([], [])


def test_a_course_that_is_missing_is_lost() -> None:
    lost, invented = lost_or_invented(world(Entry(course("a"))), [])
    assert "is missing" in lost[0]
    assert not invented


def test_a_course_in_an_older_state_is_lost() -> None:
    lost, _ = lost_or_invented(world(Entry(course("a", '"2"', code="new"))), [course("a", code="old")])
    assert "code, etag differ" in lost[0]


def test_a_course_that_nobody_created_is_invented() -> None:
    lost, invented = lost_or_invented(world(), [course("a")])
    assert not lost
    assert len(invented) == 1


def test_a_create_of_unknown_outcome_may_be_stored_or_not_but_not_twice() -> None:
    unknown = content(course("a"))
    unknown.ClearField("name")
    twin = course("a")
    twin.name = "courses/twin"
    assert lost_or_invented(world(Entry(maybe=unknown)), []) == ([], [])
    assert lost_or_invented(world(Entry(maybe=unknown)), [course("a")]) == ([], [])
    assert lost_or_invented(world(Entry(maybe=unknown)), [course("a"), twin])[1]


def test_an_update_of_unknown_outcome_may_be_stored_or_not() -> None:
    for stored in (course("a", code="old"), course("a", '"2"', code="new")):
        entry = Entry(course("a", code="old"), maybe=content(course("a", code="new")))
        assert lost_or_invented(world(entry), [stored]) == ([], [])
    entry = Entry(course("a", code="old"), maybe=content(course("a", code="new")))
    assert lost_or_invented(world(entry), [course("a", '"3"', code="another")])[0]


def test_a_write_that_was_seen_once_must_stay() -> None:
    entry = Entry(course("a", code="old"), maybe=content(course("a", code="new")))
    assert not entry.disagreement(course("a", '"2"', code="new"))
    assert entry.disagreement(course("a", code="old"))


def test_a_batch_that_is_stored_in_part_is_found() -> None:
    entries = [Entry(maybe=content(course(title)), batch=1) for title in ("a", "b")]
    assert lost_or_invented(world(*entries), [course("a")])[0] == ["batch 1 is stored in part"]


def test_a_count_that_is_lost_or_acknowledged_twice_is_found() -> None:
    counter = Counter("courses/counter", counted={1: 1, 2: 1}, unknown=1)
    assert not counter.disagreement(course("counter", code="2"))
    assert not counter.disagreement(course("counter", code="3"))
    assert counter.disagreement(course("counter", code="1"))
    assert counter.disagreement(course("counter", code="4"))
    counter.counted[2] = 2
    assert "twice" in counter.disagreement(course("counter", code="2"))


def test_lists_end_by_name_in_the_direction_of_the_last_field() -> None:
    courses = [course("a", code="1"), course("b", code="1"), course("c", code="0")]
    assert [found.title for found in in_order(courses, "code")] == ["c", "a", "b"]
    assert [found.title for found in in_order(courses, "code desc")] == ["b", "a", "c"]
    assert [found.title for found in in_order(courses, "code desc, title")] == ["a", "b", "c"]
