"""The closing table of the quickstart: what was reached, and where the pictures are."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

#: Row of the table -> the files of its COCO and its LVIS numbers.
ROWS = {
    "combinations seen in training": ("seen_coco", "seen_lvis"),
    "combinations never seen": ("unseen_coco", "unseen_lvis"),
}


def number(values: dict[str, float], name: str) -> str:
    """The value whose key is ``name`` or ends in it, as a percentage."""
    found = [value for key, value in values.items() if key.split("/")[-1] == name]
    return f"{100 * found[0]:.1f}" if found else "-"


def table(work_dir: Path) -> str:
    """The table of a finished quickstart."""
    lines = [f"{'held-out images':<32}{'AP50':>8}{'AP':>8}{'fixed AP':>10}"]
    for title, (coco, lvis) in ROWS.items():
        boxes = json.loads((work_dir / f"{coco}.json").read_text())
        fixed = json.loads((work_dir / f"{lvis}.json").read_text())
        values = (number(boxes, "AP50"), number(boxes, "AP"))
        kind = "APr" if coco.startswith("unseen") else "AP"
        lines.append(f"{title:<32}{values[0]:>8}{values[1]:>8}{number(fixed, kind):>10}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table and the paths of the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work_dir", type=Path, help="--work-dir of the quickstart")
    work_dir = parser.parse_args(argv).work_dir
    print(table(work_dir))
    print(f"\ncheckpoint: {work_dir / 'latest.pth'}")
    for picture in sorted((work_dir / "pictures" / "vis").iterdir()):
        print(f"picture:    {picture}")


if __name__ == "__main__":
    main()
