"""The figures that the fault tests have seen, as one table: at the end of a run, and with FULL=1 in the docs."""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tests.conftest import ROOT
from tests.faults.support.counts import FULL

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
    control_test: str = ""


_rows: dict[tuple[str, str], Row] = {}
_failed: set[str] = set()


def record(promise: str, claim: str, figure: str = "", control: str = "", *, test: str = "") -> None:
    """Enter what a test has seen, the current one unless another `test` or folder of tests is named.

    A test enters its figure, its control what the fault did, or one call enters both: what is left empty stays as the
    other call has entered it. The claim is a sentence such as "an acknowledged write survives".
    """
    row = _rows.setdefault((promise, claim), Row(promise, claim))
    test = test or os.environ["PYTEST_CURRENT_TEST"].rpartition(" ")[0]
    if control:
        row.control, row.control_test = control, test
    if figure or not row.test:
        row.figure, row.test = figure or row.figure, test


def forget_failed(test: str) -> None:
    """Leave out of the docs what a failed test has entered."""
    _failed.add(test)


def report() -> list[str]:
    """Return the table's lines. With FULL=1 the docs get them too, and keep what this run has not seen."""
    seen = {key: held for key, row in _rows.items() if (held := _held(row)).figure or held.control}
    if FULL and seen:
        documented = _documented()
        rows = [*(documented | {key: _merged(row, documented.get(key)) for key, row in seen.items()}).values()]
        _rewrite("figures", table(_HEAD, (_cells(row) for row in sorted(rows, key=_order))))
    return table(_HEAD, (_cells(row) for row in sorted(_rows.values(), key=_order)))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Make a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]


def publish(section: str, lines: Sequence[str]) -> None:
    """With FULL=1, write a table of a test's own between its two markers in the docs."""
    if FULL:
        _rewrite(section, lines)


def _rewrite(section: str, lines: Sequence[str]) -> None:
    before, _, after = _parts(section)
    _DOCUMENT.write_text(before + "\n" + "".join(f"{line}\n" for line in lines) + "\n" + after)


def _parts(section: str) -> tuple[str, str, str]:
    """Return what docs/reliability.md has before, between and after the two markers of a section."""
    first, last = f"<!-- {section} -->\n", f"<!-- end of {section} -->\n"
    before, found, rest = _DOCUMENT.read_text().partition(first)
    between, found_too, after = rest.partition(last)
    assert found, f"{first!r} is not in {_DOCUMENT.name}"
    assert found_too, f"{last!r} is not in {_DOCUMENT.name}"
    return before + first, between, last + after


def _documented() -> dict[tuple[str, str], Row]:
    _, lines, _ = _parts("figures")
    rows = [Row(*_read(line)) for line in lines.split("\n") if line.startswith("| ")][2:]
    return {(row.promise, row.claim): row for row in rows}


def _read(line: str) -> list[str]:
    return [cell.replace("\\|", "|") for cell in line.removeprefix("| ").removesuffix(" |").split(" | ")]


def _held(row: Row) -> Row:
    """Return of a row what tests that have not failed have entered."""
    figure = "" if row.test in _failed else row.figure
    control = "" if row.control_test in _failed else row.control
    return Row(row.promise, row.claim, row.test, figure, control)


def _merged(row: Row, earlier: Row | None) -> Row:
    if earlier is None:
        return row
    test = row.test if row.figure else earlier.test  # not the control
    return Row(row.promise, row.claim, test, row.figure or earlier.figure, row.control or earlier.control)


def _cells(row: Row) -> Sequence[str]:
    failed = "FAILED: " if row.test in _failed else ""
    return row.promise, row.claim, row.test.rpartition("/")[2], failed + row.figure, row.control


def _order(row: Row) -> tuple[str, int, str]:
    """D2 comes before D10."""
    letter, number = row.promise[:1], re.sub(r"\D", "", row.promise)
    return letter, int(number or 0), row.claim
