"""The prompt that the benchmark of detection times."""

import pytest
from transformers import AutoTokenizer

from llmdet.datasets.toy.models import tiny_bert
from llmdet.errors import ConfigError
from llmdet.testing.programs import load_program


@pytest.fixture
def tool(root):
    return load_program(root / "tools/benchmark/inference.py")


@pytest.mark.parametrize("count", [1, 40, 80, 84])
def test_any_number_of_classes_that_is_offered_fits_into_one_prompt(tool, tmp_path, count):
    tiny_bert(tmp_path)
    names = tool.prompt_names(count)
    text = "".join(f"{name}. " for name in names)
    assert len(names) == count
    tokens = AutoTokenizer.from_pretrained(tmp_path)(text).input_ids
    assert len(tokens) == 3 * count + 2 <= tool.PROMPT_TOKENS


def test_more_classes_are_refused_with_the_limit(tool):
    with pytest.raises(ConfigError, match=r"--classes 85: .* holds 1 to 84 classes"):
        tool.prompt_names(85)
