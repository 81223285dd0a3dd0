"""One page of the quickstart's pictures."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from llmdet.visualization.pictures import save_picture
from llmdet.visualization.sheet import contact_sheet

_COLUMNS = 3
_SIDE = 560  # pixels of a picture's cell


def sheet(work_dir: Path) -> np.ndarray:
    """The page of a finished quickstart: photographs first; [H, W, 3] uint8 RGB."""
    paths = sorted((work_dir / "pictures" / "vis").iterdir(), reverse=True)
    images = [np.array(Image.open(path).convert("RGB")) for path in paths]
    return contact_sheet(images, [path.stem for path in paths], _COLUMNS, _SIDE)


def main(argv: Sequence[str] | None = None) -> None:
    """Write ``sheet.jpg`` beside the pictures' folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work_dir", type=Path, help="--work-dir of the quickstart")
    work_dir = parser.parse_args(argv).work_dir
    save_picture(sheet(work_dir), work_dir / "sheet.jpg")
    print(f"all pictures on one page: {work_dir / 'sheet.jpg'}")


if __name__ == "__main__":
    main()
