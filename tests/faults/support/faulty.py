"""The service with a fault in it: the negative controls of the fault tests.

`FAULT=name python -m tests.faults.support.faulty` is `python -m course_service` with one promise broken. A test that
does not go red on its fault proves nothing. Each fault imports what it changes, so that a move of one breaks no other.
"""

import os
import sys
from collections.abc import Callable

from course_service.__main__ import main

Fault = Callable[[], None]
FAULTS: dict[str, Fault] = {}
"""The faults by name."""


def fault(function: Fault) -> Fault:
    """Register a fault under the function's name."""
    FAULTS[function.__name__] = function
    return function


@fault
def none() -> None:
    """Break nothing."""


if __name__ == "__main__":
    FAULTS[os.environ.get("FAULT", "none")]()
    sys.exit(main())
