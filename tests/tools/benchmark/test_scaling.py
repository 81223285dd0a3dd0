"""How cost grows, at a size of seconds."""

import json

import pytest

from llmdet.errors import ConfigError
from llmdet.testing.programs import load_program


@pytest.fixture
def tool(root):
    return load_program(root / "tools/benchmark/scaling.py")


def test_every_plot_is_measured_and_drawn_and_drawn_again_from_the_file_alone(
    tool, tmp_path, capsys
):
    words = ["--out", str(tmp_path), "--short", "--repeats", "1", "--device", "cpu"]
    assert tool.main([*words, "--only", "image_size,classes"]) == 0
    assert tool.main([*words, "--only", "regions,caption_length"]) == 0
    results = json.loads((tmp_path / "scaling.json").read_text())
    assert set(results) == set(tool.PLOTS)
    for name, result in results.items():
        assert result["machine"]["torch"]
        for points in result["seconds"].values():
            assert len(points) == 2
            assert all(seconds > 0 for _, seconds in points)
        assert tool.PLOTS[name].title in (tmp_path / f"scaling_{name}.svg").read_text()
    assert "| classes | 1 | 4 | each more |" in capsys.readouterr().out

    plots = {path: path.read_bytes() for path in tmp_path.glob("*.svg")}
    for path in plots:
        path.unlink()
    assert tool.main([*words, "--draw"]) == 0
    assert {path: path.read_bytes() for path in tmp_path.glob("*.svg")} == plots


def test_a_table_says_what_each_further_step_costs(tool):
    result = {"seconds": {"one image": [(1, 2.0), (11, 7.0)]}}
    assert "| one image | 2.00 | 7.00 | 0.500 |" in tool.table("caption_length", result)


def test_a_plot_that_is_not_there_is_refused_with_its_nearest_match(tool, tmp_path):
    with pytest.raises(ConfigError, match="no plot 'region'; did you mean 'regions'"):
        tool.main(["--out", str(tmp_path), "--only", "region"])
