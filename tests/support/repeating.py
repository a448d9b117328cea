"""Doing something again and again while a test does something else."""

import contextlib
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def repeating(*steps: Callable[[], object], pause: float = 0.0) -> Iterator[None]:
    """Do each step again and again in a thread of its own; what one raises is raised at the end of the context."""
    stop = threading.Event()
    raised: list[Exception] = []

    def run(step: Callable[[], object]) -> None:
        while not stop.wait(pause):
            try:
                step()
            except Exception as exception:  # raised below
                raised.append(exception)
                return

    threads = [threading.Thread(target=run, args=(step,), daemon=True) for step in steps]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(timeout=60)
    if raised:
        raise raised[0]
