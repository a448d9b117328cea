"""Both faces as their callers use them: gRPC over a real channel, HTTP by a client."""

import re
import threading
import uuid
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import grpc
import pytest
from course.v1 import course_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.json_format import MessageToDict
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from tests.conftest import Service
from tests.support.failures import grpc_failure, http_failure

FOUR_MISTAKES: dict[str, Any] = {
    "title": "",
    "language_code": "english",
    "subjects": ["Biology", "Biology"],
    "labels": {"Bad Key": "x"},
}
FOUR_VIOLATIONS = {
    "title": "FIELD_REQUIRED",
    "language_code": "FIELD_BAD_FORMAT",
    "subjects[1]": "FIELD_DUPLICATE",
    'labels["Bad Key"]': "FIELD_BAD_FORMAT",
}


def create(service: Service, course_id: str = "", **fields: Any) -> course_pb2.Course:
    course = course_pb2.Course(**{"title": "Biology", **fields})
    return service.courses.CreateCourse(course_pb2.CreateCourseRequest(course=course, course_id=course_id))


def get(service: Service, name: str) -> course_pb2.Course:
    return service.courses.GetCourse(course_pb2.GetCourseRequest(name=name))


def as_json(course: course_pb2.Course) -> dict[str, Any]:
    """A course as HTTP shows it; times as times, because both may leave out trailing zeros."""
    fields = MessageToDict(course, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    return with_times({"delete_time": None, "purge_time": None, **fields})


def with_times(fields: dict[str, Any]) -> dict[str, Any]:
    return {
        key: datetime.fromisoformat(value) if value and key.endswith("_time") else value
        for key, value in fields.items()
    }


# gRPC


def test_a_course_created_by_grpc_is_read_back_equal(service: Service) -> None:
    created = create(
        service,
        code="BIO 101",
        description="Cells.\nAnd more.",
        owner="users/ann",
        language_code="en",
        subjects=["b", "a"],
        labels={"level": "1"},
    )
    assert uuid.UUID(created.uid).version == 7
    assert created.name == f"courses/{created.uid}"
    assert created.state == course_pb2.Course.DRAFT
    assert created.create_time == created.update_time
    assert created.etag.startswith('"')
    assert created.etag.endswith('"')
    assert get(service, created.name) == created


def test_create_ignores_output_only_fields_and_the_name(service: Service) -> None:
    time = Timestamp(seconds=1)
    created = create(
        service, name="courses/mine", uid="u", state=3, etag="x", create_time=time, update_time=time, delete_time=time
    )
    assert created.name != "courses/mine"
    assert created.uid != "u"
    assert created.etag != "x"
    assert created.state == course_pb2.Course.DRAFT
    assert created.create_time != time
    assert created.update_time != time
    assert not created.HasField("delete_time")


def test_an_unknown_name_is_not_found_by_grpc(service: Service) -> None:
    failure = grpc_failure(get, service, "courses/nope")
    assert (failure.status, failure.reason) == ("NOT_FOUND", "COURSE_NOT_FOUND")
    assert failure.resource == "courses/nope"
    assert failure.metadata == {"name": "courses/nope"}


def test_every_mistake_is_told_at_once_by_grpc_and_nothing_is_stored(service: Service) -> None:
    failure = grpc_failure(create, service, "mistaken", **FOUR_MISTAKES)
    assert (failure.status, failure.reason) == ("INVALID_ARGUMENT", "REQUEST_INVALID")
    assert failure.violations == {f"course.{field}": reason for field, reason in FOUR_VIOLATIONS.items()}
    assert failure.metadata == {"violationCount": "4"}
    assert grpc_failure(get, service, "courses/mistaken").reason == "COURSE_NOT_FOUND"


def test_a_request_without_a_course_names_it(service: Service) -> None:
    failure = grpc_failure(service.courses.CreateCourse, course_pb2.CreateCourseRequest())
    assert failure.violations == {"course": "FIELD_REQUIRED"}


def test_a_name_that_no_course_can_have_is_an_invalid_argument(service: Service) -> None:
    failure = grpc_failure(get, service, "courses/a/b")
    assert (failure.status, failure.violations) == ("INVALID_ARGUMENT", {"name": "FIELD_BAD_FORMAT"})


def test_a_taken_course_id_already_exists(service: Service) -> None:
    first = create(service, "bio-101")
    failure = grpc_failure(create, service, "bio-101", title="Other")
    assert (failure.status, failure.reason) == ("ALREADY_EXISTS", "COURSE_ALREADY_EXISTS")
    assert failure.resource == "courses/bio-101"
    assert get(service, "courses/bio-101") == first


@pytest.mark.parametrize("title", ["x\x00y", "\x00", " x", "x\t", "   ", "\u3000", "é" * 751])
def test_a_bad_title_is_refused_with_the_same_status_on_both_databases(service: Service, title: str) -> None:
    failure = grpc_failure(create, service, title=title)
    assert (failure.status, list(failure.violations)) == ("INVALID_ARGUMENT", ["course.title"])


def test_a_title_of_750_code_points_is_stored_as_it_is(service: Service) -> None:
    created = create(service, title="é" * 750)
    assert get(service, created.name).title == "é" * 750


@pytest.mark.parametrize(
    "message",
    [
        b"\xff\xff\xff",
        b"\x0a\x05",
        b"\x0a\x04\x1a\x02\xff\xfe",
        b"\x0a\x05\x1a\x03\xed\xa0\x80",
        b"\x08" + b"\xff" * 11,
    ],
    ids=["garbage", "truncated", "invalid UTF-8", "lone surrogate", "long varint"],
)
def test_bytes_that_are_not_the_message_are_an_invalid_argument(service: Service, message: bytes) -> None:
    call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = service.channel.unary_unary(
        "/course.v1.CourseService/CreateCourse"
    )
    failure = grpc_failure(call, message)
    assert (failure.status, failure.reason) == ("INVALID_ARGUMENT", "REQUEST_MALFORMED")


@pytest.mark.parametrize("with_subjects", [True, False], ids=["many", "large"])
def test_many_violations_are_bounded_and_counted(service: Service, *, with_subjects: bool) -> None:
    failure = grpc_failure(
        create,
        service,
        title="",
        subjects=["x" * 101] * 20 * with_subjects,
        labels={f"{number}{'é' * 80}": "\x00" for number in range(60)},
    )
    assert int(failure.metadata["violationCount"]) > 100
    assert 5 <= len(failure.violations) <= 25
    assert failure.details_bytes <= 4096
    assert failure.wire_bytes < 8000


def test_one_mistake_is_the_message_and_of_several_the_first_with_their_count(service: Service) -> None:
    assert grpc_failure(create, service, title="").message == "course.title: must be given"
    assert http_failure(service.http.post("/courses", json={}), 422).message == "title: must be given"
    message = "course.title: must be given; and 2 more"
    assert grpc_failure(create, service, title="", code="x" * 256, owner="x").message == message


@pytest.mark.parametrize("text", ["𝕏" * 250, "\u202e" * 250, '"' * 250, "é" * 250, "x" * 250])
def test_no_failure_is_too_large_to_arrive_with_its_status(service: Service, text: str) -> None:
    list_courses = service.courses.ListCourses
    failures = [
        grpc_failure(list_courses, course_pb2.ListCoursesRequest(filter=f"{text} = {text}")),
        grpc_failure(list_courses, course_pb2.ListCoursesRequest(order_by=text)),
        grpc_failure(create, service, text[:90], title="", labels={text: text}, external_ids={text: text}),
        grpc_failure(get, service, f"courses/{text}"),
    ]
    create(service, "holder", external_ids={"sis": text})
    failures.append(grpc_failure(create, service, external_ids={"sis": text}))
    for failure in failures:
        assert failure.status in {"INVALID_ARGUMENT", "ALREADY_EXISTS"}
        assert failure.details_bytes <= 4096
        assert failure.wire_bytes < 8000


def test_a_message_over_the_limit_is_refused(service: Service) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        create(service, description="x" * (1 << 20))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_an_unforeseen_exception_tells_an_id_and_nothing_else(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise exception("password=canary")

    monkeypatch.setattr("course_service.services.get_course", broken)
    exception: type[BaseException] = SystemExit
    failure = grpc_failure(get, service, "courses/a")
    assert (failure.status, failure.reason) == ("INTERNAL", "INTERNAL")
    exception = RuntimeError
    by_http = http_failure(service.http.get("/courses/a"), 500)
    assert (by_http.status, by_http.reason) == ("INTERNAL", "INTERNAL")
    for answer in (failure, by_http):
        assert answer.metadata["errorId"] in caplog.text
        assert "canary" not in answer.message
    assert "canary" not in caplog.text
    assert "Traceback" not in caplog.text
    assert "test_api.broken" in caplog.text


def test_health_and_reflection_answer(service: Service) -> None:
    check = service.channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    for name in ("", "course.v1.CourseService"):
        assert check(health_pb2.HealthCheckRequest(service=name)).status == health_pb2.HealthCheckResponse.SERVING
    for version in ("v1", "v1alpha"):
        info = service.channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        (answer,) = info(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        assert {listed.name for listed in answer.list_services_response.service} == {
            "course.v1.CourseService",
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection",
        }


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_finds_services_and_what_is_in_them(service: Service, version: str) -> None:
    info = service.channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )

    def file_of(symbol: str) -> str:
        (answer,) = info(iter([reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol)]))
        files = answer.file_descriptor_response.file_descriptor_proto
        return FileDescriptorProto.FromString(files[0]).name if files else answer.error_response.error_message

    contract = "course/v1/course.proto"
    for symbol in (
        "course.v1.CourseService",
        "course.v1.CourseService.GetCourse",
        "course.v1.Course",
        "course.v1.Course.title",
        "course.v1.Course.State",
        "course.v1.CourseView.COURSE_VIEW_BASIC",
    ):
        assert file_of(symbol) == contract, symbol
    for symbol in ("course.v1.CourseService.GetCourses", "course.v1.Course.titel", "nope", ""):
        assert "not found" in file_of(symbol).lower(), symbol
    for its in ("v1", "v1alpha"):
        assert f"reflection/{its}/" in file_of(f"grpc.reflection.{its}.ServerReflection")


# HTTP


def test_a_course_created_by_http_is_read_by_grpc_and_back(service: Service) -> None:
    answer = service.http.post("/courses", json={"title": "Biology", "labels": {"level": "1"}, "subjects": ["b", "a"]})
    assert answer.status_code == 201
    created = answer.json()
    assert answer.headers["Location"] == f"/{created['name']}"
    assert answer.headers["ETag"] == created["etag"]
    assert with_times(created) == as_json(get(service, created["name"]))
    read = service.http.get(answer.headers["Location"])
    assert read.status_code == 200
    assert read.headers["ETag"] == created["etag"]
    assert read.json() == created


def test_a_course_created_by_grpc_is_read_by_http(service: Service) -> None:
    created = create(service, "bio-101", description="é\n", language_code="en")
    assert with_times(service.http.get("/courses/bio-101").json()) == as_json(created)


def test_every_mistake_is_told_at_once_by_http_and_nothing_is_stored(service: Service) -> None:
    failure = http_failure(service.http.post("/courses?course_id=mistaken", json=FOUR_MISTAKES), 422)
    assert (failure.status, failure.reason) == ("INVALID_ARGUMENT", "REQUEST_INVALID")
    assert failure.violations == FOUR_VIOLATIONS
    assert failure.metadata == {"violationCount": "4"}
    http_failure(service.http.get("/courses/mistaken"), 404)


def test_an_empty_object_names_the_title(service: Service) -> None:
    failure = http_failure(service.http.post("/courses", json={}), 422)
    assert failure.violations == {"title": "FIELD_REQUIRED"}


def test_mistakes_in_body_and_query_are_told_together(service: Service) -> None:
    failure = http_failure(service.http.post("/courses?course_id=Bad", json={"titel": "x"}), 422)
    assert failure.violations == {
        "title": "FIELD_REQUIRED",
        "titel": "FIELD_UNKNOWN",
        "course_id": "FIELD_BAD_FORMAT",
    }


def test_half_a_surrogate_pair_is_refused_by_http(service: Service) -> None:
    body = b'{"title": "x\\ud800"}'
    answer = service.http.post("/courses", content=body, headers={"Content-Type": "application/json"})
    assert http_failure(answer, 422).violations == {"title": "FIELD_BAD_CHARACTER"}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"title": "x",}',
        b"[]",
        b'"x"',
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        '{"title": "x"}'.encode("utf-16"),
        b'\xef\xbb\xbf{"title": "x"}',
        b'{"title": "a", "title": "b"}',
        b'{"title": "x", "etag": NaN}',
        b'{"title": "x", "labels": {"a": "1", "a": "2"}}',
    ],
    ids=[
        "empty",
        "cut",
        "trailing comma",
        "list",
        "string",
        "null",
        "not UTF-8",
        "deep",
        "UTF-16",
        "BOM",
        "name twice",
        "no number",
        "key twice",
    ],
)
def test_a_body_that_is_not_a_json_object_is_malformed(service: Service, body: bytes) -> None:
    answer = service.http.post("/courses", content=body, headers={"Content-Type": "application/json"})
    failure = http_failure(answer, 422)
    assert (failure.status, failure.reason) == ("INVALID_ARGUMENT", "REQUEST_MALFORMED")


def test_a_body_of_another_content_type_is_malformed_and_the_answer_says_which_is_right(service: Service) -> None:
    answer = service.http.post("/courses", content=b"title=x", headers={"Content-Type": "text/plain"})
    assert "application/json" in http_failure(answer, 422).message


def test_a_body_over_the_limit_is_refused(service: Service) -> None:
    failure = http_failure(service.http.post("/courses", json={"title": "x", "code": "x" * (1 << 20)}), 413)
    assert failure.reason == "REQUEST_TOO_LARGE"


def test_a_taken_course_id_is_a_conflict(service: Service) -> None:
    assert service.http.post("/courses?course_id=bio-101", json={"title": "x"}).status_code == 201
    failure = http_failure(service.http.post("/courses?course_id=bio-101", json={"title": "y"}), 409)
    assert (failure.status, failure.reason) == ("ALREADY_EXISTS", "COURSE_ALREADY_EXISTS")


def test_an_unknown_course_is_not_found_by_http(service: Service) -> None:
    failure = http_failure(service.http.get("/courses/nope"), 404)
    assert (failure.status, failure.reason, failure.resource) == ("NOT_FOUND", "COURSE_NOT_FOUND", "courses/nope")


def test_an_id_that_no_course_can_have_is_refused_by_http(service: Service) -> None:
    assert http_failure(service.http.get("/courses/A"), 422).violations == {"course_id": "FIELD_BAD_FORMAT"}


def test_other_paths_and_methods_are_refused_in_the_same_form(service: Service) -> None:
    assert http_failure(service.http.get("/nowhere"), 404).reason == "ROUTE_NOT_FOUND"
    for path, allowed in {
        "/courses": "GET, HEAD, POST",
        "/courses/a": "DELETE, GET, HEAD, PATCH",
        "/courses/a:publish": "POST",
        "/courses:batchGet": "GET, HEAD",
    }.items():
        refused = service.http.put(path)
        failure = http_failure(refused, 405)
        assert (failure.reason, failure.metadata) == ("METHOD_NOT_ALLOWED", {"method": "PUT", "allow": allowed})
        assert refused.headers["Allow"] == allowed


def test_the_documentation_page_needs_nothing_from_elsewhere(service: Service) -> None:
    page = service.http.get("/docs").text
    needed = re.findall(r"""(?:src|href)=["']([^"']+)""", page)
    assert len(needed) == 3
    for path in needed:
        assert path.startswith("/static-offline-docs/")
        assert service.http.get(path).status_code == 200
    paths = service.http.get("/openapi.json").json()["paths"]
    assert len(paths) == 7
    for methods in paths.values():
        for method in methods.values():
            assert method["summary"]
            assert method["description"]


def test_query_parameters_that_would_be_dropped_are_refused(service: Service) -> None:
    answer = service.http.post("/courses?corse_id=x&course_id=a&course_id=b", json={"title": "x"})
    assert http_failure(answer, 422).violations == {"corse_id": "FIELD_UNKNOWN", "course_id": "FIELD_DUPLICATE"}


def test_odd_names_are_reported_in_quotes(service: Service) -> None:
    assert http_failure(service.http.get("/courses?=x&a%20b=y"), 422).violations == {
        '""': "FIELD_UNKNOWN",
        '"a b"': "FIELD_UNKNOWN",
    }
    failure = http_failure(service.http.post("/courses", json={"title": "x", "[key]": 1, "": 2}), 422)
    assert failure.violations == {'"[key]"': "FIELD_UNKNOWN", '""': "FIELD_UNKNOWN"}
    failure = grpc_failure(create, service, labels={"[key]": ""})
    assert failure.violations == {'course.labels["[key]"]': "FIELD_BAD_FORMAT"}


def test_idle_reflection_streams_keep_nobody_waiting(service: Service) -> None:
    done = threading.Event()

    def no_requests() -> Iterator[reflection_pb2.ServerReflectionRequest]:
        done.wait()
        yield from ()

    info = service.channel.stream_stream(
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    streams = [info(no_requests()) for _ in range(20)]
    request = course_pb2.GetCourseRequest(name="courses/nope")
    assert grpc_failure(service.courses.GetCourse, request, timeout=5).status == "NOT_FOUND"
    done.set()
    for stream in streams:
        stream.cancel()
