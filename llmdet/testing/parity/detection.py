"""The kind ``detector_eval``: detections of the original, and every stage on the way to them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor

from llmdet.models.detectors.grounding_dino import GroundingDINO
from llmdet.models.transformer.proposals import pixel_proposals
from llmdet.prompts import TokenizedPrompt, parse_prompt
from llmdet.testing.parity.model import Trace, build_detector, preprocess, read_json, read_tensors
from llmdet.testing.parity.pipeline import token_lists
from llmdet.testing.parity.rows import Row, compare_exact, compare_recorded

Getter = Callable[[Trace, int], Tensor]

#: Where each recorded tensor is found in a trace.
STAGES: dict[str, Getter] = {
    "bert.embedded": lambda t, k: t.calls["bert"][k].embedded,
    "bert.hidden": lambda t, k: t.calls["bert"][k].embedded,
    "bert.masks": lambda t, k: t.calls["bert"][k].attention_mask,
    "bert.position_ids": lambda t, k: t.calls["bert"][k].position_ids,
    "bert.text_token_mask": lambda t, k: t.calls["bert"][k].token_mask,
    "text_feat_map": lambda t, k: t.calls["text_feat_map"][k],
    "pre_transformer.feat_mask": lambda t, k: t.calls["encoder"][k].pyramid.padding_mask,
    "pre_transformer.feat_pos": lambda t, k: t.calls["encoder"][k].pyramid.pos,
    "pre_transformer.spatial_shapes": lambda t, k: t.calls["encoder"][k].pyramid.spatial_shapes,
    "pre_transformer.level_start_index": lambda t, k: (
        t.calls["encoder"][k].pyramid.level_start_index
    ),
    "pre_transformer.valid_ratios": lambda t, k: t.calls["encoder"][k].pyramid.valid_ratios,
    "encoder.fusion0.0": lambda t, k: t.calls["fusion"][k][0],
    "encoder.fusion0.1": lambda t, k: t.calls["fusion"][k][1],
    "encoder.text0": lambda t, k: t.calls["text_layer"][k],
    "encoder.memory": lambda t, k: t.calls["encoder"][k].memory,
    "encoder.memory_text": lambda t, k: t.calls["encoder"][k].text.embedded,
    "proposals.output_memory": lambda t, k: t.calls["output_memory"][k],
    "proposals.output_proposals": lambda t, k: pixel_proposals(t.calls["encoder"][k].pyramid)[0],
    "two_stage.score": lambda t, k: t.calls["two_stage"][k].amax(-1),
    "two_stage.enc_outputs_class_first_ntext_cols": lambda t, k: t.calls["two_stage"][k],
    "two_stage.enc_outputs_coord_unact": lambda t, k: _all_boxes(t, k),
    "two_stage.topk_indices": lambda t, k: t.calls["propose"][k].indices,
    "decoder_in.reference_points": lambda t, k: t.calls["decoder_in"][k][1],
    "decoder_in.text_attention_mask": lambda t, k: ~t.calls["bert"][k].token_mask,
    "decoder.hidden_states": lambda t, k: t.calls["decoder"][k].hidden_states,
    "decoder.references": lambda t, k: t.calls["decoder"][k].references,
    "head.cls_logits": lambda t, k: t.calls["head"][k].logits,
    "head.bbox_preds": lambda t, k: t.calls["head"][k].boxes,
}


def _all_boxes(trace: Trace, call: int) -> Tensor:
    """Unactivated boxes of all pixels; the model computes those of the chosen ones only."""
    branch = trace.model.bbox_head.reg_branches[trace.model.decoder.num_layers]
    anchors, _ = pixel_proposals(trace.calls["encoder"][call].pyramid)
    return branch(trace.calls["output_memory"][call]) + anchors


@torch.no_grad()
def check(folder: Path) -> Iterator[Row]:
    """Compare every case of a ``detector_eval`` folder."""
    inputs = read_json(folder / "inputs.json")
    model = build_detector(folder, read_json(folder / "model_config.json")).eval()
    images = read_tensors(folder / "images_bgr_uint8_hwc.pt")
    for path in sorted(folder.glob("expected_*.pt")):
        case = path.stem.removeprefix("expected_")
        yield from _check_case(model, images, inputs, case, folder)


def _check_case(
    model: GroundingDINO,
    images: Mapping[str, Tensor],
    inputs: Mapping[str, Any],
    case: str,
    folder: Path,
) -> Iterator[Row]:
    settings = inputs[case]
    samples = [
        _sample(inputs["images"][index], settings, position)
        for position, index in enumerate(settings["images"])
    ]
    chosen = {f"img{index}": images[f"img{index}"] for index in settings["images"]}
    batch = preprocess(model, chosen, samples, False)
    size = settings["chunked_size"]
    chunked = size > 0
    # The original runs chunk after chunk, and only on single images.
    model.test_cfg = dataclasses.replace(
        model.test_cfg,
        chunked_size=size,
        chunks_per_forward=1 if chunked else len(samples),
        limit_per="chunk",
    )
    with Trace(model) as trace:
        model.predict(batch, samples)
    prompts = [_prompts(model, sample) for sample in samples]
    yield from _check_prompts(prompts, read_json(folder / f"expected_{case}.json"), case)
    tokenized = _tokenized(model, prompts, chunked)

    def find(name: str, call: int) -> Tensor | None:
        stage, _, rest = name.partition(".")
        if stage == "batch_inputs":
            return batch
        if stage in ("backbone", "neck"):
            return trace.calls[stage][call][int(rest)]
        if stage == "tokenized":
            return tokenized[call][rest]
        if stage == "pred":
            index, field = rest.split(".")
            return _in_order_of_chunks(samples[int(index)].pred_instances, size)[field]
        if name.startswith("encoder.layer"):
            return trace.calls[name.removeprefix("encoder.")][call]
        return STAGES[name](trace, call) if name in STAGES else None

    expected = read_tensors(folder / f"expected_{case}.pt")
    for row in compare_recorded(expected, find):
        yield Row(f"{case}/{row.name}", row.max_abs, row.max_rel, row.passed, row.note)


def _in_order_of_chunks(instances: InstanceData, size: int) -> InstanceData:
    """The original does not sort the detections of all chunks together."""
    return instances[(instances.labels // size).argsort(stable=True)] if size > 0 else instances


def _sample(image: Mapping[str, Any], settings: Mapping[str, Any], position: int) -> DetDataSample:
    sample = DetDataSample()
    texts = settings["text"]
    # A single image's list of classes is not a list of texts.
    text = texts[position] if len(settings["images"]) > 1 else texts
    if len(settings["images"]) == 1 and len(texts) == 1:
        text = texts[0]
    sample.set_metainfo(
        {
            "img_shape": tuple(image["img_shape"]),
            "scale_factor": tuple(image["scale_factor_wh"]),
            "text": text,
            "custom_entities": settings.get("custom_entities", False),
        }
    )
    if "tokens_positive" in settings:
        sample.set_metainfo({"tokens_positive": settings["tokens_positive"][position]})
    return sample


def _prompts(model: GroundingDINO, sample: DetDataSample) -> tuple[TokenizedPrompt, ...]:
    prompt = parse_prompt(
        sample.text,
        custom_entities=sample.custom_entities,
        tokens_positive=sample.get("tokens_positive"),
        upstream_spacing=True,
    )
    return model.language_model.prompts(prompt, model.test_cfg.prompt_options)


def _entities(prompt: TokenizedPrompt) -> list[str]:
    """Names as the original writes them: with the blanks at the ends of their spans."""
    return [" / ".join(prompt.text[s:e] for s, e in spans) for spans in prompt.spans]


def _tokenized(
    model: GroundingDINO, prompts: Sequence[Sequence[TokenizedPrompt]], chunked: bool
) -> list[dict[str, Tensor]]:
    """The tokenizer's answers in the order of the original's calls: one by one, then BERT's."""
    texts = [prompt.text for chunks in prompts for prompt in chunks]
    batches = [[text] for text in texts] if chunked else [texts]
    calls = [*([text] for text in texts), *batches]
    return [
        model.language_model.tokenizer(call, padding="longest", return_tensors="pt")
        for call in calls
    ]


def _check_prompts(
    prompts: Sequence[Sequence[TokenizedPrompt]],
    recorded: Mapping[str, Any],
    case: str,
) -> Iterator[Row]:
    for index, (chunks, expected) in enumerate(zip(prompts, recorded["prompts"], strict=True)):
        ours: dict[str, list[Any]] = {
            "caption_string": [p.text for p in chunks],
            "entities": [_entities(p) for p in chunks],
            "positive_map_label_to_token": [token_lists(p.token_map) for p in chunks],
        }
        for field, values in ours.items():
            recorded_value: Any = expected[field]
            value: Any = values if len(values) > 1 else values[0]
            if field == "entities" and len(values) > 1 and isinstance(recorded_value[0], str):
                value = [name for names in values for name in names]
            yield compare_exact(f"{case}/prompts.{index}.{field}", recorded_value, value)
