"""What the failover tests share: one cluster, whole at the start of each. Without its programs they are skipped."""

import contextlib
from collections.abc import Iterator

import pytest

from tests.failover.cluster import Cluster, what_is_missing
from tests.faults.conftest import pytest_runtest_logreport, pytest_terminal_summary

__all__ = ["pytest_runtest_logreport", "pytest_terminal_summary"]  # they make the table of figures


@pytest.fixture(scope="session")
def _cluster() -> Iterator[Cluster]:
    if missing := what_is_missing():
        pytest.skip(f"not installed: {missing} (apt-get install patroni etcd-server postgresql)")
    with contextlib.closing(Cluster()) as cluster:
        yield cluster


@pytest.fixture
def cluster(_cluster: Cluster) -> Cluster:
    """Three members, one of them the primary, with the migrated database `course`."""
    _cluster.mend()
    return _cluster
