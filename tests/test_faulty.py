"""The faults of the fault tests."""

import subprocess
import sys

from tests.conftest import ROOT

APPLY_ALL = "from tests.faults.support.faulty import FAULTS\nfor name, apply in FAULTS.items():\n print(name)\n apply()"


def test_every_fault_finds_what_it_breaks() -> None:
    """Their targets are named by texts, which neither mypy nor ruff follows when something is renamed."""
    applied = subprocess.run([sys.executable, "-c", APPLY_ALL], cwd=ROOT, capture_output=True, text=True, check=False)
    assert applied.returncode == 0, f"{applied.stdout.split()[-1:]}\n{applied.stderr}"
