"""The command writes files that runtimes run, and says whether they are equal to PyTorch."""

import io
import json
import subprocess
import sys
from contextlib import redirect_stdout
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from llmdet.cli import export
from llmdet.errors import ConfigError
from llmdet.export import check, writing
from llmdet.testing.demo import tiny_demo

pytest.importorskip("onnxruntime", reason="the extra 'export' is not installed")

#: The least that has every kind of part: exporting takes as long as there are operators.
DEFORMABLE = {"num_levels": 2}
SMALL = {
    "num_feature_levels": 2,
    "backbone": {
        "_delete_": True,
        "type": "ResNet",
        "depth": 18,
        "num_stages": 2,
        "strides": (1, 2),
        "dilations": (1, 1),
        "base_channels": 8,
        "stem_channels": 8,
        "out_indices": (0, 1),
        "norm_eval": True,
    },
    "neck": {"in_channels": [8, 16], "num_outs": 2},
    "encoder": {"num_layers": 1, "layer_cfg": {"self_attn_cfg": DEFORMABLE}},
    "decoder": {"num_layers": 1, "layer_cfg": {"cross_attn_cfg": DEFORMABLE}},
}
CLASSES = ["dog", "red circle", "cat"]
TEXT = ["--text", " . ".join(CLASSES), "-c"]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return tiny_demo(tmp_path_factory.mktemp("small"), **SMALL)


def run(*argv):
    """Exit code of the command and the lines of its results."""
    written = io.StringIO()
    with redirect_stdout(written):
        code = export.main(list(map(str, argv)))
    return code, written.getvalue().splitlines()


@pytest.fixture(scope="module")
def exported(small, tmp_path_factory):
    """A file for any texts and any number of images of any size, and what was printed."""
    path = tmp_path_factory.mktemp("files") / "model.onnx"
    code, lines = run(*small, path, *TEXT, "--text-features", "--dynamic")
    return SimpleNamespace(path=path, code=code, lines=lines)


def test_a_file_of_any_size_is_equal_to_pytorch_at_two_of_them(exported):
    assert exported.code == 0, exported.lines
    written, _, *compared, speed = exported.lines
    assert written.startswith(f"{exported.path}: opset 18, ")
    assert [line.partition(":")[0] for line in compared] == ["1 x 64 x 96", "2 x 96 x 64"]
    assert "onnxruntime" in speed


def test_graphs_have_standard_operators_and_none_that_samples_grids(exported):
    import onnx

    graph = onnx.load(exported.path)
    onnx.checker.check_model(graph)
    assert [(each.domain, each.version) for each in graph.opset_import] == [("", writing.OPSET)]
    kinds = {node.op_type for node in graph.graph.node}
    assert "Gather" in kinds
    assert "GridSample" not in kinds
    assert [output.name for output in graph.graph.output] == ["boxes", "scores", "labels"]
    weights = {weight.name for weight in graph.graph.initializer}
    assert not [name for name in weights if "language_model" in name]


@pytest.mark.parametrize(("batch", "height", "width"), [(1, 64, 64), (3, 128, 96)])
def test_other_sizes_run_with_other_words(exported, small, tmp_path, batch, height, width):
    texts = tmp_path / "other.npz"
    assert run(*small, texts, "--text", "green star . large dog . cat", "-c")[0] == 0
    stored = dict(np.load(texts))
    assert json.loads(str(stored.pop("classes"))) == ["green star", "large dog", "cat"]
    inputs = {
        name: torch.from_numpy(array).repeat_interleave(batch, 0) for name, array in stored.items()
    }
    run_file = check.onnx_runner(exported.path)
    found = run_file({"image": torch.randn(batch, 3, height, width), **inputs})
    assert found["boxes"].shape == (batch, 15, 4)
    assert set(found["labels"].unique().tolist()) <= {0, 1, 2}
    assert (found["scores"].diff(dim=1) <= 0).all()


def test_the_example_needs_the_file_and_no_torch(exported, photos, root):
    blocked = "import sys; sys.modules.update(torch=None, llmdet=None, mmdet=None); import runpy; "
    program = str(root / "demo" / "onnx_demo.py")
    code = f"{blocked}sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0])"
    argv = [sys.executable, "-c", code, program, exported.path, photos / "coffee.png", "0.01"]
    argv.append(exported.path.with_suffix(".npz"))
    result = subprocess.run(list(map(str, argv)), capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) == 15
    for line in lines:
        assert any(line.startswith(name) for name in CLASSES)
        x1, y1, x2, y2 = json.loads(line[line.index("[") :])
        assert 0 <= x1 <= x2 <= 150
        assert 0 <= y1 <= y2 <= 200


def test_a_file_that_differs_is_told_in_a_sentence(exported, small, monkeypatch, capsys):
    monkeypatch.setattr(export, "write", lambda *_: None)
    monkeypatch.setattr(check, "TOLERANCE", -1.0)
    code, _ = run(*small, exported.path, *TEXT, "--text-features")
    assert code == 1
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith(f"error: {exported.path} is not equal to PyTorch")


def test_programs_of_torch_export_count_labels_over_all_texts(small, tmp_path):
    path = tmp_path / "model.pt2"
    chunks = ["--cfg-options", "model.test_cfg.chunked_size=2"]
    code, lines = run(*small, path, *TEXT, "--format", "torch-export", "--uint8", *chunks)
    assert code == 0, lines
    program = torch.export.load(path).module()
    found = program(torch.randint(0, 256, (1, 64, 96, 3), dtype=torch.uint8))
    assert found["pixels"].shape == (2, 20)
    assert set(found["labels"].unique().tolist()) <= {0, 1, 2}


def test_a_file_finds_what_an_expression_describes(small, tmp_path):
    path = tmp_path / "left.onnx"
    code, lines = run(*small, path, "--text", "the left dog", "--tokens-positive", "-1")
    assert code == 0, lines
    found = check.onnx_runner(path)({"image": torch.randn(1, 3, 64, 96)})
    assert not found["labels"].any()
    import onnx

    about = {each.key: each.value for each in onnx.load(path).metadata_props}
    assert json.loads(about["classes"]) == ["the left dog"]


def test_missing_packages_are_told_before_anything_is_built(small, tmp_path, monkeypatch):
    monkeypatch.setattr(writing.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'llmdet\[export\]'"):
        run(*small, tmp_path / "model.onnx")
