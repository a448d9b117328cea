"""How long the tests that make up their input go on: `make fuzz SECONDS=600` makes them long."""

import os
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings

SECONDS = float(os.environ.get("FUZZ_SECONDS", "0"))
_EXAMPLES_PER_SECOND = 500

fuzzed: Callable[[Any], Any] = settings(
    max_examples=max(300, int(SECONDS * _EXAMPLES_PER_SECOND)),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
