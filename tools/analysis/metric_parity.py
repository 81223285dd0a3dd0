"""Compare our metrics with official tools on fixture folders that hold an expected.json.

Example:
    python tools/analysis/metric_parity.py tests/golden/eval/*/*

Prints ours, expected and difference of every number; exits with 1 if one differs by more than
1e-6 (1e-5 for referring segmentation; half a unit of the last decimal where the official tool
rounds).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

# What runs with `python tools/analysis/metric_parity.py` finds the package, installed or not.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from llmdet.errors import LLMDetError
from llmdet.testing.parity.metrics import Row, compare_case, skipped_keys


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="fixture folders, or parents")
    parser.add_argument("--all", action="store_true", help="print equal numbers too, one a line")
    return parser.parse_args()


def main() -> int:
    """Print the comparison; 1 if anything differs."""
    args = parse_args()
    cases = sorted(
        {file.parent for folder in args.folders for file in Path(folder).rglob("expected.json")}
    )
    if not cases:
        print(f"error: no expected.json below {', '.join(args.folders)}", file=sys.stderr)
        return 1
    failures = sum(compare(case, args.all) for case in cases)
    print(f"{len(cases)} cases, {failures} differences")
    return 1 if failures else 0


def compare(case: Path, show_all: bool) -> int:
    """Print one case and return how many numbers differ."""
    try:
        rows = list(compare_case(case))
    except LLMDetError as error:
        print(f"{case}: {error}")
        return 1
    for key in dict.fromkeys(row.key for row in rows):
        compared = [row for row in rows if row.key == key]
        worst = max(row.difference for row in compared)
        verdict = "equal" if all(row.equal for row in compared) else "DIFFERS"
        print(f"{case} {key}: {len(compared)} numbers, largest difference {worst:.2e}, {verdict}")
        for row in compared:
            if show_all or not row.equal:
                print_row(row)
    for key, reason in skipped_keys(case).items():
        print(f"{case} {key}: not compared ({reason})")
    return sum(not row.equal for row in rows)


def print_row(row: Row) -> None:
    """One number: name, ours, expected, difference."""
    ours = "missing" if row.ours is None else f"{row.ours:.12f}"
    print(f"    {row.name:<44} {ours:>16} {row.expected:>16.12f} {row.difference:>10.2e}")


if __name__ == "__main__":
    sys.exit(main())
