"""What GLaMM's data classes make of captions with masks can be told, odd texts included."""

import json
import shutil

from llmdet.testing.parity import grounded_captions


def test_captions_equal_the_original(root):
    rows = list(grounded_captions.check(root / "tests/golden/regions/text_pipeline"))
    assert len(rows) > 200
    assert not [row for row in rows if not row.passed]


def test_captions_equal_the_original_on_full_recordings(golden):
    rows = list(grounded_captions.check(golden / "regions/public/glamm/text_pipeline"))
    assert rows
    assert not [row for row in rows if not row.passed]


def test_a_difference_is_found(root, tmp_path):
    folder = shutil.copytree(root / "tests/golden/regions/text_pipeline", tmp_path / "text")
    inputs = json.loads((folder / "inputs.json").read_text())
    inputs["GranDf"][0]["groundings"]["mat"]["token_positives"] = [20, 24]
    (folder / "inputs.json").write_text(json.dumps(inputs))
    wrong = {row.name for row in grounded_captions.check(folder) if not row.passed}
    assert wrong == {
        f"GranDf/0/{name}"
        for name in ("parsed.tokens_positive", "conversation", "answer_with_tags")
    }
