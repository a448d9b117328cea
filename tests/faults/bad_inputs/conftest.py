"""What the tests of bad inputs share: the world that they must not change, and the count of what they tried."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine
from sqlalchemy.engine import URL

from tests.conftest import Service
from tests.faults.bad_inputs.world import Tally, World
from tests.faults.support.figures import record

_FOLDER = Path(__file__).parent


@pytest.fixture(scope="session")
def tally(request: pytest.FixtureRequest) -> Iterator[Tally]:
    counted = Tally()
    yield counted
    modules = {item.path.name for item in request.session.items}
    if modules >= {path.name for path in _FOLDER.glob("test_*.py")} and not request.session.testsfailed:
        claim = "bad values end cleanly, alike on both databases, and store nothing"
        record("W2", claim, str(counted), counted.control, test=str(_FOLDER))


@pytest.fixture(scope="module")
def _world(_service: Service, database_url: URL, tally: Tally) -> Iterator[World]:
    engine = create_engine(database_url, isolation_level="AUTOCOMMIT")
    found = World(_service, engine, tally)
    found.seed()
    yield found
    found.check_alive()
    engine.dispose()


@pytest.fixture
def world(_world: World) -> Iterator[World]:
    """A service with a few courses, which still works when a test has ended; what the test has stored is removed."""
    yield _world
    _world.clean_up()
