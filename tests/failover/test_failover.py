"""A failover of the database, as the callers of two replicas of the service see it."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pytest
from sqlalchemy.engine import URL

from tests.failover.callers import DEADLINE_SECONDS, Callers
from tests.failover.cluster import LOOPBACK, Cluster, Member, wait_until
from tests.faults.support.figures import record
from tests.faults.support.service import Service, running

_CALLERS = 12
_BEFORE_SECONDS = 2.0
_AFTER_SECONDS = 5.0
_FROZEN_SECONDS = 35.0
_PATIENCE_SECONDS = 10.0

Event = Callable[[Cluster], contextlib.AbstractContextManager[None]]
UrlOf = Callable[[Sequence[Member]], str]


def as_libpq_writes_it(members: Sequence[Member]) -> str:
    hosts = ",".join(f"{LOOPBACK}:{member.port}" for member in members)
    return f"postgresql://postgres@{hosts}/course"


def as_sqlalchemy_writes_it(members: Sequence[Member]) -> str:
    hosts = "&".join(f"host={LOOPBACK}:{member.port}" for member in members)
    return f"postgresql://postgres@/course?{hosts}"


@contextlib.contextmanager
def killed(cluster: Cluster) -> Iterator[None]:
    cluster.primary.kill()
    yield


@contextlib.contextmanager
def switched_over(cluster: Cluster) -> Iterator[None]:
    thread = threading.Thread(target=cluster.switch_over)  # it returns when all is done
    thread.start()
    yield
    thread.join()


@contextlib.contextmanager
def frozen(cluster: Cluster) -> Iterator[None]:
    primary = cluster.primary
    thaw = threading.Timer(_FROZEN_SECONDS, primary.thaw)
    primary.freeze()
    thaw.start()
    try:
        yield
    finally:
        thaw.join()


@dataclass(frozen=True)
class Figures:
    """What the callers of both replicas saw; the worse of the two, in seconds."""

    promoted_after: float
    """From the event to the promotion."""
    outage: float
    """From the last acknowledged write before the promotion to where every caller has had one after it."""
    writes_after: float
    """From the promotion to where every caller of both replicas has had a write acknowledged."""
    healthy_after: float
    """From the promotion to where both replicas are SERVING for good."""
    slowest_try: float
    """As the caller saw it."""
    slowest_work: float
    """As the service's log has it."""
    acknowledged: int
    lost: int
    duplicates: int
    surprises: Sequence[str]

    def __str__(self) -> str:
        return (
            f"promoted after {self.promoted_after:.1f} s; all callers write {self.writes_after:.2f} s after that"
            f" (outage {self.outage:.1f} s), both replicas healthy {self.healthy_after:.2f} s after it;"
            f" {self.lost} of {self.acknowledged} acknowledged writes lost, {self.duplicates} duplicates;"
            f" with {DEADLINE_SECONDS:.0f} s a try, the slowest took {self.slowest_try:.2f} s, its work"
            f" {self.slowest_work:.2f} s; {len(self.surprises)} other failures"
        )


def seen_by_callers(cluster: Cluster, event: Event, url_of: UrlOf, fault: str | None = None) -> Figures:
    """Let two replicas with their callers pass through an event."""
    order = cluster.from_primary_to_next
    url = URL.create("postgresql+psycopg2")  # overwritten by the setting
    with contextlib.ExitStack() as stack:
        services = [
            stack.enter_context(running(url, fault, COURSE_DATABASE_URL=url_of(order), COURSE_HTTP_ADDRESS=""))
            for _ in range(2)
        ]
        replicas = [Callers(service, _CALLERS) for service in services]
        promotion = stack.enter_context(watched_promotion(order[1:]))
        with contextlib.ExitStack() as calls:
            for replica in replicas:
                calls.enter_context(replica.calling())
            time.sleep(_BEFORE_SECONDS)
            start = time.monotonic()
            with event(cluster):
                promoted = promotion()
                time.sleep(_AFTER_SECONDS)
            with contextlib.suppress(AssertionError):  # the figures will say so
                wait_until(
                    lambda: all(replica.all_succeed_after(promoted) for replica in replicas),
                    _PATIENCE_SECONDS,
                    lambda: "callers still wait",
                )
            time.sleep(1)  # in which the thawed primary may still deceive somebody
        cluster.mend()
        memories = [memory for replica in replicas for memory in replica.memories]
        acknowledged = {title for memory in memories for title in memory.acknowledged}
        stored = [title for (title,) in cluster.query("SELECT title FROM courses")]
        return Figures(
            promoted_after=promoted - start,
            outage=max(replica.first_after(promoted) - replica.last_before(promoted) for replica in replicas),
            writes_after=max(replica.first_after(promoted) for replica in replicas) - promoted,
            healthy_after=max(replica.healthy_after(promoted) for replica in replicas) - promoted,
            slowest_try=max(memory.slowest for memory in memories),
            slowest_work=max(map(slowest_line, services)),
            acknowledged=len(acknowledged),
            lost=len(acknowledged.difference(stored)),
            duplicates=len(stored) - len(set(stored)),
            surprises=[surprise for memory in memories for surprise in memory.surprises],
        )


@contextlib.contextmanager
def watched_promotion(standbys: Sequence[Member]) -> Iterator[Callable[[], float]]:
    """Yield a function that waits until one of the standbys is promoted, and returns when."""
    with contextlib.ExitStack() as stack:
        cursors = [stack.enter_context(contextlib.closing(member.connect())).cursor() for member in standbys]

        def is_promoted() -> bool:
            for cursor in cursors:
                cursor.execute("SELECT pg_is_in_recovery()")
            return (False,) in [cursor.fetchone() for cursor in cursors]

        def promotion() -> float:
            until = time.monotonic() + 60
            while not is_promoted():
                assert time.monotonic() < until, "nobody is promoted"
                time.sleep(0.02)
            return time.monotonic()

        yield promotion


def slowest_line(service: Service) -> float:
    """Return the seconds of the slowest call about courses in a service's log."""
    return max(float(line) for line in re.findall(r"grpc \w+ [A-Z_]+ (\d+\.\d) ms", service.log)) / 1000


def holds(figures: Figures) -> None:
    assert figures.writes_after <= 3, figures
    assert figures.healthy_after <= 3, figures
    assert figures.lost == 0, figures
    assert figures.duplicates == 0, figures
    assert figures.slowest_try <= DEADLINE_SECONDS + 0.1, figures
    assert figures.slowest_work <= DEADLINE_SECONDS + 0.1, figures
    assert not figures.surprises, figures.surprises[:3]


@pytest.mark.parametrize(
    ("event", "url_of"),
    [(killed, as_libpq_writes_it), (switched_over, as_sqlalchemy_writes_it), (frozen, as_libpq_writes_it)],
)
def test_writes_go_on_within_3_s_of_the_promotion(cluster: Cluster, event: Event, url_of: UrlOf) -> None:
    figures = seen_by_callers(cluster, event, url_of)
    record("failover", claim_of(event), str(figures))
    holds(figures)


def test_control_a_service_that_waits_in_the_driver_waits_until_the_thaw(cluster: Cluster) -> None:
    figures = seen_by_callers(cluster, frozen, as_libpq_writes_it, fault="no_wait_callback")
    record("failover", claim_of(frozen), control=f"waiting in the driver: {figures}")
    with pytest.raises(AssertionError):
        holds(figures)
    assert figures.outage > _FROZEN_SECONDS - 5


def test_control_a_service_that_takes_any_host_writes_late_and_reads_stale_copies(cluster: Cluster) -> None:
    figures = seen_by_callers(cluster, killed, as_libpq_writes_it, fault="any_host")
    record("failover", claim_of(killed), control=f"any host is taken: {figures}")
    with pytest.raises(AssertionError):
        holds(figures)


def claim_of(event: Event) -> str:
    return f"primary {event.__name__.replace('_', ' ')}: writes and health within 3 s of the promotion"
