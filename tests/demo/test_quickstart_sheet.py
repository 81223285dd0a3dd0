"""The page of pictures that the quickstart ends with."""

import json

import numpy as np
from PIL import Image

from llmdet.testing.programs import load_program


def test_every_picture_and_what_is_said_of_it_is_on_the_page(root, tmp_path, capsys):
    program = load_program(root / "demo" / "quickstart_sheet.py")
    for folder in ("vis", "preds"):
        (tmp_path / "pictures" / folder).mkdir(parents=True)
    colours = {"a": (200, 0, 0), "b": (0, 200, 0), "c": (0, 0, 200), "d": (200, 200, 0)}
    for name, colour in colours.items():
        Image.new("RGB", (300, 200), colour).save(tmp_path / "pictures" / "vis" / f"{name}.png")
        said = json.dumps({"description": "A red ring."} if name == "a" else {})
        (tmp_path / "pictures" / "preds" / f"{name}.json").write_text(said)
    program.main([str(tmp_path)])
    assert capsys.readouterr().out.endswith("sheet.jpg\n")
    page = np.array(Image.open(tmp_path / "sheet.jpg")).astype(int)
    for colour in colours.values():
        assert (np.abs(page - colour).max(-1) < 20).sum() > 0.9 * 300 * 200
    described = page[-60:, :560].min()  # the last in the order of names stands first
    assert described < 100
