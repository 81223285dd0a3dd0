"""What the check-up says of data that it does not open, and of expressions."""

import io
import json
import tarfile

from llmdet.apis.doctor import Findings, check_prompts, check_split
from llmdet.datasets.odvg import ODVGDataset
from llmdet.datasets.toy.models import tiny_bert
from llmdet.utils.config import Config


def test_of_shards_it_says_that_only_samples_are_checked(tmp_path):
    row = {"image": "ignored", "conversations": [{"from": "human", "value": "What is it?"}]}
    row["conversations"].append({"from": "gpt", "value": "A dog."})
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, content in (("0.png", b"picture"), ("0.json", json.dumps(row).encode())):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    dataset = dict(type="ODVGDataset", ann_file="a.tar", data_root=str(tmp_path), data_prefix={})
    config = Config(dict(default_scope="llmdet", train_dataloader=dict(dataset=dataset)))
    said: list[str] = []
    assert len(check_split(config, "train", Findings(said.append), 10)) == 1
    assert "  behind a URL or in tar shards: only its samples below are checked" in said


def test_expressions_are_counted_as_the_texts_that_they_are(tmp_path):
    pair = {"bboxes": [[1, 1, 9, 9]], "category": "dog", "relation": "single"}
    long = " ".join(["dog"] * 70)  # beyond the 64 tokens of the text encoder
    pair |= {"positive_expressions": ["a dog", long], "negative_expressions": ["a cat"]}
    row = {"filename": "a.png", "height": 20, "width": 30, "pairs": {"llm": [pair, pair]}}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    bert = {"name": str(tiny_bert(tmp_path / "bert")), "max_tokens": 64}
    lines = []
    dataset = ODVGDataset(ann_file=str(tmp_path / "rows.jsonl"))
    check_prompts(Config({"model": {"language_model": bert}}), [dataset], Findings(lines.append))
    assert "the longest of 4 sentences has 72 tokens of 64; 2 are longer" in lines[0]
