"""Configs are laid out for readers, and stay the same programs."""

import pytest
from mmengine.config import Config

from llmdet.utils.config import RunConfig, load_config
from llmdet.utils.config_text import lay_out


@pytest.mark.parametrize(
    "name", ["quickstart/llmdet", "grounding_dino_swin_t", "val/odinw13_swin_t"]
)
def test_the_text_of_a_config_is_a_program_that_makes_it(root, name):
    config = load_config(root / "configs" / f"{name}.py")
    text = RunConfig.of(config).pretty_text
    assert Config.fromstring(text, ".py").to_dict() == config.to_dict()


def test_what_fits_stands_on_one_line_and_the_rest_has_an_entry_a_line():
    short = "a = dict(b=[1, 2], c=(3,), d={'e f': -0.5})\n"
    assert lay_out("a=dict(\n    b=[\n1,\n2,\n],c=(3,),\n d={'e f':-0.5})") == short
    words = ["w" * 25] * 3
    assert lay_out(f"a = dict(b={words}, c=1)") == f"a = dict(\n    b={words},\n    c=1,\n)\n"


def test_a_value_that_cannot_be_written_does_not_stop_a_run():
    config = RunConfig.of(Config({"a": 1}))
    config._cfg_dict["b"] = object()
    assert config.pretty_text.startswith("a=1\nb=<object object at")
