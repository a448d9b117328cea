"""What generators of clients read: /openapi.json is valid, complete and true."""

from typing import Any

import pytest
from course.v1 import course_pb2

from tests.conftest import Service
from tests.support.failures import DOMAIN


@pytest.fixture
def document(service: Service) -> dict[str, Any]:
    found: dict[str, Any] = service.http.get("/openapi.json").json()
    return found


def operations(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [operation for path in document["paths"].values() for operation in path.values()]


def schema(document: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = document["components"]["schemas"][name]
    return found


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_the_document_is_valid(document: dict[str, Any]) -> None:
    from openapi_spec_validator import OpenAPIV31SpecValidator  # takes 4 s to load, and not every worker runs this

    assert list(OpenAPIV31SpecValidator(document).iter_errors()) == []


def test_every_operation_is_named_as_its_method(document: dict[str, Any]) -> None:
    methods = {method.name for method in course_pb2.DESCRIPTOR.services_by_name["CourseService"].methods}
    names = [operation["operationId"] for operation in operations(document)]
    assert sorted(names) == sorted(method[0].lower() + method[1:] for method in methods)


def test_a_patch_has_no_defaults_and_every_field_may_be_left_out_or_null(document: dict[str, Any]) -> None:
    update = schema(document, "CourseUpdate")
    assert "required" not in update
    settable = {name: field for name, field in update["properties"].items() if not field.get("readOnly")}
    assert set(settable) == {*schema(document, "CourseCreate")["properties"], "etag"} - {
        name for name, field in update["properties"].items() if field.get("readOnly")
    }
    for name, field in settable.items():
        assert "default" not in field, name
        assert {"type": "null"} in field["anyOf"], name


def test_no_field_of_a_body_has_a_default(document: dict[str, Any]) -> None:
    """Generators send defaults, or ask for every field that has one."""
    for name in ("CourseCreate", "CourseUpdate", "Change", "BatchItem", "BatchCreateCoursesRequest"):
        assert not any("default" in field for field in schema(document, name)["properties"].values()), name


def test_no_header_has_a_format_that_generators_make_another_type_of(document: dict[str, Any]) -> None:
    headers = [
        parameter
        for operation in operations(document)
        for parameter in operation.get("parameters", [])
        if parameter["in"] == "header"
    ]
    assert {header["name"] for header in headers} == {"Idempotency-Key", "If-Match"}
    assert not any("format" in header["schema"] for header in headers)


def test_what_is_not_offered_is_refused_and_what_is_ignored_is_marked(
    document: dict[str, Any], service: Service
) -> None:
    for name in ("CourseCreate", "CourseUpdate"):
        course = schema(document, name)
        assert course["additionalProperties"] is False
        ignored = {field for field, its in course["properties"].items() if its.get("readOnly")}
        sent = {"title": "x", **dict.fromkeys(ignored, "anything")}
        assert service.http.post("/courses?validate_only=true", json=sent).status_code == 200
        assert service.http.post("/courses", json={"title": "x", "other": 1}).status_code == 422
    item = schema(document, "BatchItem")
    assert set(item["properties"]) == {"course", "course_id"}
    assert item["additionalProperties"] is False
    parameters = document["paths"]["/courses:batchGet"]["get"]["parameters"]
    assert [parameter["required"] for parameter in parameters if parameter["name"] == "names"] == [True]


def test_every_field_and_parameter_is_described(document: dict[str, Any]) -> None:
    own = {"CourseCreate", "CourseUpdate", "CourseResponse", "BatchItem", "Change", "ErrorBody", "ErrorInfo"}
    for name in (*own, "FieldViolation", "ListCoursesResponse", "BatchCreateCoursesRequest"):
        for field, its in schema(document, name)["properties"].items():
            assert its.get("description") or "$ref" in its or "const" in its, f"{name}.{field}"
    for operation in operations(document):
        for parameter in operation.get("parameters", []):
            assert parameter["description"], parameter["name"]


def test_every_response_has_an_example_and_errors_are_typed(document: dict[str, Any]) -> None:
    for operation in operations(document):
        for code, response in operation["responses"].items():
            if code == "204":
                continue
            content = response["content"]["application/json"]
            if int(code) < 400:
                assert content["example"], operation["operationId"]
                continue
            assert content["schema"] == {"$ref": "#/components/schemas/ErrorResponse"}
            for reason, example in content["examples"].items():
                error = example["value"]["error"]
                assert error["code"] == int(code)
                assert error["details"][0]["reason"] == reason
                assert error["details"][0]["domain"] == DOMAIN
    assert set(schema(document, "ErrorInfo")["properties"]) == {"@type", "reason", "domain", "metadata"}
    assert set(schema(document, "FieldViolation")["properties"]) == {"field", "reason", "description"}


def test_headers_are_documented_where_they_are_sent(document: dict[str, Any], service: Service) -> None:
    create = document["paths"]["/courses"]["post"]["responses"]
    assert set(create["201"]["headers"]) == {"ETag", "Location"}
    for operation in operations(document):
        assert set(operation["responses"]["405"]["headers"]) == {"Allow"}
        assert set(operation["responses"]["503"]["headers"]) == {"Retry-After"}
    sent = service.http.post("/courses", json={"title": "x"}).headers
    assert {"etag", "location"} <= set(sent)


def test_an_example_of_a_course_is_what_the_service_returns(document: dict[str, Any], service: Service) -> None:
    post = document["paths"]["/courses"]["post"]
    body = post["requestBody"]["content"]["application/json"]["examples"]["a course"]["value"]
    created = service.http.post("/courses?course_id=bio-101", json=body).json()
    example = post["responses"]["201"]["content"]["application/json"]["example"]
    of_the_call = {"uid", "etag", "create_time", "update_time"}
    assert {field: value for field, value in created.items() if field not in of_the_call} == {
        field: value for field, value in example.items() if field not in of_the_call
    }
    assert list(created) == list(example)
