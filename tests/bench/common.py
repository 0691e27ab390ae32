# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all benchmarks share: measuring in pairs, rows that say whether a goal was met, and tables of them.

Ours and theirs are measured in turns (A B A B ...) and compared by their medians, so that a machine that grows busy
or warm in between treats both alike.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

#: Returns the figure of one run: seconds as a rule.
Measure = Callable[[], float]


@dataclass(frozen=True)
class Row:
    """One comparison; figures are texts with their units, ``note`` says what exactly was compared."""

    measure: str
    ours: str
    theirs: str
    ratio: str
    goal: str
    met: bool
    note: str = ""


@dataclass(frozen=True)
class Pair:
    """The medians of measures that were taken in turns."""

    ours: float
    theirs: float


def timed(act: Callable[[], object]) -> float:
    """Seconds that ``act`` takes."""
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


def in_turns(ours: Measure, theirs: Measure, pairs: int = 3) -> Pair:
    """Measure ours and theirs in turns; an uneven number of pairs gives true medians."""
    figures = [(ours(), theirs()) for _turn in range(pairs)]
    return Pair(statistics.median(own for own, _ in figures), statistics.median(other for _, other in figures))


def at_most(measure: str, pair: Pair, limit: float, *, unit: str = "s", note: str = "") -> Row:
    """A row whose goal is that ours is at most ``limit`` times theirs."""
    ratio = pair.ours / pair.theirs
    return Row(
        measure,
        quantity(pair.ours, unit),
        quantity(pair.theirs, unit),
        f"{ratio:.2f}x",
        f"at most {limit:g}x",
        ratio <= limit,
        note,
    )


def over(measure: str, pair: Pair, factor: float, *, unit: str = "s", note: str = "") -> Row:
    """A row whose goal is that ours is more than ``factor`` times faster than theirs."""
    ratio = pair.theirs / pair.ours
    return Row(
        measure,
        quantity(pair.ours, unit),
        quantity(pair.theirs, unit),
        f"{ratio:.1f}x faster",
        f"over {factor:g}x faster",
        ratio > factor,
        note,
    )


def quantity(value: float, unit: str) -> str:
    """A figure with three significant digits and its unit."""
    digits = max(0, 2 - len(str(int(abs(value)))) + 1) if abs(value) >= 1 else 3
    return f"{value:.{digits}f} {unit}"


def text_table(rows: Sequence[Row]) -> str:
    """The rows for a terminal."""
    cells = _cells(rows)
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in cells)


def markdown(sections: Iterable[tuple[str, Sequence[Row]]]) -> str:
    """A document with the machine, and for each benchmark its table and notes."""
    parts = ["# Benchmarks\n", machine() + "\n"]
    for name, rows in sections:
        head, *lines = _cells(rows)
        table = [head, ["---"] * len(head), *lines]
        parts.append(f"## {name}\n")
        parts.append("\n".join("| " + " | ".join(line) + " |" for line in table) + "\n")
        parts.extend(f"- {row.measure}: {row.note}" for row in rows if row.note)
        parts.append("")
    return "\n".join(parts).rstrip() + "\n"


def machine() -> str:
    """What the figures depend on: cores, processor and versions."""
    model = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    told = [
        f"{os.cpu_count()} cores",
        model[1].strip() if model else platform.machine(),
        f"Linux {platform.release().split('-')[0]}",
        f"Python {platform.python_version()}",
        f"ansible-core {importlib.metadata.version('ansible-core')}",
        " ".join(subprocess.run(["curl", "--version"], capture_output=True, text=True, check=True).stdout.split()[:2]),
    ]
    return ", ".join(told) + ". Ours and theirs were measured in turns; the figures are medians."


def _cells(rows: Sequence[Row]) -> list[list[str]]:
    head = ["measure", "ours", "theirs", "ratio", "goal", "met"]
    return [
        head,
        *([row.measure, row.ours, row.theirs, row.ratio, row.goal, "yes" if row.met else "NO"] for row in rows),
    ]
