"""The report: a table for each kind of call, and a plot."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from html import escape
from itertools import groupby
from pathlib import Path

from benchmarks.measuring import Row

_BAR_HEIGHT, _WIDTH, _LEFT = 18, 720, 330


def write(rows: list[Row], folder: Path, about: str, footprint: str) -> None:
    """Write RESULTS.md, and beside it cpu.svg."""
    parts = ["# What a call costs", "", paragraph(about), "", "![CPU per call](cpu.svg)", ""]
    parts += ["## Memory and start", "", paragraph(footprint), ""]
    for kind, group in groupby(rows, key=lambda row: row.kind):
        parts += [f"## {kind}", "", *_table(group), ""]
    (folder / "RESULTS.md").write_text("\n".join(parts))
    (folder / "cpu.svg").write_text(_plot(rows))


def paragraph(text: str) -> str:
    """Return a text in lines as long as those of other pages."""
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def table(rows: list[Row]) -> str:
    """Return all rows as one table, for a terminal."""
    return "\n".join(line for _, group in groupby(rows, key=lambda row: row.kind) for line in _table(group, named=True))


def _table(rows: Iterable[Row], *, named: bool = False) -> list[str]:
    head = [
        "server",
        "CPU µs, median",
        "minimum",
        "ratio to the service",
        "PostgreSQL µs",
        "calls/s",
        "p50 ms",
        "p99",
        "p99.9",
    ]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        name = f"{row.kind}: {row.server}" if named else row.server
        numbers = (row.cpu_median, row.cpu_minimum, row.ratio, row.database_cpu, row.per_second)
        lines.append([name, *(f"{number:g}" for number in (*numbers, row.p50, row.p99, row.p999))])
    return ["| " + " | ".join(line) + " |" for line in lines]


def _plot(rows: list[Row]) -> str:
    """Draw bars of the medians, those of each kind to the scale of its longest."""
    bars, y = [], 10
    for kind, group in groupby(rows, key=lambda row: row.kind):
        rows_of_kind = list(group)
        longest = max(row.cpu_median for row in rows_of_kind)
        bars.append(f'<text x="10" y="{y + 13}" font-weight="bold">{escape(kind)} (µs of CPU)</text>')
        for row in rows_of_kind:
            y += _BAR_HEIGHT
            width = row.cpu_median / longest * (_WIDTH - _LEFT - 60)
            colour = "#2a6f97" if row.server == "service" else "#a9b8c2"
            bars.append(f'<text x="{_LEFT - 8}" y="{y + 13}" text-anchor="end">{escape(row.server)}</text>')
            bars.append(f'<rect x="{_LEFT}" y="{y + 2}" width="{width:.0f}" height="13" fill="{colour}"/>')
            bars.append(f'<text x="{_LEFT + width + 5:.0f}" y="{y + 13}">{row.cpu_median:.0f}</text>')
        y += 2 * _BAR_HEIGHT
    style = 'font-family="sans-serif" font-size="12"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{y}" {style}>\n'
        + "\n".join(bars)
        + "\n</svg>\n"
    )
