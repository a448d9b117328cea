"""The report of a run, in Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from tests.faults.support.faces import PASSING
from tests.faults.support.figures import table
from tests.soak.checks import Check
from tests.soak.tally import CALM, Fault, Sample, Tally

_SHOWN = 20


@dataclass(frozen=True)
class Plan:
    """What a run was asked to do."""

    database: str
    minutes: float
    rate: float
    callers: Mapping[str, int]
    """How many callers by each face."""
    seed: int
    fault: str | None


def report(plan: Plan, tally: Tally, checks: Sequence[Check]) -> list[str]:
    """Write the report of a run."""
    holds = all(check.holds for check in checks)
    callers = " and ".join(f"{number} by {face}" for face, number in plan.callers.items())
    codes = tally.by_code()
    total = max(1, tally.total)
    return [
        f"# Long run on {plan.database}: {'every check holds' if holds else 'FAILED'}",
        "",
        f"{tally.load_ended / 60:.1f} minutes, {tally.total:,} calls of callers ({callers}, together {plan.rate:g}"
        f" calls a second wanted), {len(tally.faults)} faults, seed {plan.seed}"
        + (f", with the fault `{plan.fault}` in the service." if plan.fault else "."),
        "",
        "## Checks",
        "",
        *table(("Check", "Seen", "Verdict"), ((c.what, c.seen, _verdict(c)) for c in checks)),
        "",
        *(line for check in checks for line in _against(check)),
        "## Calls by their end",
        "",
        *table(("Code", "Calls", "Share"), ((code, f"{n:,}", f"{n / total:.2%}") for code, n in codes.most_common())),
        "",
        *table(("Code", "Reason", "Calls"), ((*key, f"{n:,}") for key, n in tally.reasons.most_common())),
        "",
        "## Calls by method, face and code",
        "",
        *_by_method(tally),
        "",
        "## Latency",
        "",
        "In milliseconds, by the fault in or just after which a call ran; the last two columns count failures too.",
        "",
        *table(("Phase", "OK", "p50", "p99", "max", "all calls", "their max"), _latencies(tally)),
        "",
        *_failures(tally),
        "",
        "## Faults",
        "",
        "Lasted: until the process was up or went on. Recovery: from then until a read and a write had succeeded.",
        "",
        *table(("Fault", "Times", "Median recovery", "Longest"), _faults_by_kind(tally.faults)),
        "",
        *table(("At", "Fault", "Lasted", "First read after", "First write after"), map(_fault, tally.faults)),
        "",
        "## The service's processes",
        "",
        f"Seconds from SIGTERM to the end, of which 1 s is for callers to leave: {_list(tally.stops)}.",
        "",
        f"Seconds from each start until it served: {_list(tally.starts)}.",
        "",
        "Memory, threads and descriptors at the first and at the last sample of each life, and the most.",
        "",
        *table(("From", "Lasted", "CPU", "Memory", "Threads", "Descriptors"), _lives(tally.samples)),
    ]


def _verdict(check: Check) -> str:
    return "holds" if check.holds else f"FAILED ({len(check.against)})"


def _against(check: Check) -> Iterator[str]:
    if not check.holds:
        yield f"Against “{check.what}”:"
        yield ""
        for text in check.against[:_SHOWN]:
            yield "- " + " ".join(text.split())[:600]
        if len(check.against) > _SHOWN:
            yield f"- … and {len(check.against) - _SHOWN} more"
        yield ""


def _by_method(tally: Tally) -> list[str]:
    codes = [code for code, _ in tally.by_code().most_common()]
    rows = sorted({(method, face) for method, face, _ in tally.calls})
    return table(
        ("Method", "Face", *codes),
        ((method, face, *(f"{tally.calls[method, face, code]:,}" for code in codes)) for method, face in rows),
    )


def _latencies(tally: Tally) -> Iterator[Sequence[str]]:
    for phase in sorted(tally.latencies, key=lambda phase: (phase != CALM, phase)):
        every, good = tally.latencies[phase], sorted(tally.ok_latencies.get(phase, ()))
        figures = [f"{good[min(len(good) - 1, int(len(good) * part))]:.1f}" for part in (0.5, 0.99, 1) if good]
        yield phase, f"{len(good):,}", *(figures or ["–"] * 3), f"{len(every):,}", f"{max(every):.0f}"


def _failures(tally: Tally) -> list[str]:
    """The failures that any call can have, by phase."""
    phases = sorted({phase for phase, code in tally.failures if code in PASSING})
    codes = sorted(PASSING)
    return table(
        ("Phase", *codes), ((phase, *(f"{tally.failures[phase, code]:,}" for code in codes)) for phase in phases)
    )


def _seconds(later: float | None, earlier: float | None) -> str:
    return "–" if later is None or earlier is None else f"{later - earlier:.2f} s"


def _list(seconds: Sequence[float]) -> str:
    return ", ".join(f"{one:.1f}" for one in seconds) or "never sent"


def _fault(fault: Fault) -> Sequence[str]:
    return (
        f"{fault.start / 60:.1f} min",
        fault.kind,
        _seconds(fault.end, fault.start),
        _seconds(fault.first_read, fault.end),
        _seconds(fault.first_write, fault.end),
    )


def _faults_by_kind(faults: Sequence[Fault]) -> Iterator[Sequence[str]]:
    for kind in sorted({fault.kind for fault in faults}):
        some = [fault for fault in faults if fault.kind == kind]
        recoveries = [fault.recovery for fault in some if fault.recovery is not None]
        figures = (f"{median(recoveries):.2f} s", f"{max(recoveries):.2f} s") if recoveries else ("–", "–")
        yield kind, str(len(some)), *figures


def _lives(samples: Sequence[Sample]) -> Iterator[Sequence[str]]:
    for pid in dict.fromkeys(sample.pid for sample in samples):
        life = [sample for sample in samples if sample.pid == pid]
        first, last = life[0], life[-1]

        def ends(a: float, b: float, most: float) -> str:
            return f"{a:.0f} → {b:.0f} (≤ {most:.0f})"

        yield (
            f"{first.moment / 60:.1f} min",
            f"{(last.moment - first.moment) / 60:.1f} min",
            f"{last.cpu_seconds:.1f} s",
            ends(first.memory / 1e6, last.memory / 1e6, max(sample.memory for sample in life) / 1e6) + " MB",
            ends(first.threads, last.threads, max(sample.threads for sample in life)),
            ends(first.descriptors, last.descriptors, max(sample.descriptors for sample in life)),
        )
