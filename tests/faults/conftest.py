"""What the fault tests share: a PostgreSQL that can be hurt, and the table of what was seen."""

from collections.abc import Iterator

import pytest

from tests.faults.support import figures
from tests.faults.support.postgres import Postgres


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL that can be hurt; it is up again at the start of each test."""
    server = Postgres()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def _mended(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "postgres" in request.fixturenames:
        server: Postgres = request.getfixturevalue("postgres")
        server.mend()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.failed:
        figures.forget_failed(report.nodeid)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.section("figures")
    for line in figures.report():
        terminalreporter.write_line(line)
