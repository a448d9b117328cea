"""Counting: calls, latencies, faults, and what the kernel says of the service."""

from __future__ import annotations

import threading
import time
from array import array
from collections import Counter, defaultdict
from dataclasses import dataclass
from statistics import median

CALM = "calm"


@dataclass
class Fault:
    """Something that was done to the service or its database; moments in seconds since the start of the run."""

    kind: str
    start: float
    end: float | None = None
    """When the cause was gone: the process was up, or went on."""
    first_read: float | None = None
    """When a read first succeeded after that."""
    first_write: float | None = None

    @property
    def recovery(self) -> float | None:
        """Seconds from the end of the cause until a read and a write had succeeded."""
        if self.end is None or self.first_read is None or self.first_write is None:
            return None
        return max(self.first_read, self.first_write) - self.end


@dataclass(frozen=True)
class Sample:
    """What the kernel says of the service at a moment."""

    moment: float
    pid: int
    memory: int
    threads: int
    descriptors: int
    cpu_seconds: float


class Tally:
    """Takes what happens in a run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self.calls: Counter[tuple[str, str, str]] = Counter()
        """By method, face and code."""
        self.reasons: Counter[tuple[str, str]] = Counter()
        """Of failures, by code and reason."""
        self.failures: Counter[tuple[str, str]] = Counter()
        """By phase and code."""
        self.latencies: dict[str, array[float]] = defaultdict(lambda: array("d"))
        """In milliseconds, by the fault in which the call ran."""
        self.ok_latencies: dict[str, array[float]] = defaultdict(lambda: array("d"))
        self.faults: list[Fault] = []
        self.samples: list[Sample] = []
        self.errors_in_log: list[str] = []
        self.starts: list[float] = []
        """How many seconds the service took each time until it served."""
        self.stops: list[float] = []
        """How many seconds the service took to end after each SIGTERM."""
        self.load_ended = 0.0
        """When the load ended."""

    @property
    def now(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._began

    def _phase(self, started: float) -> str:
        """The fault in which a call ran that has just ended, or just after which, or calm."""
        for fault in self.faults[-1:]:
            if fault.end is None or started < fault.end:
                return fault.kind
            if started < fault.end + 3:
                return f"3 s after: {fault.kind}"
        return CALM

    def called(self, method: str, face: str, code: str, reason: str, started: float) -> None:
        """Take the end of a call that began at a moment of this run."""
        now, phase = self.now, self._phase(started)
        with self._lock:
            self.calls[method, face, code] += 1
            self.latencies[phase].append((now - started) * 1000)
            if code == "OK":
                self.ok_latencies[phase].append((now - started) * 1000)
                self._succeeded(method, now)
            else:
                self.reasons[code, reason] += 1
                self.failures[phase, code] += 1

    def _succeeded(self, method: str, now: float) -> None:
        is_read = method in {"GetCourse", "ListCourses", "BatchGetCourses"}
        for fault in self.faults[-1:]:
            if fault.end is not None and is_read and fault.first_read is None:
                fault.first_read = now
            elif fault.end is not None and not is_read and fault.first_write is None:
                fault.first_write = now

    def begin(self, kind: str) -> Fault:
        """Take the start of a fault; its `end` is for the caller to set."""
        fault = Fault(kind, self.now)
        with self._lock:
            self.faults.append(fault)
        return fault

    @property
    def total(self) -> int:
        """How many calls there were."""
        return self.calls.total()

    def by_code(self) -> Counter[str]:
        """How many calls ended in each code."""
        with self._lock:
            codes: Counter[str] = Counter()
            for (_, _, code), number in self.calls.items():
                codes[code] += number
            return codes


@dataclass(frozen=True)
class Trend:
    """What the service took at the start and at the end of a stretch in which it was never restarted."""

    begin: float
    end: float
    memory: tuple[float, float]
    threads: tuple[float, float]
    descriptors: tuple[float, float]

    @property
    def memory_growth(self) -> float:
        """As a fraction of what it had."""
        return self.memory[1] / self.memory[0] - 1


def trend(samples: list[Sample], warm_up: float) -> Trend | None:
    """Compare the first third with the last one of the newest process's life, without its warm-up; medians.

    Thirds, because memory swings by a tenth within a minute, as large pages come and go.
    """
    life = [sample for sample in samples if sample.pid == samples[-1].pid]
    life = [sample for sample in life if sample.moment >= life[0].moment + warm_up]
    if len(life) < 15:
        return None
    first, last = life[: len(life) // 3], life[-(len(life) // 3) :]

    def both(name: str) -> tuple[float, float]:
        return median(getattr(sample, name) for sample in first), median(getattr(sample, name) for sample in last)

    return Trend(first[0].moment, last[-1].moment, both("memory"), both("threads"), both("descriptors"))
