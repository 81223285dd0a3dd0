"""The page of pictures that the quickstart ends with."""

import numpy as np
from PIL import Image

from llmdet.testing.programs import load_program


def test_every_picture_is_on_the_page(root, tmp_path, capsys):
    program = load_program(root / "demo" / "quickstart_sheet.py")
    (tmp_path / "pictures" / "vis").mkdir(parents=True)
    colours = {"a": (200, 0, 0), "b": (0, 200, 0), "c": (0, 0, 200), "d": (200, 200, 0)}
    for name, colour in colours.items():
        Image.new("RGB", (300, 200), colour).save(tmp_path / "pictures" / "vis" / f"{name}.png")
    program.main([str(tmp_path)])
    assert capsys.readouterr().out.endswith("sheet.jpg\n")
    page = np.array(Image.open(tmp_path / "sheet.jpg")).astype(int)
    for colour in colours.values():
        assert (np.abs(page - colour).max(-1) < 20).sum() > 0.9 * 300 * 200
    assert page[-60:, :560].min() < 100  # the name of the last one
