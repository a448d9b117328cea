"""The settings: what is taken, what is refused, and what is said then."""

import re

import pytest

from course_service.settings import Settings, SettingsError, load_settings
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for field in Settings.model_fields:
        monkeypatch.delenv(f"COURSE_{field.upper()}", raising=False)


def test_nothing_has_to_be_set() -> None:
    settings = load_settings()
    assert (settings.grpc_address, settings.http_address) == ("127.0.0.1:50051", "127.0.0.1:8080")
    assert settings.database.drivername == "sqlite"


def test_the_environment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COURSE_DATABASE_URL", "postgresql://ann:p%40ss@db:5433/courses?sslmode=require")
    monkeypatch.setenv("COURSE_GRPC_ADDRESS", "[::1]:1")
    monkeypatch.setenv("COURSE_HTTP_ADDRESS", "")
    monkeypatch.setenv("COURSE_THREADS", "3")
    settings = load_settings()
    assert (settings.grpc_address, settings.http_address, settings.threads) == ("[::1]:1", "", 3)
    assert (settings.database.drivername, settings.database.password) == ("postgresql+psycopg2", "p@ss")
    assert settings.database.query == {"sslmode": "require"}


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("COURSE_DATABASE_URL", "mysql://canary@h/n", "must begin with"),
        ("COURSE_DATABASE_URL", "postgresql://ann:canary@db:port/x", "must be a URL"),
        ("COURSE_DATABASE_URL", "canary", "must be a URL"),
        ("COURSE_DATABASE_URL", "sqlite://", "must name a file"),
        ("COURSE_DATABASE_URL", "sqlite:///:memory:", "must name a file"),
        ("COURSE_GRPC_ADDRESS", "", "must be HOST:PORT"),
        ("COURSE_GRPC_ADDRESS", "50051", "must be HOST:PORT"),
        ("COURSE_GRPC_ADDRESS", "h:70000", "must be HOST:PORT"),
        ("COURSE_HTTP_ADDRESS", "canary", "must be HOST:PORT"),
        ("COURSE_THREADS", "many", "valid integer"),
        ("COURSE_THREADS", "0", "greater than or equal to 1"),
        ("COURSE_DRAIN_SECONDS", "-1", "greater than or equal to 0"),
        ("COURSE_METRICS_ADDRESS", "9464", "must be HOST:PORT"),
        ("COURSE_OTLP_ENDPOINT", "canary:4318", "must be a URL such as http://127.0.0.1:4318"),
        ("COURSE_OTLP_ENDPOINT", "http://canary:port", "must be a URL"),
        ("COURSE_OTLP_ENDPOINT", "http://h/?canary", "must be a URL"),
        ("COURSE_TRACE_SAMPLE_RATIO", "1.1", "less than or equal to 1"),
        ("COURSE_TRACE_SAMPLE_RATIO", "nan", "less than or equal to 1"),
        ("COURSE_LOG_FORMAT", "xml", "'auto', 'text' or 'json'"),
        ("COURSE_LOG_LEVEL", "LOUD", "'DEBUG', 'INFO'"),
        ("COURSE_DATABSE_URL", "canary", "there is no such setting; the nearest is COURSE_DATABASE_URL"),
        ("COURSE_PORT", "50051", "there is no such setting"),
        ("COURSE_GRPC_PORT", "50051", "there is no such setting; the nearest is COURSE_GRPC_ADDRESS"),
    ],
)
def test_an_unusable_value_is_named_but_not_repeated(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert re.fullmatch(rf"{variable}: .*{re.escape(message)}.*", str(caught.value))
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("service", ["COURSE", "COURSE_SERVICE", "COURSE_DB"])
def test_the_links_that_kubernetes_puts_into_the_environment_are_no_settings(
    monkeypatch: pytest.MonkeyPatch, service: str
) -> None:
    for name, value in {
        "SERVICE_HOST": "10.0.0.7",
        "SERVICE_PORT": "50051",
        "SERVICE_PORT_GRPC": "50051",
        "PORT": "tcp://10.0.0.7:50051",
        "PORT_50051_TCP": "tcp://10.0.0.7:50051",
        "PORT_50051_TCP_PROTO": "tcp",
        "PORT_50051_TCP_PORT": "50051",
        "PORT_50051_TCP_ADDR": "10.0.0.7",
    }.items():
        monkeypatch.setenv(f"{service}_{name}", value)
    monkeypatch.setenv("COURSE_THREADS", "3")
    assert load_settings().threads == 3


def test_every_unusable_setting_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COURSE_THREADS", "0")
    monkeypatch.setenv("COURSE_TYPO", "x")
    with pytest.raises(SettingsError, match=r"COURSE_THREADS: .*; COURSE_TYPO: "):
        load_settings()


def test_the_readme_has_a_row_for_every_setting_with_its_default() -> None:
    rows = dict(
        re.findall(r"^\| `(COURSE_\w+)` \|\s*`?([^|`]*?)`?\s*\|", (ROOT / "README.md").read_text(), re.MULTILINE)
    )
    defaults = {f"COURSE_{name.upper()}": field.default for name, field in Settings.model_fields.items()}
    assert set(rows) == set(defaults)
    for name, default in defaults.items():
        assert rows[name].strip() == (f"{default:g}" if isinstance(default, float) else str(default)), name
