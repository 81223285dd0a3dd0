"""One page of the quickstart's pictures, with what the model says of each below it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from llmdet.visualization.pictures import save_picture
from llmdet.visualization.sheet import contact_sheet

_COLUMNS = 3
_SIDE = 560  # pixels of a picture's cell, in which a description fits on three lines


def sheet(work_dir: Path) -> np.ndarray:
    """The page of a finished quickstart: photographs first; [H, W, 3] uint8 RGB."""
    images, texts = [], []
    for path in sorted((work_dir / "pictures" / "vis").iterdir(), reverse=True):
        found = json.loads((work_dir / "pictures/preds" / f"{path.stem}.json").read_text())
        images.append(np.array(Image.open(path).convert("RGB")))
        texts.append(found.get("description", ""))
    return contact_sheet(images, texts, _COLUMNS, _SIDE)


def main(argv: Sequence[str] | None = None) -> None:
    """Write ``sheet.jpg`` beside the pictures' folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work_dir", type=Path, help="--work-dir of the quickstart")
    work_dir = parser.parse_args(argv).work_dir
    save_picture(sheet(work_dir), work_dir / "sheet.jpg")
    print(f"all pictures on one page: {work_dir / 'sheet.jpg'}")


if __name__ == "__main__":
    main()
