"""How often a fault is tried: seldom in every run of CI, as often as was promised with FULL=1."""

import os

FULL = os.environ.get("FULL") == "1"


def count(short: int, full: int) -> int:
    """Return the number for this run."""
    return full if FULL else short
