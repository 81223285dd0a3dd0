"""What the check-up says of data that it does not open."""

import io
import json
import tarfile

from llmdet.apis.doctor import Findings, check_split
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
