"""The kind ``lmm_loss``: both caption losses of the original, and everything on the way to them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor

from llmdet.checkpoint.systems.llmdet import upstream_key_to_llmdet, upstream_to_llmdet
from llmdet.errors import ConfigError
from llmdet.models.detectors.grounding_dino import GroundingDINO
from llmdet.models.systems.llmdet import LLMDet
from llmdet.prompts.conversation import ask
from llmdet.registry import MODELS
from llmdet.testing.parity.caption_trace import CaptionTrace
from llmdet.testing.parity.losses import tensor_finder
from llmdet.testing.parity.model import (
    Trace,
    all_quirks,
    preprocess,
    read_json,
    read_tensors,
)
from llmdet.testing.parity.rows import Row, compare_number, compare_recorded
from llmdet.utils.construct import settings_of

IMAGE_PROMPT = "<image>\nDescribe the image in detail."
REGION_PROMPT = "<region:{}>\nDescribe the region in a phrase."
#: Their gradients are zero but for rounding: softmax does not change with these biases.
_NO_GRADIENT = re.compile(r"(self\.key|k_proj\.ori_model|attn\.l_proj)\.bias$")
_REGION_LOSS = re.compile(r"d(\d+)\.loss_lmm_region")
_CALLS = re.compile(r"(region|image)\.(.+)")


def check(folder: Path) -> Iterator[Row]:
    """Compare every variant of an ``lmm_loss`` folder."""
    inputs = read_json(folder / "inputs.json")
    configs = read_json(folder / "model_config.json")
    images = read_tensors(folder / "images_bgr_uint8_hwc.pt")
    for variant, settings in inputs["variants"].items():
        model = build_llmdet(folder, configs[variant]).train()
        samples = make_samples(model, inputs, settings)
        expected = read_tensors(folder / f"expected_{variant}.pt")
        recorded = read_json(folder / f"expected_{variant}.json")
        inject_denoising(model, samples, expected)
        batch = preprocess(model, images, samples, True)
        for row in _rows(model, samples, batch, expected, recorded):
            yield Row(f"{variant}/{row.name}", row.max_abs, row.max_rel, row.passed, row.note)


def build_llmdet(folder: Path, config: Mapping[str, Any]) -> LLMDet:
    """Build the recorded model with every quirk of the original and load its weights.

    Raises:
        ConfigError: a setting of the original that ours has no counterpart for.
    """
    settings = _translate(folder, config)
    model = MODELS.build(ConfigDict(settings))
    weights = upstream_to_llmdet(read_tensors(folder / "state_dict.pt"))
    in_model = model.state_dict()
    # Variants share one file, so that some lack modules that others have.
    model.load_state_dict({k: v.clone() for k, v in weights.items() if k in in_model}, strict=True)
    return model


def _translate(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the original as ours."""
    known = settings_of(GroundingDINO)
    detector = {key: value for key, value in config.items() if key in known}
    if config["lmm_new_layer_insert_type"] != "all" or config["use_plora"]:
        raise ConfigError("only lmm_new_layer_insert_type='all' without use_plora is defined")
    layers = read_json(folder / "lmm" / "config.json")["num_hidden_layers"]
    looking = config["num_lmm_new_layers"]  # so many, evenly spaced; layers that remain get none
    look = {"layers": tuple(range(0, layers, layers // looking)[:looking])}
    lora = {"r": config["lora_r"], "alpha": config["lora_alpha"], "dropout": config["lora_dropout"]}
    size = config["feature_map_size"]
    return {
        **detector,
        "type": "LLMDet",
        "quirks": all_quirks(),
        "language_model": {**config["language_model"], "name": str(folder / "bert")},
        "lmm": {
            "type": "LanguageModel",
            "model": str(folder / "lmm"),
            "pretrained": False,
            "dtype": "float32",
            "lora": lora if config["use_lora"] else None,
            "region_attention": look if config["use_lmm_cross_attn"] else None,
        },
        "image_captioner": {
            # with both maps the coarser one is read at 20 x 20 whatever feature_map_size says
            "encoder": {
                "type": "GridCells",
                "grids": ((-2, 20), (-3, size)) if config["use_p4_input"] else ((-2, size),),
            },
            "look": config["use_image_level_cross_attn"],
            "max_length": config["lmm_max_token_length"],
            "loss_weight": config["lmm_image_loss_weight"],
        },
        "region_captioner": {
            "loss_weight": config["lmm_region_loss_weight"],
            "decoder_layers": config.get("lmm_layers", 1),
        },
    }


def make_samples(
    model: LLMDet, inputs: Mapping[str, Any], settings: Mapping[str, Any]
) -> list[DetDataSample]:
    """Samples as our pipeline makes them: answers as strings instead of token ids."""
    samples = []
    for index, record in enumerate(inputs["processed_samples"]):
        sample = DetDataSample()
        spans = {int(label): spans for label, spans in record["tokens_positive"].items()}
        regions = record["region_conversations"]
        answers = [_answer(model, one["input_id"]) for one in regions["conversations"]]
        conversations = [ask(IMAGE_PROMPT, _answer(model, record["conversations"]["input_id"]))]
        if not (settings.get("empty_region") and index == 1):
            pairs = zip(regions["box_index"], answers, strict=True)
            conversations += [ask(REGION_PROMPT.format(box), answer) for box, answer in pairs]
        sample.set_metainfo(
            {
                "img_shape": tuple(inputs["sizes"][index]),
                "text": record["text"],
                "tokens_positive": spans,
                "conversations": tuple(conversations),
            }
        )
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor(record["boxes"], dtype=torch.float32).reshape(-1, 4),
            labels=torch.tensor(record["labels"], dtype=torch.long),
        )
        samples.append(sample)
    return samples


def _answer(model: LLMDet, ids: list[int]) -> str:
    """What the assistant says: behind its header's line break, before the end of its turn."""
    assert model.lmm is not None
    tokenizer = model.lmm.tokenizer
    start = len(ids) - 1 - ids[::-1].index(tokenizer.convert_tokens_to_ids("<|im_start|>"))
    return tokenizer.decode(ids[start + 3 : -2])


def inject_denoising(
    model: LLMDet, samples: list[DetDataSample], expected: Mapping[str, Tensor]
) -> None:
    """Replace the random noise of the denoising queries by the recorded one, if there is one."""
    if "dn.noisy_labels_flat" not in expected:
        return
    counts = [len(sample.gt_instances) for sample in samples]
    padded = expected["dn.bbox_query(inverse_sigmoid)"].unflatten(1, (-1, max(counts)))
    unpadded = [boxes[:, :count] for boxes, count in zip(padded, counts, strict=True)]
    flat = torch.cat(unpadded, 1).flatten(0, 1)
    generator = model.dn_query_generator
    generator.noise_labels = lambda *_: expected["dn.noisy_labels_flat"]  # type: ignore[method-assign]
    generator.noise_boxes = lambda *_: flat  # type: ignore[method-assign]


def _rows(
    model: LLMDet,
    samples: list[DetDataSample],
    batch: Tensor,
    expected: Mapping[str, Tensor],
    recorded: Mapping[str, Any],
) -> Iterator[Row]:
    outputs: list[Any] = []
    forward_train = model.forward_train
    model.forward_train = lambda *a: outputs.append(forward_train(*a)) or outputs[-1]  # type: ignore
    with Trace(model) as trace, CaptionTrace(model) as captions:
        losses = model.loss(batch, samples)
    losses = {_name_of_original(name, model.decoder.num_layers): v for name, v in losses.items()}
    total = torch.stack(list(losses.values())).sum()
    kinds = {"total": total} | {name: losses[name] for name in losses if "lmm" in name}
    gradients = {kind: _gradients(model, value) for kind, value in kinds.items()}
    detector = tensor_finder(model, samples, batch, trace, outputs[0])
    find = _finder(detector, captions, gradients["total"], outputs[0].encoded.pyramid)
    yield from compare_recorded(dict(expected), find)
    for name in recorded["losses"].keys() | losses.keys():
        ours = losses.get(name)
        value = None if ours is None else float(ours.detach())
        yield compare_number(f"losses.{name}", recorded["losses"].get(name), value)
    yield compare_number("total_loss", recorded["total_loss"], float(total.detach()))
    for kind, norms in recorded["grad_norms"].items():
        for name, norm in norms.items():
            if not _NO_GRADIENT.search(name):
                gradient = gradients[kind].get(upstream_key_to_llmdet(name))
                value = None if gradient is None else float(gradient.norm())
                yield compare_number(f"grad_norms.{kind}.{name}", norm, value)


def _name_of_original(name: str, decoder_layers: int) -> str:
    """The original counts the layers of region losses from the last, which is 1, backwards."""
    if match := _REGION_LOSS.fullmatch(name):
        return f"d{decoder_layers - int(match[1])}.loss_lmm_region"
    return name


def _gradients(model: LLMDet, loss: Tensor) -> dict[str, Tensor]:
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(loss, list(named.values()), retain_graph=True, allow_unused=True)
    return {name: g for name, g in zip(named, found, strict=True) if g is not None}


def _finder(
    detector: Callable[[str, int], Tensor | None],
    captions: CaptionTrace,
    gradients: Mapping[str, Tensor],
    pyramid: Any,
) -> Callable[[str, int], Tensor | None]:
    """Return a function that gives our value of a recorded tensor by its name."""
    layout = {
        "pre_transformer.memory_mask": pyramid.padding_mask,
        "pre_transformer.spatial_shapes": pyramid.spatial_shapes,
        "pre_transformer.level_start_index": pyramid.level_start_index,
        "pre_transformer.valid_ratios": pyramid.valid_ratios,
    }

    def find(name: str, call: int) -> Tensor | None:
        if name in layout:
            return layout[name]
        if name.startswith("grad_total."):
            key = upstream_key_to_llmdet(name.removeprefix("grad_total."))
            return gradients[key].reshape(1, -1) if key.endswith("separator") else gradients[key]
        if match := _CALLS.fullmatch(name):
            return captions.find(match[1], match[2])
        return detector(name, call)

    return find
