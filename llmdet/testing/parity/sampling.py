"""The text sampling of a ``pipeline`` folder; run with PYTHONHASHSEED=0, as it was recorded.

Started as a program by :mod:`llmdet.testing.parity.pipeline`; arguments: the folder, and
the file that gets one JSON row per value.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.registry import init_default_scope

from llmdet.registry import TRANSFORMS
from llmdet.testing.parity.model import read_json
from llmdet.testing.parity.pipeline import build_dataset, seed_everything
from llmdet.testing.parity.rows import Row, compare_exact, compare_tensor

REPLY_BEGIN, REPLY_END = "<|im_start|>assistant\n", "<|im_end|>"


def sampled_texts(folder: Path) -> Iterator[Row]:
    """Compare text, spans, boxes, labels, answers and the state of random numbers afterwards."""
    from transformers import PreTrainedTokenizerFast

    lmm_tokenizer = PreTrainedTokenizerFast.from_pretrained(folder / "lmm")
    variants = {
        name: build_dataset(folder, recorded["kwargs"])
        for name, recorded in read_json(folder / "load_data_list.json").items()
    }
    for number, case in enumerate(read_json(folder / "random_sampling_neg_pos2.json")["records"]):
        info = variants[case["dataset"]].get_data_info(case["index"])
        sample = _sample(folder, info, case)
        random_state = torch.tensor([random.random(), np.random.rand(), float(torch.rand(1))])
        name, expected = f"sampling.{number}", case["output"]
        yield compare_exact(f"{name}/text", expected["text"], sample["text"])
        spans = {str(label): spans for label, spans in sample["tokens_positive"].items()}
        yield compare_exact(f"{name}/tokens_positive", expected["tokens_positive"], spans)
        boxes = torch.as_tensor(expected["gt_bboxes"]).reshape(-1, 4)
        yield compare_tensor(f"{name}/gt_bboxes", boxes, sample["gt_bboxes"])
        labels = sample["gt_bboxes_labels"].tolist()
        yield compare_exact(f"{name}/gt_bboxes_labels", expected["gt_bboxes_labels"], labels)
        yield compare_tensor(f"{name}/rng_after", torch.tensor(case["rng_after"]), random_state)
        reply = _reply(expected["conversations"], lmm_tokenizer)
        said = info["conversations"][0].turns[-1].text
        yield compare_exact(f"{name}/image_caption", reply, said)
        yield from _regions(name, sample, case, lmm_tokenizer)


def _sample(folder: Path, info: dict[str, Any], case: dict[str, Any]) -> dict[str, Any]:
    sampling = {
        key: case[key] for key in ("num_sample_negative", "max_tokens", "num_region_caption")
    }
    for settings in (
        dict(type="LoadImageFromFile"),
        dict(type="LoadAnnotations", with_bbox=True),
        dict(
            type="RandomSamplingNegPos2",
            tokenizer_name=str(folder / "bert"),
            upstream=True,
            **sampling,
        ),
    ):
        transform = TRANSFORMS.build(settings)
        seed_everything(case["seed"])
        info = transform(info)
    return info


def _regions(
    name: str, sample: dict[str, Any], case: dict[str, Any], tokenizer: Any
) -> Iterator[Row]:
    """Compare the regions where no box was removed after the original had drawn them."""
    recorded = case["output"].get("region_conversations")
    if not recorded or len(recorded["box_index"]) > len(sample["gt_bboxes_labels"]):
        return
    ours = [c for c in sample["conversations"] if c.kinds == {"region"}]
    boxes = [conversation.slots[0].index for conversation in ours]
    yield compare_exact(f"{name}/box_index", recorded["box_index"], boxes)
    if "phrases" in sample:  # for detection data the original says "object"
        replies = [_reply(turn, tokenizer) for turn in recorded["conversations"]]
        answers = [conversation.turns[-1].text for conversation in ours]
        yield compare_exact(f"{name}/region_answers", replies, answers)


def _reply(conversation: dict[str, Any], tokenizer: Any) -> str:
    """The assistant's words in a tokenised conversation; negative ids are images."""
    text = tokenizer.decode([token for token in conversation["input_id"] if token >= 0])
    return text.rsplit(REPLY_BEGIN, 1)[1].split(REPLY_END)[0]


if __name__ == "__main__":
    init_default_scope("llmdet")
    with Path(sys.argv[2]).open("w") as file:
        file.writelines(json.dumps(asdict(row)) + "\n" for row in sampled_texts(Path(sys.argv[1])))
