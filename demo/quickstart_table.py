"""The closing table of the quickstart: what was reached, and where the pictures are."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten

#: Title of a row -> split, names of its COCO AP50 and AP, name of its LVIS fixed AP. On images
#: with unseen combinations the prompt has all classes, and the unseen ones are counted: they are
#: the novel classes of the split and the rare ones of the LVIS file.
ROWS = {
    "seen in training": ("val_seen", "AP50", "AP", "AP"),
    "never seen": ("val_unseen", "novel_ap50", "novel_ap", "APr"),
}


def table(work_dir: Path) -> str:
    """The table of a finished quickstart, in percent."""
    lines = [f"{'colour-shape combinations':<28}{'AP50':>8}{'AP':>8}{'fixed AP':>10}"]
    for title, (split, *coco_names, fixed_name) in ROWS.items():
        coco = json.loads((work_dir / f"{split}_coco.json").read_text())["values"]
        fixed = json.loads((work_dir / f"{split}_lvis-fixed-ap.json").read_text())["values"]
        values = [*(coco[name] for name in coco_names), fixed[fixed_name]]
        ap50, ap, fixed_ap = (f"{100 * value:.1f}" for value in values)
        lines.append(f"{title:<28}{ap50:>8}{ap:>8}{fixed_ap:>10}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table, and the pictures with what the model says about them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work_dir", type=Path, help="--work-dir of the quickstart")
    work_dir = parser.parse_args(argv).work_dir
    print(table(work_dir))
    print(f"\ncheckpoint: {work_dir / 'latest.pth'}")
    for picture in sorted((work_dir / "pictures" / "vis").iterdir()):
        print(f"picture:    {picture}")
        found = json.loads((work_dir / "pictures/preds" / f"{picture.stem}.json").read_text())
        if "description" in found:
            print(f"            {shorten(found['description'], 160)}")


if __name__ == "__main__":
    main()
