"""The table of tools/benchmark/proposals.py."""

from __future__ import annotations

from llmdet.datasets.toy import ToySettings, generate
from llmdet.testing.demo import tiny_proposal_demo
from llmdet.testing.programs import load_program


def test_each_kind_of_boxes_is_judged_by_size_of_the_objects(root, tmp_path, capsys):
    data = generate(tmp_path / "toy", ToySettings(train=2, val=3, size=64, photographs=False))
    made = tiny_proposal_demo(tmp_path)
    program = load_program(root / "tools" / "benchmark" / "proposals.py")
    program.main([str(made.config), str(made.weights), str(data), "--images", "2"])
    rows = [line.split() for line in capsys.readouterr().out.strip().splitlines()]
    assert rows[0] == ["boxes", "objects", "AR@5", "AR@10", "AR@50"]
    kinds = [(boxes, objects) for boxes, objects, *_ in rows[1:]]
    sizes = ("all", "small", "large")
    assert kinds == [(b, o) for b in ("fine", "coarse", "random") for o in sizes]
    assert all(-100 <= float(value) <= 100 for _, _, *values in rows[1:] for value in values)
