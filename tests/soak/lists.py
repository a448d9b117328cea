"""Lists as the contract has them: orders, and filters with what they mean."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence

from course.v1 import course_pb2

Course = course_pb2.Course

ORDERS = (
    "",
    "title",
    "title desc",
    "code",
    "code desc, title",
    "create_time desc",
    "update_time",
    "update_time desc",
    "code, update_time desc",
)

_KEYS: dict[str, Callable[[Course], object]] = {
    "title": lambda course: course.title,
    "code": lambda course: course.code,
    "create_time": lambda course: course.create_time.ToNanoseconds(),
    "update_time": lambda course: course.update_time.ToNanoseconds(),
}

FILTERS: dict[str, Callable[[Course], bool]] = {
    "state = PUBLISHED": lambda course: course.state == Course.PUBLISHED,
    "NOT state = DRAFT": lambda course: course.state != Course.DRAFT,
    "state = DELETED": lambda course: course.state == Course.DELETED,
    'labels.level = "2"': lambda course: course.labels.get("level") == "2",
    'code = "CS 101" OR code = "MATH_7"': lambda course: course.code in {"CS 101", "MATH_7"},
    'code = "CS*" AND subjects:law': lambda course: course.code.startswith("CS") and "law" in course.subjects,
    'title = "Физика*"': lambda course: course.title.startswith("Физика"),
    "歴史": lambda course: _has(course, "歴史"),
    '"x_%"': lambda course: _has(course, "x_%"),
    "biology": lambda course: _has(course, "biology"),
    "external_ids.soak:*": lambda course: "soak" in course.external_ids,
    'external_ids.soak = "c3-7"': lambda course: course.external_ids.get("soak") == "c3-7",
    'language_code = "pt-BR" -subjects:music': lambda course: (
        course.language_code == "pt-BR" and "music" not in course.subjects
    ),
    'owner = "users/c1" title > "h"': lambda course: course.owner == "users/c1" and course.title > "h",
}


def _has(course: Course, word: str) -> bool:
    return any(word.casefold() in text.casefold() for text in (course.title, course.code, course.description))


def in_order(courses: Iterable[Course], order_by: str) -> Sequence[Course]:
    """Sort as ListCourses does: by each field in its direction, then by name in the direction of the last one."""
    fields = [field.split() for field in (order_by or "create_time").split(",")]
    ordered = sorted(courses, key=lambda course: course.name, reverse=len(fields[-1]) == 2)
    for name, *descending in reversed(fields):
        key = _KEYS[name]
        groups = [list(group) for _, group in itertools.groupby(sorted(ordered, key=key), key=key)]  # type: ignore[arg-type]  # all keys of a field compare
        ordered = [course for group in (reversed(groups) if descending else groups) for course in group]
    return ordered
