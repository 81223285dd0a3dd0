"""What options of tools/test.py change in a config."""

import pytest

from llmdet.cli import test as tool


@pytest.mark.parametrize(("options", "dtype"), [([], None), (["--dtype", "bfloat16"], "bfloat16")])
def test_the_precision_of_a_test_is_a_setting_of_the_model(
    root, tmp_path, monkeypatch, options, dtype
):
    monkeypatch.chdir(tmp_path)
    config = str(root / "configs/grounding_dino_swin_t.py")
    prepared = tool.prepare(tool.parse_args([config, "weights.pth", *options]))
    assert prepared.model.test_cfg.get("dtype") == dtype
