"""Every HTTP route: the same use cases as gRPC, in HTTP's words."""

import uuid
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from starlette.exceptions import HTTPException

from course_service.errors import DatabaseUnavailable, DeadlineExceeded
from course_service.health import Health
from course_service.rest.app import make_api
from course_service.rest.places import Places
from course_service.rest.server import HttpServer
from course_service.store.database import Database
from tests.conftest import GUARD, TOKENS, Service
from tests.support.calls import create, failed, get
from tests.support.failures import http_failure
from tests.support.http import http_client


@pytest.fixture
def http(service: Service) -> httpx2.Client:
    create(service, "bio", code="BIO", description="Cells.", labels={"x": "1"}, external_ids={"sis": "A1"})
    return service.http


def ok(response: httpx2.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    if "etag" in body:
        assert response.headers["ETag"] == body["etag"]
    return body


def test_patch_changes_the_fields_that_were_sent(http: httpx2.Client) -> None:
    before = ok(http.get("/courses/bio"))
    after = ok(http.patch("/courses/bio", json={"code": "", "labels": {"y": "2"}, "uid": "ignored", "name": "too"}))
    changed = {field for field in before if before[field] != after[field]}
    assert changed == {"code", "labels", "etag", "update_time"}
    assert ok(http.patch("/courses/bio", json={"description": None}))["description"] == ""
    assert ok(http.patch("/courses/bio", json={})) == ok(http.get("/courses/bio"))
    failure = http_failure(http.patch("/courses/bio", json={"title": None, "nope": 1}), 422)
    assert failure.violations == {"title": "FIELD_REQUIRED", "nope": "FIELD_UNKNOWN"}


def test_patch_of_a_missing_course(http: httpx2.Client) -> None:
    assert http_failure(http.patch("/courses/new", json={"title": "x"}), 404).reason == "COURSE_NOT_FOUND"
    created = http.patch("/courses/new?allow_missing=true", json={"title": "x"})
    assert (created.status_code, created.headers["Location"]) == (201, "/courses/new")
    assert created.headers["ETag"] == created.json()["etag"]
    assert ok(http.patch("/courses/new?allow_missing=true", json={"title": "x"})) == created.json()
    failure = http_failure(http.patch("/courses/newer?allow_missing=true", json={}), 422)
    assert failure.violations == {"title": "FIELD_REQUIRED"}


def test_if_match_is_held_against_the_etag(http: httpx2.Client) -> None:
    etag = http.get("/courses/bio").headers["ETag"]
    ok(http.patch("/courses/bio", json={"title": "A"}, headers={"If-Match": etag}))
    calls: list[Callable[[dict[str, str]], httpx2.Response]] = [
        lambda headers: http.patch("/courses/bio", json={"title": "B"}, headers=headers),
        lambda headers: http.post("/courses/bio:publish", headers=headers),
        lambda headers: http.delete("/courses/bio", headers=headers),
    ]
    for call in calls:
        failure = http_failure(call({"If-Match": etag}), 412)
        assert (failure.status, failure.reason) == ("ABORTED", "ETAG_MISMATCH")
    assert ok(http.patch("/courses/bio", json={"title": "B"}, headers={"If-Match": "*"}))["title"] == "B"
    current = ok(http.get("/courses/bio"))
    http_failure(http.patch("/courses/bio", json={**current, "title": "C", "etag": etag}), 412)
    http_failure(http.post("/courses/bio:publish", json={"etag": etag}), 412)
    after = ok(http.patch("/courses/bio", json={**current, "title": "C"}))
    assert ok(http.post("/courses/bio:publish", json={"etag": after["etag"]}))["state"] == "PUBLISHED"
    failure = http_failure(http.post("/courses/bio:archive", json={"etga": etag}), 422)
    assert failure.violations == {"etga": "FIELD_UNKNOWN"}


def test_the_lifecycle(http: httpx2.Client) -> None:
    assert ok(http.post("/courses/bio:publish"))["state"] == "PUBLISHED"
    failure = http_failure(http.post("/courses/bio:publish"), 400)
    assert (failure.status, failure.reason) == ("FAILED_PRECONDITION", "INVALID_STATE_TRANSITION")
    assert (failure.metadata["from"], failure.metadata["to"]) == ("PUBLISHED", "PUBLISHED")
    assert ok(http.post("/courses/bio:archive"))["state"] == "ARCHIVED"
    assert http_failure(http.patch("/courses/bio", json={"title": "x"}), 400).reason == "COURSE_ARCHIVED"
    deleted = ok(http.delete("/courses/bio"))
    assert deleted["state"] == "DELETED"
    assert deleted["purge_time"] > deleted["delete_time"]
    assert http_failure(http.delete("/courses/bio"), 404).reason == "COURSE_NOT_FOUND"
    assert ok(http.delete("/courses/bio?allow_missing=true")) == deleted
    assert http.delete("/courses/never?allow_missing=true").status_code == 204
    assert ok(http.post("/courses/bio:undelete"))["state"] == "ARCHIVED"
    assert http_failure(http.post("/courses/bio:undelete"), 409).reason == "COURSE_NOT_DELETED"


def test_the_list(http: httpx2.Client, service: Service) -> None:
    for number in range(5):
        create(service, f"c{number}", title=f"T{number}")
    page = ok(http.get("/courses", params={"page_size": 2, "order_by": "title desc", "filter": "title:T"}))
    assert [course["title"] for course in page["courses"]] == ["T4", "T3"]
    query = {"page_size": 9, "order_by": "title desc", "filter": "title:T", "page_token": page["next_page_token"]}
    rest = ok(http.get("/courses", params=query))
    assert [course["title"] for course in rest["courses"]] == ["T2", "T1", "T0"]
    assert rest["next_page_token"] == ""
    assert ok(http.get("/courses?filter=name=courses/bio"))["courses"][0]["description"] == ""
    assert ok(http.get("/courses?filter=name=courses/bio&view=FULL"))["courses"][0]["description"] == "Cells."
    ok(http.delete("/courses/bio"))
    assert len(ok(http.get("/courses"))["courses"]) == 5
    assert len(ok(http.get("/courses?show_deleted=true"))["courses"]) == 6
    assert http_failure(http.get("/courses?page_size=-1"), 422).reason == "PAGE_SIZE_NEGATIVE"
    assert http_failure(http.get("/courses?page_size=x"), 422).violations == {"page_size": "FIELD_WRONG_TYPE"}


def test_batches(http: httpx2.Client) -> None:
    body: dict[str, Any] = {"requests": [{"course": {"title": "A"}, "course_id": "a"}, {"course": {"title": "B"}}]}
    created = ok(http.post("/courses:batchCreate", json=body))["courses"]
    assert [course["title"] for course in created] == ["A", "B"]
    names = [created[1]["name"], "courses/a", created[1]["name"]]
    read = ok(http.get("/courses:batchGet", params={"names": names}))["courses"]
    assert [course["title"] for course in read] == ["B", "A", "B"]
    assert http_failure(http.get("/courses:batchGet?names=courses/nope"), 404).metadata["indexes"] == "0"
    assert http_failure(http.get("/courses:batchGet"), 422).violations == {"names": "FIELD_REQUIRED"}
    body["requests"][1]["course"]["title"] = ""
    failure = http_failure(http.post("/courses:batchCreate", json=body), 422)
    assert failure.violations == {"requests[1].course.title": "FIELD_REQUIRED"}
    body["requests"][1]["course"]["title"] = "C"
    failure = http_failure(http.post("/courses:batchCreate", json=body), 409)
    assert failure.violations == {"requests[0].course_id": "COURSE_ALREADY_EXISTS"}


def test_an_idempotency_key_makes_each_write_safe_to_repeat(http: httpx2.Client) -> None:
    writes: list[Callable[[dict[str, str]], httpx2.Response]] = [
        lambda headers: http.post("/courses", json={"title": "x"}, headers=headers),
        lambda headers: http.post("/courses:batchCreate", json=BATCH, headers=headers),
        lambda headers: http.patch("/courses/bio", json={"title": "y"}, headers=headers),
        lambda headers: http.post("/courses/bio:publish", headers=headers),
        lambda headers: http.post("/courses/bio:archive", headers=headers),
        lambda headers: http.delete("/courses/bio", headers=headers),
        lambda headers: http.post("/courses/bio:undelete", headers=headers),
    ]
    for send in writes:
        key = {"Idempotency-Key": str(uuid.uuid4())}
        first, second = send(key), send(key)
        assert first.is_success, first.text
        assert (second.status_code, second.json()) == (first.status_code, first.json())
    key = {"Idempotency-Key": str(uuid.uuid4())}
    upserts = [http.patch("/courses/new?allow_missing=true", json={"title": "z"}, headers=key) for _ in range(2)]
    assert [upsert.status_code for upsert in upserts] == [201, 201]
    key = {"Idempotency-Key": str(uuid.uuid4())}
    again = [http.patch("/courses/new?allow_missing=true", json={"title": "z"}, headers=key) for _ in range(2)]
    assert [unchanged.status_code for unchanged in again] == [200, 200]
    assert upserts[0].json() == upserts[1].json()
    failure = http_failure(http.post("/courses", json={"title": "x"}, headers={"Idempotency-Key": "x"}), 422)
    assert failure.violations == {"Idempotency-Key": "FIELD_BAD_FORMAT"}


BATCH = {"requests": [{"course": {"title": "x"}}]}


def test_trying_out_stores_nothing(http: httpx2.Client, service: Service) -> None:
    before = get(service, "courses/bio")
    for would_be in (
        http.post("/courses?validate_only=true&course_id=new", json={"title": "x"}),
        http.patch("/courses/new?validate_only=true&allow_missing=true", json={"title": "x"}),
    ):
        assert ok(would_be)["name"] == "courses/new"
        assert "Location" not in would_be.headers
    http_failure(http.get("/courses/new"), 404)
    assert ok(http.patch("/courses/bio?validate_only=true", json={"title": "y"}))["title"] == "y"
    assert ok(http.delete("/courses/bio?validate_only=true"))["state"] == "DELETED"
    assert ok(http.post("/courses/bio:publish?validate_only=true"))["state"] == "PUBLISHED"
    assert ok(http.post("/courses:batchCreate", json={**BATCH, "validate_only": True}))["courses"]
    assert ok(http.post("/courses:batchCreate?validate_only=true", json=BATCH))["courses"]
    assert ok(http.post("/courses/bio:publish", json={"validate_only": True}))["state"] == "PUBLISHED"
    assert len(ok(http.get("/courses"))["courses"]) == 1
    assert get(service, "courses/bio") == before


def test_head_answers_as_get_does_without_a_body(http: httpx2.Client) -> None:
    for path in ("/courses/bio", "/courses", "/courses:batchGet?names=courses/bio", "/courses/nope"):
        head, got = http.head(path), http.get(path)
        assert head.status_code == got.status_code
        assert head.content == b""
        assert head.headers["content-length"] == got.headers["content-length"]
        assert head.headers.get("ETag") == got.headers.get("ETag")


@pytest.mark.parametrize("path", ["/courses/bio:nope", "/courses:nope", "/courses/bio:publish:archive", "/courses/a/b"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_an_unknown_verb_is_not_found(http: httpx2.Client, method: str, path: str) -> None:
    assert http_failure(http.request(method, path), 404).reason == "ROUTE_NOT_FOUND"


def test_the_root_leads_to_the_documentation(http: httpx2.Client) -> None:
    response = http.get("/", follow_redirects=False)
    assert (response.status_code, response.headers["Location"]) == (307, "/docs")


def test_any_etag_of_if_match_will_do(http: httpx2.Client) -> None:
    etag = http.get("/courses/bio").headers["ETag"]
    ok(http.patch("/courses/bio", json={"title": "A"}, headers={"If-Match": f'"other", {etag}'}))
    etag = http.get("/courses/bio").headers["ETag"]
    ok(http.patch("/courses/bio", json={"title": "B"}, headers=[("If-Match", '"other"'), ("If-Match", etag)]))
    etag = http.get("/courses/bio").headers["ETag"]
    for stale in ('"other", "another"', f"W/{etag}", etag.strip('"')):
        failure = http_failure(http.patch("/courses/bio", json={"title": "C"}, headers={"If-Match": stale}), 412)
        assert failure.reason == "ETAG_MISMATCH"
    failure = http_failure(http.patch("/courses/bio", json={"title": "C"}, headers={"If-Match": ""}), 422)
    assert failure.violations == {"If-Match": "FIELD_BAD_FORMAT"}


def test_header_and_body_must_not_disagree(http: httpx2.Client) -> None:
    etag = http.get("/courses/bio").headers["ETag"]
    one, other = str(uuid.uuid4()), str(uuid.uuid4())
    disagreeing: list[tuple[str, httpx2.Response]] = [
        ("If-Match", http.patch("/courses/bio", json={"etag": etag}, headers={"If-Match": '"other"'})),
        ("If-Match", http.post("/courses/bio:publish", json={"etag": etag}, headers={"If-Match": '"other"'})),
        (
            "Idempotency-Key",
            http.post("/courses/bio:publish", json={"request_id": one}, headers={"Idempotency-Key": other}),
        ),
        (
            "Idempotency-Key",
            http.post("/courses:batchCreate", json={**BATCH, "request_id": one}, headers={"Idempotency-Key": other}),
        ),
    ]
    for header, response in disagreeing:
        failure = http_failure(response, 422)
        assert failure.violations == {header: "FIELD_CONFLICT"}
        assert failure.message.startswith(f"{header}: ")
    twice = http.post("/courses", json={"title": "x"}, headers=[("Idempotency-Key", one), ("Idempotency-Key", one)])
    assert http_failure(twice, 422).violations == {"Idempotency-Key": "FIELD_DUPLICATE"}
    both = f'"other", {etag}'
    assert ok(http.patch("/courses/bio", json={"etag": both, "title": "Same list"}, headers={"If-Match": both}))
    etag = http.get("/courses/bio").headers["ETag"]
    empty = http.post("/courses", json={"title": "x"}, headers={"Idempotency-Key": ""})
    assert http_failure(empty, 422).violations == {"Idempotency-Key": "FIELD_BAD_FORMAT"}
    agreeing = {"Idempotency-Key": one.upper(), "If-Match": f'"other", {etag}'}
    assert ok(http.post("/courses/bio:publish", json={"request_id": one, "etag": etag}, headers=agreeing))


def test_errors_use_the_names_that_http_has(http: httpx2.Client) -> None:
    key = {"Idempotency-Key": str(uuid.uuid4())}
    http.post("/courses", json={"title": "x"}, headers=key)
    reused = http_failure(http.post("/courses", json={"title": "y"}, headers=key), 422)
    assert reused.violations == {"Idempotency-Key": "REQUEST_ID_REUSED"}
    assert reused.message == "Idempotency-Key: was used for another request; make a new one"
    in_use = http_failure(http.post("/courses", json={"title": "x", "external_ids": {"sis": "A1"}}), 409)
    assert in_use.message == 'external_ids["sis"]: another course has the external id sis = A1'
    uid = str(uuid.uuid4())
    unusable = http_failure(http.patch(f"/courses/{uid}?allow_missing=true", json={"title": "x"}), 422)
    assert unusable.violations == {"course_id": "FIELD_BAD_FORMAT"}


def test_an_unforeseen_http_error_keeps_its_own_status(database: Database) -> None:
    api = make_api(database, TOKENS, Health(database), GUARD, Places(1))

    @api.get("/teapot/{code}")
    def teapot(code: int) -> None:
        raise HTTPException(code, headers={"WWW-Authenticate": "Bearer"})

    server = HttpServer("127.0.0.1:0", api)
    server.start()
    with http_client(f"http://127.0.0.1:{server.port}") as client:
        for code, status in {401: "UNAUTHENTICATED", 418: "UNKNOWN", 503: "UNAVAILABLE"}.items():
            response = client.get(f"/teapot/{code}")
            assert http_failure(response, code).status == status
            assert response.headers["WWW-Authenticate"] == "Bearer"
    server.stop()


def test_a_database_that_is_away_is_503_with_the_time_to_try_again(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object, **__: object) -> None:
        raise DatabaseUnavailable("connection refused")

    monkeypatch.setattr("course_service.services.get_course", away)
    response = service.http.get("/courses/bio")
    by_http = http_failure(response, 503)
    by_grpc = failed(service, "GetCourse", name="courses/bio")
    assert response.headers["Retry-After"] == "1"
    for failure in (by_http, by_grpc):
        assert (failure.status, failure.reason) == ("UNAVAILABLE", "DATABASE_UNAVAILABLE")
        assert failure.details == {"ErrorInfo", "RetryInfo"}
        assert "refused" not in failure.message


def test_a_forbidden_step_says_which_precondition_failed_by_both_faces(http: httpx2.Client, service: Service) -> None:
    by_http = http_failure(http.post("/courses/bio:archive"), 400)
    by_grpc = failed(service, "ArchiveCourse", name="courses/bio")
    for failure in (by_http, by_grpc):
        assert failure.details == {"ErrorInfo", "PreconditionFailure"}


def test_a_call_that_takes_too_long_is_504(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    async def slow(*_: object, **__: object) -> None:
        raise DeadlineExceeded

    monkeypatch.setattr("course_service.services.get_course", slow)
    assert http_failure(service.http.get("/courses/bio"), 504).reason == "DEADLINE_EXCEEDED"
    assert failed(service, "GetCourse", name="courses/bio").status == "DEADLINE_EXCEEDED"
