"""The contract, the code and both faces say the same."""

import json
import re
from collections.abc import Iterator

import pytest
from course.v1 import course_pb2
from google.api import annotations_pb2, field_behavior_pb2, resource_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.rpc import code_pb2
from sqlalchemy.engine import make_url

from course_service import course as limits
from course_service import errors, filters, paging, responses, schemas
from course_service import fields as rules
from course_service.course import COLLECTION, Course, State
from course_service.guard import status
from course_service.health import Health
from course_service.rest.app import make_api
from course_service.rest.errors import HTTP_CODES
from course_service.rest.places import Places
from course_service.store.database import Database
from course_service.validation import validated
from tests.conftest import GUARD, ROOT, TOKENS

SERVICE = course_pb2.DESCRIPTOR.services_by_name["CourseService"]
PROTO = (ROOT / "protos/course/v1/course.proto").read_text()


def error_classes(base: type[errors.CourseError] = errors.CourseError) -> Iterator[type[errors.CourseError]]:
    for error in base.__subclasses__():
        if not error.__name__.startswith("_"):
            yield error
        yield from error_classes(error)


def behaviors(field: FieldDescriptor) -> set[str]:
    values = field.GetOptions().Extensions[field_behavior_pb2.field_behavior]
    return {field_behavior_pb2.FieldBehavior.Name(value) for value in values}


def test_every_annotated_path_is_a_route_and_every_route_is_annotated(tmp_path_factory: pytest.TempPathFactory) -> None:
    annotated = set()
    for method in SERVICE.methods:
        rule = method.GetOptions().Extensions[annotations_pb2.http]
        verb = rule.WhichOneof("pattern")
        path = re.sub(r"\{(?:course\.)?name=courses/\*\}", "courses/{course_id}", getattr(rule, verb))
        annotated.add((verb.upper(), path))
    file = tmp_path_factory.mktemp("contract") / "none.db"
    database = Database(make_url(f"sqlite:///{file}"), connections=1)
    app = make_api(database, TOKENS, Health(database), GUARD, Places(1))
    routes = {(method.upper(), path) for path, methods in app.openapi()["paths"].items() for method in methods}
    assert routes == annotated


def test_every_field_says_how_it_behaves() -> None:
    for message in course_pb2.DESCRIPTOR.message_types_by_name.values():
        for field in () if message.name.endswith("Response") else message.fields:
            assert behaviors(field), field.full_name


def test_callers_may_send_what_the_contract_lets_them() -> None:
    fields = course_pb2.Course.DESCRIPTOR.fields
    given = {field.name for field in fields if behaviors(field) & {"OUTPUT_ONLY", "IDENTIFIER"}} | {"etag"}
    assert set(schemas.CourseCreate.model_fields) == {field.name for field in fields} - given
    required = {name for name, field in schemas.CourseCreate.model_fields.items() if field.is_required()}
    assert required == {field.name for field in fields if "REQUIRED" in behaviors(field)}
    assert validated(schemas.CourseCreate, {"title": "x", **dict.fromkeys(given, "y")})


def test_both_faces_show_the_same_fields_in_the_same_order() -> None:
    assert list(responses.CourseResponse.model_fields) == [field.name for field in course_pb2.Course.DESCRIPTOR.fields]


def test_the_states_are_those_of_the_contract() -> None:
    assert {state.value for state in State} == set(course_pb2.Course.State.keys()) - {"STATE_UNSPECIFIED"}


def test_the_resource_is_named_as_in_the_errors() -> None:
    resource = course_pb2.Course.DESCRIPTOR.GetOptions().Extensions[resource_pb2.resource]
    assert resource.type == status.RESOURCE_TYPE
    assert list(resource.pattern) == [COLLECTION + "{course}"]
    assert SERVICE.full_name == status.DOMAIN


@pytest.mark.parametrize("error", list(error_classes()))
def test_every_error_has_a_status_and_a_reason_of_its_own(error: type[errors.CourseError]) -> None:
    code = status.CODES[error]
    assert code in code_pb2.Code.values()
    assert code in HTTP_CODES or error is errors.MethodNotAllowed
    assert re.fullmatch(r"[A-Z][A-Z0-9_]+[A-Z0-9]", error.reason)
    # A kind of an error may share its reason.
    same = [other for other in error_classes() if other.reason == error.reason]
    assert all(issubclass(error, other) or issubclass(other, error) for other in same)


def test_the_table_of_statuses_has_no_row_without_an_error() -> None:
    assert set(status.CODES) == set(error_classes())


def test_every_reason_that_the_contract_names_is_raised_and_the_other_way_round() -> None:
    raised = {error.reason for error in error_classes()}
    only_by_http = {"REQUEST_TOO_LARGE", "HEADERS_TOO_LARGE", "ROUTE_NOT_FOUND", "METHOD_NOT_ALLOWED"}
    named = set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b|\bOVERLOADED\b", PROTO))
    assert raised - named == only_by_http | {"INTERNAL", "SERVICE_UNKNOWN"}  # that is of the health protocol
    statuses = set(code_pb2.Code.keys())
    behaviors = set(field_behavior_pb2.FieldBehavior.keys())
    enums = {"STATE_UNSPECIFIED", "COURSE_VIEW_UNSPECIFIED", "COURSE_VIEW_BASIC", "COURSE_VIEW_FULL"}
    assert named - raised - statuses - behaviors - enums == set()


@pytest.mark.parametrize(
    ("field", "limit"),
    [
        ("title", limits.TITLE_MAX_LENGTH),
        ("code", limits.CODE_MAX_LENGTH),
        ("description", limits.DESCRIPTION_MAX_LENGTH),
        ("owner", limits.OWNER_MAX_LENGTH),
        ("language_code", limits.LANGUAGE_CODE_MAX_LENGTH),
        ("subjects", limits.SUBJECTS_MAX_ITEMS),
        ("subjects", limits.SUBJECT_MAX_LENGTH),
        ("labels", limits.LABELS_MAX_ITEMS),
        ("labels", limits.LABEL_VALUE_MAX_LENGTH),
        ("labels", rules.LABEL_KEY_PATTERN),
        ("external_ids", limits.EXTERNAL_IDS_MAX_ITEMS),
        ("external_ids", limits.EXTERNAL_ID_VALUE_MAX_LENGTH),
        ("external_ids", rules.EXTERNAL_ID_KEY_PATTERN),
        ("filter", filters.MAX_LENGTH),
        ("filter", filters.MAX_COMPARISONS),
        ("filter", filters.MAX_DEPTH),
        ("page_size", paging.DEFAULT_SIZE),
        ("page_size", paging.MAX_SIZE),
        ("names", schemas.MAX_BATCH),
        ("requests", schemas.MAX_BATCH),
    ],
)
def test_the_contract_states_each_limit(field: str, limit: int | str) -> None:
    comment = re.search(rf"((?:  //.*\n)+)  [^/\n]*\b{field} = \d", PROTO)
    assert comment
    stated = f"{limit:,}" if isinstance(limit, int) else limit
    assert re.search(rf"(?<!\d){re.escape(stated)}(?!\d)", comment[1])


def test_the_course_has_no_field_that_no_caller_sees() -> None:
    hidden = {"course_id", "revision", "state_before_delete"}
    fields = set(Course.__dataclass_fields__) - hidden | {"name", "etag"}
    assert fields == {field.name for field in course_pb2.Course.DESCRIPTOR.fields}


def test_the_service_config_has_every_method_and_retries_reads_only() -> None:
    config = json.loads((ROOT / "protos/course/v1/course_grpc_service_config.json").read_text())
    retried: dict[str, bool] = {}
    for entry in config["methodConfig"]:
        assert entry["timeout"].endswith("s")
        for name in entry["name"]:
            assert name["service"] == SERVICE.full_name
            assert name["method"] not in retried
            retried[name["method"]] = entry.get("retryPolicy", {}).get("retryableStatusCodes") == ["UNAVAILABLE"]
    assert set(retried) == {method.name for method in SERVICE.methods}
    is_read = {
        method.name: bool(method.GetOptions().Extensions[annotations_pb2.http].get) for method in SERVICE.methods
    }
    assert retried == is_read


def test_the_contract_names_a_package_for_every_language() -> None:
    options = course_pb2.DESCRIPTOR.GetOptions()
    assert options.go_package == "course.example.com/course/v1;coursev1"  # as the resource's type: course.example.com
    assert options.java_package == "com.example.course.v1"
    assert options.csharp_namespace == "Example.Course.V1"
    assert options.php_namespace == "Example\\Course\\V1"
    assert options.ruby_package == "Example::Course::V1"
