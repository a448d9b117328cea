"""Silent, slow, deaf and flooding callers: what those who behave see of them."""

import contextlib
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2
from sqlalchemy.engine import URL, make_url

from tests.conftest import migrate
from tests.faults.support import floods, nuisances
from tests.faults.support.callers import (
    Seen,
    create_by_grpc,
    health_caller,
    health_watcher,
    well_behaved,
)
from tests.faults.support.counts import FULL, count
from tests.faults.support.figures import record
from tests.faults.support.floods import Sent
from tests.faults.support.http2 import Connection
from tests.faults.support.noise import Noise
from tests.faults.support.nuisances import Nuisance
from tests.faults.support.service import Service, running

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
def url(tmp_path: Path) -> URL:
    """A migrated SQLite file: none of this gets as far as the database."""
    found = make_url(f"sqlite:///{tmp_path / 'course.db'}")
    migrate(found)
    return found


def wait(seconds: float) -> None:
    """Let time pass: how long is part of what is tested."""
    threading.Event().wait(seconds)


def machine(noise: Noise) -> str:
    """Say what the machine itself added."""
    return f" (the machine itself: {noise.longest * 1000:.0f} ms)"


# W3: callers who send no message, or send it slowly.

BODY_SECONDS = 5.0
"""How long a message may take."""

Attack = Callable[[Service], AbstractContextManager[Nuisance]]
SLOW: dict[str, Attack] = {
    "64 silent gRPC calls": lambda service: nuisances.unary_calls(service.grpc_address),
    "64 gRPC messages of a byte per second": lambda service: nuisances.unary_calls(
        service.grpc_address, is_trickling=True
    ),
    "64 HTTP requests with half their headers": lambda service: nuisances.half_requests(
        service.http_address, "headers"
    ),
    "64 HTTP requests with half a body": lambda service: nuisances.half_requests(service.http_address, "body"),
    "64 HTTP headers of a byte per second": lambda service: nuisances.half_requests(
        service.http_address, "headers", is_trickling=True
    ),
    "64 HTTP bodies of a byte per second": lambda service: nuisances.half_requests(
        service.http_address, "body", is_trickling=True
    ),
}


ALL = "all of these at once"
# In the short form, what holds against all at once is taken to hold against each.
ATTACKS = [*SLOW, ALL] if FULL else ["64 silent gRPC calls", ALL]


@dataclass(frozen=True)
class Slow:
    """What well-behaved callers saw before and during an attack, and what became of the attackers' calls."""

    before: dict[str, Seen]
    during: dict[str, Seen]
    ended: int
    """How many of the attackers' calls the service ended, of the kind of which it ended the fewest."""
    longest: float
    """Seconds until the service ended the slowest of the attackers' calls."""

    def __str__(self) -> str:
        slowest = (
            f"{face} {self.before[face].slowest:.0f} → {seen.slowest:.0f} ms" for face, seen in self.during.items()
        )
        return f"slowest {', '.join(slowest)}; attackers cut off after {self.longest:.1f} s at most"


def under_attack(url: URL, name: str, *, seconds: float, fault: str | None = None) -> Slow:
    """Have callers of both faces call before and during an attack."""
    with running(url, fault) as service, well_behaved(service) as callers:
        wait(1)
        before = {face: caller.seen() for face, caller in callers.items()}
        with contextlib.ExitStack() as stack:
            attacks = SLOW.values() if name == ALL else [SLOW[name]]
            kinds = [stack.enter_context(attack(service)) for attack in attacks]
            wait(seconds)
            during = {face: caller.seen() for face, caller in callers.items()}
        return Slow(before, during, min(len(kind.lasted) for kind in kinds), max(kind.longest for kind in kinds))


def others_go_on(slow: Slow) -> None:
    for face, seen in slow.during.items():
        assert seen.failures == (), face
        assert seen.slowest < 1_000, face


def attackers_are_cut_off(slow: Slow) -> None:
    assert slow.ended >= 64
    assert slow.longest < BODY_SECONDS + 1.5


def words(name: str) -> str:
    """Make an id of a name."""
    return "-".join(name.replace(",", "").replace("/", ".").split())


@pytest.mark.parametrize("name", ATTACKS, ids=words)
def test_slow_callers_slow_nobody_else_down(url: URL, name: str) -> None:
    slow = under_attack(url, name, seconds=count(7, 20))
    record("W3", f"{name} slow nobody down", str(slow))
    others_go_on(slow)
    attackers_are_cut_off(slow)


def test_slow_callers_freeze_everybody_if_threads_wait_for_messages(url: URL) -> None:
    name = "64 silent gRPC calls"
    slow = under_attack(url, name, seconds=6, fault="wait_in_the_thread")
    record("W3", f"{name} slow nobody down", control=f"threads wait for messages: {slow}")
    with pytest.raises(AssertionError):
        others_go_on(slow)
    with pytest.raises(AssertionError):
        attackers_are_cut_off(slow)


# W4: watchers of the health who never read.

DRAIN_SECONDS = 1
GRACE_SECONDS = 10


@dataclass(frozen=True)
class Deaf:
    """What others see of a server's health while 50 watchers on each of its ports do not read."""

    checks: dict[str, Seen]
    changes: dict[str, float]
    """The most seconds until a watcher who reads saw a change."""
    stopped_after: float
    exit_code: int | None
    noise: Noise

    def __str__(self) -> str:
        checks = ", ".join(f"{seen.slowest:.0f} ms" for seen in self.checks.values())
        changes = ", ".join(f"{seconds:.1f} s" for seconds in self.changes.values())
        stop = "not stopped" if self.exit_code is None else f"stopped after {self.stopped_after:.1f} s"
        return f"slowest Check {checks}; changes seen after {changes}; {stop}{machine(self.noise)}"


def with_deaf_watchers(url: URL, *, seconds: float, patience: float = 5, fault: str | None = None) -> Deaf:
    """Check, watch, change and stop a service whose health 50 callers on each port watch without reading."""
    with contextlib.ExitStack() as stack:
        noise = stack.enter_context(Noise())
        service = stack.enter_context(running(url, fault, COURSE_DRAIN_SECONDS=str(DRAIN_SECONDS)))
        ports = {"business port": service.grpc_address, "health port": service.health_address}
        callers = {port: stack.enter_context(health_caller(address)) for port, address in ports.items()}
        for address in ports.values():
            stack.enter_context(nuisances.deaf_watchers(address))
        watchers = {port: stack.enter_context(health_watcher(address)) for port, address in ports.items()}
        changes = dict.fromkeys(ports, 0.0)

        def wait_for(status: int) -> None:
            since = time.monotonic()
            for port, watcher in watchers.items():
                changes[port] = max(changes[port], watcher.wait_for(status, since, patience))

        wait_for(SERVING)
        wait(seconds)
        with away(Path(str(url.database))):
            wait_for(NOT_SERVING)
        wait_for(SERVING)
        checks = {port: caller.seen() for port, caller in callers.items()}
        for caller in callers.values():
            caller.stop()
        start = time.monotonic()
        service.signal(signal.SIGTERM)
        wait_for(NOT_SERVING)
        exit_code = None
        with contextlib.suppress(subprocess.TimeoutExpired):
            exit_code = service.wait(DRAIN_SECONDS + GRACE_SECONDS + 2 if fault is None else 0)
        return Deaf(checks, changes, time.monotonic() - start, exit_code, noise)


@contextlib.contextmanager
def away(file: Path) -> Iterator[None]:
    """Take a file away."""
    hidden = file.rename(file.with_suffix(".away"))
    try:
        yield
    finally:
        hidden.rename(file)


def health_goes_on(deaf: Deaf) -> None:
    for port, seen in deaf.checks.items():
        assert seen.failures == (), port
        assert seen.slowest < 100 + deaf.noise.allowance * 1000, port
    assert max(deaf.changes.values()) < 4 + deaf.noise.allowance
    assert deaf.exit_code == 0
    assert deaf.stopped_after < DRAIN_SECONDS + GRACE_SECONDS + 1


def test_watchers_who_do_not_read_hold_up_nobody(url: URL) -> None:
    deaf = with_deaf_watchers(url, seconds=count(3, 20))
    record("W4", "2 × 50 health watchers who never read hold up nobody", str(deaf))
    health_goes_on(deaf)


def test_watchers_who_do_not_read_freeze_health_if_it_is_grpcios_own(url: URL) -> None:
    deaf = with_deaf_watchers(url, seconds=1, patience=1, fault="stock_health")
    record("W4", "2 × 50 health watchers who never read hold up nobody", control=f"grpcio's health servicer: {deaf}")
    with pytest.raises(AssertionError):
        health_goes_on(deaf)


def taken_by_deaf_readers(url: URL, *, seconds: float, fault: str | None = None) -> float:
    """Have callers ask for pages of 3 MB, 100 by each face, and read none; returns the most megabytes that it took."""
    with running(url, fault) as service:
        for _ in range(100):
            create_by_grpc(service.grpc_address, description="a" * 30_000)
        memory = [service.memory_bytes()]
        with measuring(service, memory), nuisances.deaf_readers(service):
            wait(seconds)
        with well_behaved(service):
            return (max(memory) - memory[0]) / 1e6


MOST_MEGABYTES = 500
UNREAD = "600 MB of responses that nobody reads take little memory"


def test_responses_that_nobody_reads_take_little_memory(url: URL) -> None:
    megabytes = taken_by_deaf_readers(url, seconds=count(2, 20))
    record("W4", UNREAD, f"memory + {megabytes:.0f} MB")
    assert megabytes < MOST_MEGABYTES


def test_responses_that_nobody_reads_take_much_memory_if_each_may_wait(url: URL) -> None:
    megabytes = taken_by_deaf_readers(url, seconds=2, fault="patience_with_readers")
    record("W4", UNREAD, control=f"each may wait as long as its caller likes: memory + {megabytes:.0f} MB")
    assert megabytes > MOST_MEGABYTES


def test_a_peer_that_does_not_react_holds_up_no_stop(url: URL) -> None:
    with running(url) as service, Connection(service.grpc_address) as connection:
        connection.read(2)
        start = time.monotonic()
        assert service.stop() == 0
        assert time.monotonic() - start < 4


# W5: floods.

SLOWEST = count(1_000, 250)
"""Milliseconds that a well-behaved call may take meanwhile: more in CI, which shares its processors."""
IN_CORE = {"PRIORITY": count(3_000, 250), "WINDOW_UPDATE": count(3_000, 250)}
"""The same for floods of frames that never leave grpc's core; on two cores 1.2 s were seen."""
MEGABYTES = 100
"""What memory a flood may take on top."""
MEGABYTES_OF = {"CONTINUATION": count(300, MEGABYTES), "endless chunks": 50}
"""The same for headers without an end, which grpc's core keeps until their connection has ended: 134 were seen. And for
chunks without an end, of which a slow machine takes in no more than 70 while nothing limits them."""

FLOODS = {
    "gRPC": (
        "rapid reset", "10,000 streams", "PING", "SETTINGS", "WINDOW_UPDATE", "PRIORITY", "CONTINUATION", "empty DATA",
        "garbage", "garbage after the preface", "HTTP/1.1", "connections", floods.IDLE,
    ),
    "HTTP": (
        "rapid reset", "PING", "garbage", "HTTP/1.1", "endless headers", "endless chunks", "connections", floods.IDLE,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Flooded:
    """What well-behaved callers saw in a flood, and what it cost the service."""

    sent: Sent
    during: dict[str, Seen]
    megabytes: float
    """What memory the service took on top, at most."""
    new_connection_after: float
    """Seconds until calls over new connections had succeeded, once the flood was over."""
    noise: Noise

    def __str__(self) -> str:
        slowest = ", ".join(f"{face} {seen.slowest:.0f} ms" for face, seen in self.during.items())
        return f"slowest {slowest}; memory + {self.megabytes:.0f} MB; {self.sent}{machine(self.noise)}"


def flooded(service: Service, face: str, kind: str, seconds: float) -> Flooded:
    """Flood a face of a service while callers of both faces call."""
    address = service.grpc_address if face == "gRPC" else service.http_address.removeprefix("http://")
    memory = [service.memory_bytes()]
    with Noise() as noise, well_behaved(service) as callers, measuring(service, memory):
        sent = floods.run(kind, address, seconds)
        during = {face: caller.seen() for face, caller in callers.items()}
    start = time.monotonic()
    with well_behaved(service):
        after = time.monotonic() - start
    return Flooded(sent, during, (max(memory) - memory[0]) / 1e6, after, noise)


@contextlib.contextmanager
def measuring(service: Service, memory: list[int]) -> Iterator[None]:
    """Note the memory that a service has, again and again."""
    stop = threading.Event()

    def measure() -> None:
        while not stop.wait(0.05):
            memory.append(service.memory_bytes())

    thread = threading.Thread(target=measure)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def flood_is_ridden_out(flood: Flooded, slowest: float = SLOWEST, megabytes: float = MEGABYTES) -> None:
    assert flood.sent.connections > 0
    for face, seen in flood.during.items():
        assert seen.failures == (), face
        assert seen.slowest < slowest + flood.noise.allowance * 1000, face
    assert flood.megabytes < megabytes
    assert flood.new_connection_after < 2 + flood.noise.allowance


@pytest.fixture(scope="module")
def flooded_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for all floods, so that it has to get over each."""
    file = make_url(f"sqlite:///{tmp_path_factory.mktemp('floods') / 'course.db'}")
    migrate(file)
    with running(file) as service:
        yield service
        assert service.stop() == 0


@pytest.mark.parametrize(
    ("face", "kind"), [(face, kind) for face, kinds in FLOODS.items() for kind in kinds], ids=words
)
def test_a_flood_drowns_nobody_else(flooded_service: Service, face: str, kind: str) -> None:
    flood = flooded(flooded_service, face, kind, count(2, 5))
    record("W5", flood_claim(face, kind), str(flood))
    flood_is_ridden_out(flood, IN_CORE.get(kind, SLOWEST), MEGABYTES_OF.get(kind, MEGABYTES))


@pytest.mark.parametrize("kind", ["endless headers", "endless chunks"] if FULL else ["endless chunks"], ids=words)
def test_a_flood_drowns_the_service_if_nothing_limits_a_size(url: URL, kind: str) -> None:
    with running(url, "no_sizes") as service:
        flood = flooded(service, "HTTP", kind, 4)
    record("W5", flood_claim("HTTP", kind), control=f"no limit of size: {flood}")
    with pytest.raises(AssertionError):
        flood_is_ridden_out(flood, SLOWEST, MEGABYTES_OF.get(kind, MEGABYTES))


def flood_claim(face: str, kind: str) -> str:
    return f"a flood on the {face} face is ridden out: {kind}"
