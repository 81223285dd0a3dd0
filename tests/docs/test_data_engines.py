"""What docs/data_engines.md shows runs as it is printed."""

import json
import re

from llmdet.chat import Pace
from llmdet.data_engines.models import read_model_settings
from llmdet.utils.config import load_config


class Parrot:
    """Says the first words of a request again."""

    pace = Pace(3)

    def answer(self, requests):
        return [request.messages[0].text[:18] for request in requests]


def blocks(root):
    return re.findall(r"```python\n(.*?)```", (root / "docs" / "data_engines.md").read_text(), re.S)


def test_an_engine_of_ones_own(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (code,) = (block for block in blocks(root) if "def program" in block)
    exec(code, {"words": ["dog", "cat"], "model_a": Parrot(), "model_b": Parrot()})
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert rows == [
        {"word": word, "sentence": f"Use the word {word} i", "verdict": "Is this a good sen"}
        for word in ("dog", "cat")
    ]


def test_a_config_names_a_model_for_each_role(root, tmp_path):
    (code,) = (block for block in blocks(root) if block.startswith("# models.py"))
    (tmp_path / "models.py").write_text(code)
    settings = read_model_settings(load_config(tmp_path / "models.py"), ["captioner", "reviewer"])
    assert settings["captioner"].batch_size == 64
    assert settings["reviewer"].device == "cuda:1"
