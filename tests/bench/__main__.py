# Copyright: the upkeep.ops authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m tests.bench [NAME ...] [--markdown FILE]``: run the benchmarks, side by side with what people use.

Each ``tests/bench/bench_NAME.py`` has a function ``rows() -> list[Row]``. The exit code is 1 when a goal was missed.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

# The collection is found as in the tests.
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "collections"))

from tests.bench.common import Row, machine, markdown, text_table

_NAMES = sorted(path.stem[6:] for path in Path(__file__).parent.glob("bench_*.py"))


def main() -> int:
    """Run the benchmarks that were asked for, all without a name."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Run the benchmarks.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(_NAMES)}; all without a name")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write tables and machine data there")
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.names) - set(_NAMES)):
        parser.error(f"there is no benchmark {', '.join(unknown)}")
    print(machine(), file=sys.stderr)
    sections: list[tuple[str, list[Row]]] = []
    for name in arguments.names or _NAMES:
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        sections.append((name, importlib.import_module(f"tests.bench.bench_{name}").rows()))
    everything = [row for _name, rows in sections for row in rows]
    print(text_table(everything))
    if arguments.markdown:
        arguments.markdown.write_text(markdown(sections), encoding="utf-8")
    return 0 if all(row.met for row in everything) else 1


if __name__ == "__main__":
    sys.exit(main())
