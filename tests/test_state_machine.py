"""Random calls against the service and against a dictionary, which must never disagree."""

from __future__ import annotations

import itertools
import uuid
from typing import Any

import grpc
from course.v1 import course_pb2
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool

from tests.conftest import Service
from tests.support.calls import call, names

IDS = st.sampled_from(["a", "b", "c", "d"])
TITLES = st.sampled_from(["Biology", "Chemistry", "Zoology"])
EXTERNAL_IDS = st.dictionaries(st.sampled_from(["sis", "lms"]), st.sampled_from(["1", "2"]), max_size=2)
FIELDS = st.fixed_dictionaries(
    {"title": TITLES}, optional={"code": st.sampled_from(["", "X"]), "external_ids": EXTERNAL_IDS}
)
MASKS = st.lists(st.sampled_from(["title", "code", "external_ids"]), unique=True)
STEPS = {
    "PublishCourse": ({"DRAFT", "ARCHIVED"}, "FAILED_PRECONDITION"),
    "ArchiveCourse": ({"PUBLISHED"}, "FAILED_PRECONDITION"),
    "DeleteCourse": ({"DRAFT", "PUBLISHED", "ARCHIVED"}, "NOT_FOUND"),
    "UndeleteCourse": ({"DELETED"}, "ALREADY_EXISTS"),
}
EMPTY: dict[str, Any] = {"title": "", "code": "", "external_ids": {}}


class Machine(RuleBasedStateMachine):
    """The model: what each course is, as a dictionary, and what was answered under each request id."""

    service: Service
    url: URL

    def __init__(self) -> None:
        super().__init__()
        self.courses: dict[str, dict[str, Any]] = {}
        self.etags: dict[str, list[str]] = {}
        self.answers: list[tuple[str, dict[str, Any], Any]] = []
        with create_engine(self.url, poolclass=NullPool).begin() as connection:
            for table in ("course_external_ids", "courses", "answers"):
                connection.execute(text(f"DELETE FROM {table}"))

    def outcome(self, method: str, **fields: Any) -> Any:
        """What a call answers, or the name of its status."""
        try:
            answer = call(self.service, method, **fields)
        except grpc.RpcError as error:
            return error.code().name
        for course in answer.courses if hasattr(answer, "courses") else [answer]:
            self.etags.setdefault(course.name.removeprefix("courses/"), []).append(course.etag)
        return answer

    def held(self, external_ids: dict[str, str], by_others_than: str) -> bool:
        taken = {
            pair
            for course_id, course in self.courses.items()
            if course_id != by_others_than
            for pair in course["external_ids"].items()
        }
        return not taken.isdisjoint(external_ids.items())

    @rule(course_id=IDS, fields=FIELDS, with_request_id=st.booleans(), validate_only=st.booleans())
    def create(self, course_id: str, fields: dict[str, Any], *, with_request_id: bool, validate_only: bool) -> None:
        request: dict[str, Any] = {"course": fields, "course_id": course_id, "validate_only": validate_only}
        if with_request_id:
            request["request_id"] = str(uuid.uuid4())
        answer = self.outcome("CreateCourse", **request)
        new = {**EMPTY, **fields, "state": "DRAFT"}
        if course_id in self.courses or self.held(new["external_ids"], course_id):
            assert answer == "ALREADY_EXISTS"
        else:
            self.same(answer, course_id, new)
            if not validate_only:
                self.courses[course_id] = new
                self.remember("CreateCourse", request, answer)

    @rule(ids=st.lists(IDS, min_size=1, max_size=3), fields=FIELDS)
    def batch_create(self, ids: list[str], fields: dict[str, Any]) -> None:
        answer = self.outcome(
            "BatchCreateCourses", requests=[{"course": fields, "course_id": course_id} for course_id in ids]
        )
        new = {**EMPTY, **fields, "state": "DRAFT"}
        if len(set(ids)) < len(ids) or (len(ids) > 1 and new["external_ids"]):
            assert answer == "INVALID_ARGUMENT"
        elif self.held(new["external_ids"], "") or set(ids) & set(self.courses):
            assert answer == "ALREADY_EXISTS"
        else:
            for course_id, course in zip(ids, answer.courses, strict=True):
                self.same(course, course_id, new)
                self.courses[course_id] = {**new}

    @rule(course_id=IDS, fields=FIELDS, mask=MASKS, which_etag=st.sampled_from(["none", "current", "stale"]))
    def update(self, course_id: str, fields: dict[str, Any], mask: list[str], which_etag: str) -> None:
        etags = self.etags.get(course_id, [])
        current = self.outcome("GetCourse", name=f"courses/{course_id}")
        stale = [etag for etag in etags if isinstance(current, str) or etag != current.etag]
        if which_etag == "stale" and not stale:
            return
        etag = {"none": "", "current": getattr(current, "etag", ""), "stale": stale and stale[-1]}[which_etag]
        request: dict[str, Any] = {
            "course": {"name": f"courses/{course_id}", "etag": etag, **fields},
            "update_mask": {"paths": mask},
            "request_id": str(uuid.uuid4()),
        }
        answer = self.outcome("UpdateCourse", **request)
        old = self.courses.get(course_id)
        populated = {field: value for field, value in fields.items() if value}
        changes = {field: {**EMPTY, **fields}[field] for field in mask} if mask else populated
        if changes.get("title") == "":
            assert answer == "INVALID_ARGUMENT"
        elif old is None:
            assert answer == "NOT_FOUND"
        elif which_etag == "stale":
            assert answer == "ABORTED"
        elif old["state"] in {"ARCHIVED", "DELETED"}:
            assert answer == "FAILED_PRECONDITION"
        elif self.held(changes.get("external_ids", {}), course_id):
            assert answer == "ALREADY_EXISTS"
        else:
            new = {**old, **changes}
            self.same(answer, course_id, new)
            assert (answer.etag == current.etag) == (new == old)
            self.courses[course_id] = new
            self.remember("UpdateCourse", request, answer)

    @rule(course_id=IDS, method=st.sampled_from(sorted(STEPS)))
    def step(self, course_id: str, method: str) -> None:
        request = {"name": f"courses/{course_id}", "request_id": str(uuid.uuid4())}
        answer = self.outcome(method, **request)
        origins, refusal = STEPS[method]
        course = self.courses.get(course_id)
        if course is None:
            assert answer == "NOT_FOUND"
        elif course["state"] not in origins:
            assert answer == refusal
        else:
            if method == "DeleteCourse":
                course["before"] = course["state"]
            course["state"] = {
                "PublishCourse": "PUBLISHED",
                "ArchiveCourse": "ARCHIVED",
                "DeleteCourse": "DELETED",
                "UndeleteCourse": course.get("before"),
            }[method]
            self.same(answer, course_id, course)
            self.remember(method, request, answer)

    @precondition(lambda self: self.answers)
    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        method, request, answer = data.draw(st.sampled_from(self.answers))
        assert call(self.service, method, **request) == answer

    @rule(ids=st.lists(IDS, min_size=1, max_size=5))
    def batch_get(self, ids: list[str]) -> None:
        answer = self.outcome("BatchGetCourses", names=[f"courses/{course_id}" for course_id in ids])
        if set(ids) <= set(self.courses):
            for course_id, course in zip(ids, answer.courses, strict=True):
                self.same(course, course_id, self.courses[course_id])
        else:
            assert answer == "NOT_FOUND"

    @rule(order_by=st.sampled_from(["title", "title desc", "code, title desc"]), page_size=st.integers(1, 3),
          state=st.sampled_from(["DRAFT", "PUBLISHED", "ARCHIVED", "DELETED"]), title=TITLES)  # fmt: skip
    def list_some(self, order_by: str, page_size: int, state: str, title: str) -> None:
        found = names(
            self.service,
            order_by=order_by,
            page_size=page_size,
            show_deleted=True,
            filter=f'NOT (state = {state} AND title = "{title}")',
        )
        expected = [
            course_id
            for course_id, course in self.courses.items()
            if not (course["state"] == state and course["title"] == title)
        ]
        assert found == in_order(expected, order_by, self.courses)

    @invariant()
    def the_list_is_the_dictionary(self) -> None:
        page = call(self.service, "ListCourses", show_deleted=True, view=course_pb2.COURSE_VIEW_FULL)
        assert {course.name.removeprefix("courses/") for course in page.courses} == set(self.courses)
        for course in page.courses:
            course_id = course.name.removeprefix("courses/")
            self.same(course, course_id, self.courses[course_id])

    def same(self, course: Any, course_id: str, model: dict[str, Any]) -> None:
        assert not isinstance(course, str), course
        shown = {
            "title": course.title,
            "code": course.code,
            "external_ids": dict(course.external_ids),
            "state": course_pb2.Course.State.Name(course.state),
        }
        assert course.name == f"courses/{course_id}"
        assert shown == {field: model[field] for field in shown}
        assert course.HasField("purge_time") == (model["state"] == "DELETED")

    def remember(self, method: str, request: dict[str, Any], answer: Any) -> None:
        if "request_id" in request:
            self.answers.append((method, request, answer))


def in_order(ids: list[str], order_by: str, courses: dict[str, dict[str, Any]]) -> list[str]:
    """Sort by several fields, each in its own direction, and at last by name in the direction of the last one."""
    fields = [part.split() for part in order_by.split(", ")]
    result = sorted(ids, reverse=len(fields[-1]) == 2)
    for name, *descending in reversed(fields):
        groups = itertools.groupby(
            sorted(result, key=lambda course_id: courses[course_id][name]), key=lambda c: courses[c][name]
        )
        ordered = [list(group) for _, group in groups]
        result = [course_id for group in (reversed(ordered) if descending else ordered) for course_id in group]
    return result


def test_random_calls_never_disagree_with_a_dictionary(service: Service, database_url: URL) -> None:
    class Bound(Machine):
        pass

    Bound.service, Bound.url = service, database_url
    run_state_machine_as_test(
        Bound,
        settings=settings(
            max_examples=40,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
