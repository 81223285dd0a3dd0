"""The table of tools/benchmark/few_shot.py."""

from __future__ import annotations

from llmdet.datasets.toy.new_shapes import generate_new_shapes
from llmdet.testing.programs import load_program


def test_each_number_of_examples_gives_a_row_and_what_was_known_stays(root, tiny, tmp_path, capsys):
    data = generate_new_shapes(tmp_path / "shapes", train=4, val=2, size=64)
    program = load_program(root / "tools" / "benchmark" / "few_shot.py")
    known = ("--known", data / "instances_val.json", data / "images")
    few = ("--category", "arrow", "--shots", 1, "--steps", 1, "--images", 2)
    program.main([str(each) for each in (tiny.config, tiny.weights, data, *few, *known)])
    head, _, before, after = capsys.readouterr().out.strip().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in (before, after)]
    names = [name.strip() for name in head.strip("|").split("|")]
    first, second = (dict(zip(names, row, strict=True)) for row in cells)
    assert (first["images"], second["images"]) == ("0", "1")
    assert first["known"] == second["known"] != ""
    assert float(second["seconds"]) > 0
