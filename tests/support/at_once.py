"""Doing several things at the same time."""

import threading
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")


def at_once(*works: Callable[[], _T]) -> list[_T]:
    """Do several works at the same time; returns what they return, in their order."""
    results: dict[int, _T] = {}
    raised: list[Exception] = []
    barrier = threading.Barrier(len(works))

    def run(index: int, work: Callable[[], _T]) -> None:
        barrier.wait()
        try:
            results[index] = work()
        except Exception as exception:  # raised below
            raised.append(exception)

    threads = [threading.Thread(target=run, args=item, daemon=True) for item in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
        assert not thread.is_alive(), "a work does not end"
    if raised:
        raise raised[0]
    return [results[index] for index in range(len(works))]
