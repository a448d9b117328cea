"""What the kernel says of processes, from /proc."""

import os
import time
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_CPUCLOCK_SCHED = 2


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the third on; the second, a name, may hold spaces."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def is_running(pid: int) -> bool:
    """Whether a process exists and has not ended; one that nobody has waited for yet has."""
    return _stat(pid)[:1] not in ([], ["Z"], ["X"])


def children(pid: int) -> list[int]:
    """Return the processes that a process has started and that have not ended."""
    pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return [child for child in pids if _stat(child)[1:2] == [str(pid)] and is_running(child)]


def wait_until_gone(pid: int, seconds: float = 20.0) -> None:
    """Wait for the end of a process that need not be a child of this one."""
    until = time.monotonic() + seconds
    while is_running(pid):
        assert time.monotonic() < until, f"process {pid} does not end"
        time.sleep(0.01)


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used."""
    user, system = _stat(pid)[11:13]
    return (int(user) + int(system)) / _TICKS


def exact_cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used, threads that have ended too, to the nanosecond.

    What the kernel counts by ticks is too much for threads that wake by a clock: they run when a tick is counted.
    Raises `OSError` if there is no such process.
    """
    return time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED)  # the clock of a process, clock_getcpuclockid(3)


def ended_children_cpu_seconds(pid: int) -> float:
    """Return the processor time that those processes used which a process has started and which have ended."""
    user, system = _stat(pid)[13:15]
    return (int(user) + int(system)) / _TICKS


def memory_bytes(pid: int) -> int:
    """Return the memory that a process has resident."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE


def threads(pid: int) -> int:
    """Return how many threads a process has."""
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def descriptors(pid: int) -> int:
    """Return how many files and sockets a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))
