"""The kind ``pipeline``: strings, samples, prompts and pixels of the original's data side."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.structures.bbox import get_box_tensor
from mmengine.registry import init_default_scope

import llmdet
from llmdet.datasets.captions import clean_phrase_upstream, remove_speculative_clauses_upstream
from llmdet.datasets.odvg import ODVGDataset
from llmdet.datasets.sample import grounding_of
from llmdet.datasets.transforms.detection_text import clean_name_upstream
from llmdet.prompts import PromptOptions, PromptTokenizer, load_tokenizer, parse_prompt
from llmdet.prompts.conversation import ask
from llmdet.prompts.tokens import span_tokens
from llmdet.registry import DATASETS
from llmdet.testing.parity.model import read_json, read_tensors
from llmdet.testing.parity.rows import Row, compare_exact, compare_tensor

STRING_FUNCTIONS = {
    "remove_speculative_clauses": remove_speculative_clauses_upstream,
    "clean_name": clean_name_upstream,
    "clean_phrase": clean_phrase_upstream,
}
META_KEYS = (
    "img_path",
    "ori_shape",
    "img_shape",
    "scale_factor",
    "text",
    "tags",
    "tokens_positive",
    "dataset_mode",
    "conversations",
)


def check(folder: Path) -> Iterator[Row]:
    """Compare every recording of a ``pipeline`` folder.

    Left out are the original's faults that ours cannot show: a text prompt split into characters
    by chunking, an empty prompt, and the word "object" for every region of detection data.
    """
    init_default_scope("llmdet")
    yield from _strings(folder)
    yield from _loaded_rows(folder)
    yield from _sampled_texts(folder)
    yield from _pixels(folder)
    yield from _positive_maps(folder)
    yield from _prompts(folder)


def _strings(folder: Path) -> Iterator[Row]:
    recorded = read_json(folder / "string_functions.json")
    for name, function in STRING_FUNCTIONS.items():
        for given, expected in recorded[name]:
            yield compare_exact(f"{name}({given[:40]!r})", expected, function(given))


def build_dataset(folder: Path, kwargs: dict[str, Any], **more: Any) -> ODVGDataset:
    """The data set of a recorded variant; its speculative clauses are removed as upstream does.

    Args:
        folder: holds the JSONL files and ``images/``.
        kwargs: the recorded arguments; ``ann`` names the annotation file.
        more: further arguments.
    """
    settings = {key: value for key, value in kwargs.items() if key != "ann"}
    if settings["clean_caption"]:
        settings["clean_caption"] = "upstream"
    return DATASETS.build(
        dict(
            type="ODVGDataset",
            data_root=str(folder),
            ann_file=kwargs["ann"],
            data_prefix=dict(img="images/"),
            return_classes=True,
            **settings,
            **more,
        )
    )


def _loaded_rows(folder: Path) -> Iterator[Row]:
    for variant, recorded in read_json(folder / "load_data_list.json").items():
        dataset = build_dataset(folder, recorded["kwargs"])
        yield compare_exact(f"{variant}/len", len(recorded["data_list"]), len(dataset))
        for index, expected in enumerate(recorded["data_list"]):
            ours = dataset.get_data_info(index)
            for key, value in _in_our_words(expected, folder).items():
                yield compare_exact(f"{variant}/{index}/{key}", value, ours.get(key))


def _in_our_words(expected: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A recorded sample under the names and types of ours."""
    expected = dict(expected)
    prompt, answer = (turn["value"] for turn in expected.pop("conversations"))
    expected["conversations"] = (ask(prompt, answer),)
    expected["img_path"] = expected["img_path"].replace("<root>", f"{folder}/")
    if "phrases" in expected:
        expected["phrases"] = {int(label): p for label, p in expected["phrases"].items()}
    return expected


def _sampled_texts(folder: Path) -> Iterator[Row]:
    """In a process of its own: the original's order of negatives depends on the hash seed."""
    package_root = str(Path(llmdet.__file__).parents[1])
    environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": package_root}
    with tempfile.TemporaryDirectory() as scratch:
        rows = Path(scratch, "rows.jsonl")
        program = [sys.executable, "-m", "llmdet.testing.parity.sampling", str(folder), str(rows)]
        subprocess.run(program, env=environment, check=True, stdout=subprocess.DEVNULL)
        for line in rows.read_text().splitlines():
            yield Row(**json.loads(line))


def seed_everything(seed: int) -> None:
    """Seed the three generators as before each recording."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def _pixels(folder: Path) -> Iterator[Row]:
    recorded = read_json(folder / "image_pipelines.json")
    pixels = read_tensors(folder / "image_pipelines_pixels.pt")
    kwargs = read_json(folder / "load_data_list.json")["vg_default"]["kwargs"]
    pack = dict(type="PackDetInputs", meta_keys=META_KEYS)
    train = [
        dict(type="LoadImageFromFile"),
        dict(type="LoadAnnotations", with_bbox=True),
        dict(
            type="RandomChoiceResize",
            scales=[tuple(scale) for scale in recorded["train_scales"]],
            keep_ratio=True,
        ),
        dict(type="FilterAnnotations", min_gt_bbox_wh=(1e-2, 1e-2)),
        dict(
            type="RandomSamplingNegPos2",
            tokenizer_name=str(folder / "bert"),
            num_region_caption=recorded["num_region_caption"],
            upstream=True,
        ),
        pack,
    ]
    scale = tuple(recorded["test_scale"])
    test = [
        dict(type="LoadImageFromFile", imdecode_backend="pillow"),
        dict(type="FixScaleResize", scale=scale, keep_ratio=True, backend="pillow"),
        dict(type="LoadAnnotations", with_bbox=True),
        pack,
    ]
    training = build_dataset(folder, kwargs, pipeline=train)
    for number, case in enumerate(recorded["train"]):
        seed_everything(case["seed"])
        yield from _packed(f"train.{number}", training.prepare_data(case["index"]), case, pixels)
    testing = build_dataset(folder, kwargs, pipeline=test, test_mode=True)
    for number, case in enumerate(recorded["test"]):
        yield from _packed(f"test.{number}", testing[case["index"]], case, pixels)


def _packed(
    name: str, packed: dict[str, Any] | None, case: dict[str, Any], pixels: dict[str, torch.Tensor]
) -> Iterator[Row]:
    """Rows of one image that left a pipeline; a filtered one has no recording."""
    if packed is None or case.get("result", case) is None:
        yield compare_exact(f"{name}/filtered", case.get("result", case) is None, packed is None)
        return
    sample = packed["data_samples"]
    boxes = torch.as_tensor(case["bboxes"]).reshape(-1, 4)
    yield compare_tensor(f"{name}/bboxes", boxes, get_box_tensor(sample.gt_instances.bboxes))
    meta = case.get("meta", case)
    for key in ("img_shape", "ori_shape", "scale_factor"):
        yield compare_exact(f"{name}/{key}", list(meta[key]), list(sample.metainfo[key]))
    if "meta" in case:
        yield compare_exact(f"{name}/text", meta["text"], sample.text)
        yield compare_exact(f"{name}/labels", case["labels"], sample.gt_instances.labels.tolist())
        said = grounding_of(sample).conversations
        indices = [c.slots[0].index for c in said if c.kinds == {"region"}]
        yield compare_exact(f"{name}/box_index", meta["region_conversations.box_index"], indices)
    for key, expected in pixels.items():
        if key.startswith(f"{name}["):
            ours = packed["inputs"]
            ours = ours[:, ::16, ::16] if "meta" in case else ours.permute(1, 2, 0)[::16, ::16]
            # Resized by another version of the library, a pixel may differ by one.
            apart = (ours.int() - expected.int()).abs().max()
            yield Row(f"{name}/pixels", float(apart), 0.0, bool(apart <= 1))


def _positive_maps(folder: Path) -> Iterator[Row]:
    tokenizer = load_tokenizer(str(folder / "bert"))
    for number, case in enumerate(read_json(folder / "create_positive_map.json")):
        ids = tokenizer(case["text"], verbose=False)["input_ids"]
        yield compare_exact(f"positive_map.{number}/input_ids", case["input_ids"], ids)
        tokens = token_lists(span_tokens(case["text"], case["tokens_positive"], tokenizer))
        # The original's map ends at 256 tokens, ours at the text's end.
        expected = case["label_to_token_plus1"]
        ours_cut = {k: [token for token in row if token < 256] for k, row in tokens.items()}
        yield compare_exact(f"positive_map.{number}/tokens", expected, ours_cut)


def _prompts(folder: Path) -> Iterator[Row]:
    tokenizer = PromptTokenizer(load_tokenizer(str(folder / "bert")))
    for number, case in enumerate(read_json(folder / "prompts.json")):
        chunked = case["chunked_size"] > 0
        if (chunked and isinstance(case["input"], str)) or not case["entities"]:
            continue
        prompt = parse_prompt(
            case["input"],
            custom_entities=case["custom_entities"],
            caption_prompt=case.get("enhanced_text_prompt"),
            upstream_spacing=True,
        )
        prompts = tokenizer(prompt, PromptOptions(max_classes=case["chunked_size"]))
        name = f"prompts.{number}"
        texts = [prompt.text for prompt in prompts]
        yield compare_exact(f"{name}/text", _listed(case["caption_string"]), texts)
        entities = case["entities"] if chunked else [case["entities"]]
        yield compare_exact(f"{name}/entities", entities, [list(p.entities) for p in prompts])
        maps = [token_lists(prompt.token_map) for prompt in prompts]
        yield compare_exact(f"{name}/tokens", _listed(case["positive_map_label_to_token"]), maps)


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else [value]


def token_lists(token_map: np.ndarray) -> dict[str, list[int]]:
    """The tokens of each label + 1, as the original writes a token map [K, L]."""
    return {str(k + 1): np.flatnonzero(row).tolist() for k, row in enumerate(token_map)}
