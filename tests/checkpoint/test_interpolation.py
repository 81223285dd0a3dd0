"""Weights between two checkpoints."""

from __future__ import annotations

import pytest
import torch

from llmdet.checkpoint import read_checkpoint, write_checkpoint
from llmdet.checkpoint.interpolation import Ends
from llmdet.errors import CheckpointError, ConfigError
from llmdet.testing.programs import load_program

KEY = "bbox_head.fc.weight"
NUMBERS = torch.Generator().manual_seed(0)


def weights(**more):
    return {
        KEY: torch.randn(4, 3, generator=NUMBERS),
        "bbox_head.half": torch.randn(5, generator=NUMBERS).bfloat16(),
        "backbone.bn1.num_batches_tracked": torch.randint(9, (), generator=NUMBERS),
        **more,
    }


@pytest.fixture
def files(tmp_path):
    def write(start, end):
        paths = tmp_path / "start.pth", tmp_path / "end.safetensors"
        for path, state_dict in zip(paths, (start, end), strict=True):
            write_checkpoint(path, state_dict)
        return paths

    return write


def test_the_ends_are_the_files_to_the_bit(files):
    start, end = weights(), weights()
    ends = Ends.read(*files(start, end))
    for alpha, expected in ((0, start), (1, end)):
        found = ends.at(alpha)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], value) for key, value in expected.items())
        assert all(found[key].dtype == value.dtype for key, value in expected.items())


def test_between_them_weights_are_mixed(files):
    start, end = weights(), weights()
    found = Ends.read(*files(start, end)).at(0.25)
    torch.testing.assert_close(found[KEY], 0.75 * start[KEY] + 0.25 * end[KEY])
    with pytest.raises(ConfigError, match=r"alpha=1\.5"):
        Ends.read(*files(start, end)).at(1.5)


def test_a_language_part_that_one_file_has_alone_is_left_out(files):
    start = weights(**{"lmm.causal_lm.x.weight": torch.zeros(2)})
    found = Ends.read(*files(start, weights())).at(0)
    assert found.keys() == weights().keys()
    found = Ends.read(*files(start, start)).at(1)
    assert found.keys() == start.keys()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbox_head.new": torch.zeros(1)}, r"1 tensors that the second lacks, e\.g\. bbox_head"),
        ({"decoder.x.lora_A.default.weight": torch.zeros(1)}, "merge its LoRA first"),
        ({KEY: torch.zeros(5, 3)}, r"differ in shape, e\.g\. .* \(4, 3\) and \(5, 3\)"),
    ],
)
def test_files_of_two_models_are_refused_in_one_sentence(files, change, message):
    with pytest.raises(CheckpointError, match=message):
        Ends.read(*files(weights(), weights(**change)))


def test_the_program_writes_one_file_for_each_alpha(files, tmp_path, root, capsys):
    start, end = weights(), weights()
    main = load_program(root / "tools/analysis/interpolate.py").main
    paths = [str(path) for path in files(start, end)]
    main([*paths, "--alpha", "0.5", str(tmp_path / "half.pth")])
    main([*paths, "--alpha", "0,1", str(tmp_path / "row.safetensors")])
    half = read_checkpoint(tmp_path / "half.pth").state_dict[KEY]
    torch.testing.assert_close(half, (start[KEY] + end[KEY]) / 2)
    last = read_checkpoint(tmp_path / "row_1.safetensors").state_dict[KEY]
    assert torch.equal(last, end[KEY])
    assert capsys.readouterr().out.count("3 tensors at alpha") == 3
    with pytest.raises(SystemExit):
        main([*paths, "--alpha", "0.5"])
