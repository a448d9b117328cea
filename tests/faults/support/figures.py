"""The figures that the fault tests have seen, as one table: at the end of a run, in var/figures and in the docs."""

import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.conftest import ROOT
from tests.faults.support.counts import FULL

_FILES = ROOT / "var" / "figures" / ("full" if FULL else "short")
_DOCUMENT = ROOT / "docs" / "reliability.md"
_HEAD = ("Promise", "What is promised", "Test", "Figure", "Negative control")


@dataclass
class Row:
    """A promise, what was seen of it, and what is seen with the fault in."""

    promise: str
    claim: str
    test: str = ""
    figure: str = ""
    control: str = ""


_rows: dict[tuple[str, str], Row] = {}
_failed: set[str] = set()


def record(promise: str, claim: str, figure: str = "", control: str = "") -> None:
    """Enter what a test has seen.

    A test enters its figure, its control what the fault did, or one call enters both: what is left empty stays as the
    other call has entered it. The claim is a sentence such as "an acknowledged write survives".
    """
    row = _rows.setdefault((promise, claim), Row(promise, claim))
    row.control = control or row.control
    if figure or not row.test:
        row.figure = figure or row.figure
        row.test = os.environ["PYTEST_CURRENT_TEST"].rpartition(" ")[0]


def forget_failed(test: str) -> None:
    """Leave out of the files what a failed test has entered."""
    _failed.add(test)


def report() -> list[str]:
    """Write the files, with FULL=1 the docs too, and return the table's lines."""
    for row in _rows.values():
        if row.test not in _failed:
            _merge(row)
    if FULL:
        rewrite("figures", table(_HEAD, (_cells(row) for row in _stored())))
    return table(_HEAD, (_cells(row) for row in sorted(_rows.values(), key=_order)))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Make a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]


def publish(section: str, lines: Sequence[str]) -> None:
    """Write a table of a test's own into var/figures, and with FULL=1 between its two markers in the docs."""
    _FILES.mkdir(parents=True, exist_ok=True)
    (_FILES / f"{section}.md").write_text("".join(f"{line}\n" for line in lines))
    if FULL:
        rewrite(section, lines)


def rewrite(section: str, lines: Sequence[str]) -> None:
    """Replace what docs/reliability.md has between the two markers of a section."""
    first, last = f"<!-- {section} -->\n", f"<!-- end of {section} -->\n"
    before, found, rest = _DOCUMENT.read_text().partition(first)
    _, found_too, after = rest.partition(last)
    assert found, f"{first!r} is not in {_DOCUMENT.name}"
    assert found_too, f"{last!r} is not in {_DOCUMENT.name}"
    _DOCUMENT.write_text(before + first + "\n" + "".join(f"{line}\n" for line in lines) + "\n" + last + after)


def _merge(row: Row) -> None:
    """Store a row; what this run has not seen stays as an earlier run has seen it."""
    file = _FILES / (re.sub(r"\W+", "-", f"{row.promise} {row.claim}".lower()).strip("-")[:100] + ".json")
    file.parent.mkdir(parents=True, exist_ok=True)
    earlier = Row(**json.loads(file.read_text())) if file.exists() else row
    test = row.test if row.figure else earlier.test  # not the control
    row = Row(row.promise, row.claim, test, row.figure or earlier.figure, row.control or earlier.control)
    file.write_text(json.dumps(asdict(row), indent=2) + "\n")


def _stored() -> list[Row]:
    files: Iterable[Path] = _FILES.glob("*.json")
    return sorted((Row(**json.loads(file.read_text())) for file in files), key=_order)


def _cells(row: Row) -> Sequence[str]:
    failed = "FAILED: " if row.test in _failed else ""
    return row.promise, row.claim, row.test.rpartition("/")[2], failed + row.figure, row.control


def _order(row: Row) -> tuple[str, int, str]:
    """D2 comes before D10."""
    letter, number = row.promise[:1], re.sub(r"\D", "", row.promise)
    return letter, int(number or 0), row.claim
