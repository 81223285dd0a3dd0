"""The kind ``detector_loss``: losses, matches and gradients of the original in training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor

from llmdet.models.detectors.grounding_dino import GroundingDINO
from llmdet.models.detectors.targets import prepare_targets
from llmdet.models.structures import TrainingOutput
from llmdet.testing.parity.model import Trace, build_detector, preprocess, read_json, read_tensors
from llmdet.testing.parity.rows import Row, compare_number, compare_recorded

#: Softmax does not change when a key's bias does: its gradient is zero but for rounding.
NO_GRADIENT = "attention.self.key.bias"


def check(folder: Path) -> Iterator[Row]:
    """Compare every variant of a ``detector_loss`` folder."""
    inputs = read_json(folder / "inputs.json")
    configs = read_json(folder / "model_config.json")
    images = read_tensors(folder / "images_bgr_uint8_hwc.pt")
    for variant, settings in inputs["variants"].items():
        model = build_detector(folder, configs[variant]).train()
        samples = make_samples(inputs, settings)
        expected = read_tensors(folder / f"expected_{variant}.pt")
        recorded = read_json(folder / f"expected_{variant}.json")
        inject_denoising(model, expected)
        batch = preprocess(model, images, samples, True)
        with Trace(model) as trace:
            output = model.forward_train(batch, samples)
        total = sum(output.losses.values())
        assert isinstance(total, Tensor)
        total.backward()
        for row in _rows(model, samples, batch, trace, output, expected, recorded, total):
            yield Row(f"{variant}/{row.name}", row.max_abs, row.max_rel, row.passed, row.note)


def make_samples(inputs: Mapping[str, Any], settings: Mapping[str, Any]) -> list[DetDataSample]:
    """Ground truth of a variant, sentences or class names."""
    samples = []
    empty = settings.get("drop_gt", [])
    for index, size in enumerate(inputs["sizes"]):
        sample = DetDataSample(metainfo={"img_shape": tuple(size)})
        if settings["kind"] == "ground":
            truth = inputs["ground"][index]
            spans = {int(label): spans for label, spans in truth["tp"].items()}
            sample.set_metainfo({"text": truth["text"], "tokens_positive": spans})
            boxes, labels = truth["boxes"], truth["labels"]
        else:
            sample.set_metainfo({"text": inputs["det"]["text"]})
            boxes, labels = inputs["det"]["boxes"][index], inputs["det"]["labels"][index]
        if index in empty:
            boxes, labels = [], []
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            labels=torch.tensor(labels, dtype=torch.long),
        )
        samples.append(sample)
    return samples


def inject_denoising(model: GroundingDINO, expected: Mapping[str, Tensor]) -> None:
    """Replace the random noise of the denoising queries by the recorded one, if there is one."""
    if "dn.noisy_labels_flat" not in expected:
        return
    generator = model.dn_query_generator
    labels, boxes = expected["dn.noisy_labels_flat"], "dn.noisy_bbox_query_flat(inverse_sigmoid)"
    generator.noise_labels = lambda *_: labels  # type: ignore[method-assign]
    generator.noise_boxes = lambda *_: expected[boxes]  # type: ignore[method-assign]


def _rows(
    model: GroundingDINO,
    samples: list[DetDataSample],
    batch: Tensor,
    trace: Trace,
    output: TrainingOutput,
    expected: Mapping[str, Tensor],
    recorded: Mapping[str, Any],
    total: Tensor,
) -> Iterator[Row]:
    find = tensor_finder(model, samples, batch, trace, output)
    yield from compare_recorded(dict(expected), find)
    for name in recorded["losses"].keys() | output.losses.keys():
        ours = output.losses.get(name)
        value = None if ours is None else float(ours.detach())
        yield compare_number(f"losses.{name}", recorded["losses"].get(name), value)
    yield compare_number("total_loss", recorded["total_loss"], float(total.detach()))
    parameters = dict(model.named_parameters())
    for name, norm in recorded["grad_norms"].items():
        if name.endswith(NO_GRADIENT):
            continue
        gradient = parameters[name].grad
        value = None if gradient is None else float(gradient.norm())
        yield compare_number(f"grad_norms.{name}", norm, value)


def tensor_finder(
    model: GroundingDINO,
    samples: list[DetDataSample],
    batch: Tensor,
    trace: Trace,
    output: TrainingOutput,
) -> Callable[[str, int], Tensor | None]:
    """Return a function that gives our value of a recorded tensor by its name."""
    _, targets, _ = prepare_targets(samples, model.language_model, batch.device)
    queries = model.num_queries
    dn = output.denoising
    named: dict[str, Tensor] = {
        "batch_inputs": batch,
        "decoder.hidden_states": output.decoded.hidden_states,
        "decoder.references": output.decoded.references,
        "enc_outputs_class_topk": output.proposals.logits,
        "enc_outputs_coord_topk": output.proposals.boxes,
        "head.bbox_preds": output.predictions.boxes,
        "head.cls_logits": output.predictions.logits,
        "memory": output.encoded.memory,
        "memory_text": output.encoded.text.embedded,
        "pre_decoder.reference_points": trace.calls["decoder_in"][0][1],
    }
    if dn is not None:
        generator = model.dn_query_generator
        nothing = (torch.empty(0), 0, torch.Generator())  # what is injected asks for no argument
        named |= {
            "dn.attn_mask": dn.attention_mask,
            "dn.label_query": dn.content,
            "dn.bbox_query(inverse_sigmoid)": dn.boxes_unact,
            "dn.noisy_labels_flat": generator.noise_labels(*nothing),
            "dn.noisy_bbox_query_flat(inverse_sigmoid)": generator.noise_boxes(*nothing),
        }

    def find(name: str, call: int) -> Tensor | None:
        del call  # every recorded stage of a training step runs once
        stage, _, rest = name.partition(".")
        if stage == "assign":
            layer, image, _ = rest.split(".")
            matches = trace.calls["match"][0]
            position = len(matches) - 1 if layer == "encoder" else int(layer.removeprefix("layer"))
            index = int(image.removeprefix("img"))
            assigned = torch.zeros(queries, dtype=torch.long)
            chosen = matches[position]
            assigned[chosen.query_indices[index]] = chosen.box_indices[index] + 1
            return assigned
        if stage == "positive_map":
            tokens = targets[int(rest.removeprefix("img"))].positive_map
            return F.pad(tokens, (0, 256 - tokens.shape[-1]))
        if stage in ("grad", "grad_total"):
            return dict(model.named_parameters())[rest].grad
        return named.get(name)

    return find
