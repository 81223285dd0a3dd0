"""What the original does otherwise in a training step, to measure our ways against."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

#: Names of the ways, and what each of them is.
SWITCHES = {
    "attention": "products and softmax of their own in Swin, BERT and decoder",
    "fusion": "queries, keys and values of the inner width for each pixel, and clamped products",
    "deformable": "samples of all levels are held at once (on CUDA the operator stays)",
    "linear": "torch's linear maps, where ours take oneDNN (CPU)",
    "checkpointing": "activations of encoder and trained Swin are computed again, as configured",
    "proposals": "the two-stage box map on all pixels instead of the chosen ones",
    "matching": "costs of each layer and image go to the host by themselves",
    "losses": "losses of one layer after the other",
    "tokens": "prompts and conversations become tokens in the step instead of in a worker",
    "vocabulary": "logits of all positions of a conversation instead of the supervised ones",
    "optimizer": "a group of each parameter",
    "logging": "each loss and the norm of the gradients are read in every step, each by itself",
}


def ungrouped(optimizer: Any) -> Any:
    """The same optimizer with a group for each parameter, and not fused."""
    groups = [
        {**group, "params": [parameter], "fused": None}
        for group in optimizer.param_groups
        for parameter in group["params"]
    ]
    return type(optimizer)(groups)


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Set an attribute meanwhile."""
    outer = vars(owner).get(name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if outer is None:
            delattr(owner, name)
        else:
            setattr(owner, name, outer)


@contextmanager
def explicit_attention(model: Any) -> Iterator[None]:
    """Attention by its definition; the language model's was fused from the start."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    decode = model.lmm._decode
    kernels = [
        SDPBackend.FLASH_ATTENTION,
        SDPBackend.EFFICIENT_ATTENTION,
        SDPBackend.CUDNN_ATTENTION,
        SDPBackend.MATH,
    ]

    def fused(*args: Any) -> Any:
        with sdpa_kernel(kernels):
            return decode(*args)

    with sdpa_kernel(SDPBackend.MATH), replaced(model.lmm, "_decode", fused):
        yield


@contextmanager
def original_fusion(model: Any) -> Iterator[None]:
    """Bi-attention as published: one matrix of clamped products, normalised along each side."""
    with ExitStack() as stack:
        for layer in model.encoder.fusion_layers:
            stack.enter_context(replaced(layer.attn, "forward", partial(_bi_attention, layer.attn)))
        yield


def _bi_attention(
    attention: Any, visual: Any, language: Any, no_pixel: Any, no_token: Any
) -> tuple[Any, Any]:
    import torch.nn.functional as F

    def heads(x: Any) -> Any:
        return x.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)

    def read(products: Any, blocked: Any, values: Any) -> Any:
        if blocked is not None:
            products = products.masked_fill(blocked[:, None, None], float("-inf"))
        shares = F.dropout(products.softmax(-1), attention.dropout, attention.training)
        return (shares @ values).transpose(1, 2).flatten(2)

    query = heads(attention.v_proj(visual) * attention.head_dims**-0.5)
    products = query @ heads(attention.l_proj(language)).transpose(2, 3)
    products = (products - products.max()).clamp(-50_000, 50_000)
    turned = products.transpose(2, 3)
    turned = (turned - turned.amax(-1, keepdim=True)).clamp(-50_000, 50_000)
    from_text = read(products, no_token, heads(attention.values_l_proj(language)))
    from_image = read(turned, no_pixel, heads(attention.values_v_proj(visual)))
    return attention.out_v_proj(from_text), attention.out_l_proj(from_image)


def samples_at_once(model: Any) -> Any:
    """Deformable attention through a tensor of all samples."""
    import torch
    import torch.nn.functional as F

    from llmdet.ops import deformable_attention

    def sample(value: Any, shapes: Any, locations: Any, weights: Any) -> Any:
        maps = value.float().permute(0, 2, 3, 1).flatten(0, 1)  # [B * heads, C / heads, S]
        levels = maps.split([height * width for height, width in shapes], -1)
        grids = (2 * locations - 1).transpose(1, 2).flatten(0, 1)  # [B * heads, Q, levels, P, 2]
        samples = [
            F.grid_sample(part.unflatten(-1, shape), grids[:, :, level], align_corners=False)
            for level, (part, shape) in enumerate(zip(levels, shapes, strict=True))
        ]
        shares = weights.transpose(1, 2).flatten(0, 1).flatten(2)[:, None]
        summed = (torch.stack(samples, -2).flatten(-2) * shares).sum(-1)  # [B * heads, C/heads, Q]
        return summed.unflatten(0, (len(value), -1)).permute(0, 3, 1, 2).flatten(2)

    return replaced(deformable_attention, "sample_with_grid_sample", sample)


def torch_linear(model: Any) -> Any:
    """No linear map through oneDNN."""
    from llmdet.ops import linear

    return replaced(linear, "_runs_onednn", lambda *_: False)


@contextmanager
def recomputed(model: Any) -> Iterator[None]:
    """``num_cp`` and ``with_cp`` of all released configs."""
    from mmdet.models.backbones.swin import SwinBlock

    from llmdet.models.backbones import _Recomputed

    with ExitStack() as stack:
        layers = len(model.encoder.layers)
        stack.enter_context(replaced(model.encoder, "num_checkpointed", layers))
        trained = () if model.freeze_backbone else model.backbone.modules()
        for block in trained:
            if isinstance(block, SwinBlock) and not isinstance(block.forward, _Recomputed):
                stack.enter_context(replaced(block, "forward", _Recomputed(block.forward)))
        yield


def tokens_in_the_step(model: Any) -> Any:
    """Samples lose the tokens that workers have made."""
    loss = model.loss

    def of_bare_samples(images: Any, samples: Any) -> Any:
        for sample in samples:
            given = sample.grounding
            bare = tuple(replace(each, tokens=None) for each in given.conversations)
            sample.set_metainfo({"grounding": replace(given, tokenized=(), conversations=bare)})
        return loss(images, samples)

    return replaced(model, "loss", of_bare_samples)


def propose_everywhere(model: Any) -> Any:
    """Boxes of all pixels, of which few are used."""
    from llmdet.models.structures import QueryProposals
    from llmdet.models.transformer.proposals import pixel_proposals

    def propose(encoded: Any) -> QueryProposals:
        anchors, usable = pixel_proposals(encoded.pyramid)
        memory = encoded.memory.masked_fill(~usable[..., None], 0.0)
        memory = model.memory_trans_norm(model.memory_trans_fc(memory))
        last = model.decoder.num_layers
        logits = model.bbox_head.cls_branches[last](memory, encoded.text)
        boxes = model.bbox_head.reg_branches[last](memory) + anchors
        indices = logits.amax(-1).topk(model.num_queries, dim=1).indices

        def of_chosen(values: Any) -> Any:
            return values.gather(1, indices[..., None].expand(-1, -1, values.shape[-1]))

        return QueryProposals(of_chosen(logits), of_chosen(boxes).sigmoid(), indices)

    return replaced(model, "propose", propose)


def match_one_by_one(model: Any) -> Any:
    """One transfer for each layer and image."""
    from llmdet.models.structures import Matches

    matcher = model.bbox_head.matcher

    def match(predictions: Any, proposals: Any, targets: Any) -> list[Matches]:
        found = []
        for logits, boxes in (
            *zip(predictions.logits, predictions.boxes, strict=True),
            (proposals.logits, proposals.boxes),
        ):
            each = [
                matcher([logits[i : i + 1]], [boxes[i : i + 1]], [target])[0]
                for i, target in enumerate(targets)
            ]
            found.append(
                Matches(
                    tuple(m.query_indices[0] for m in each), tuple(m.box_indices[0] for m in each)
                )
            )
        return found

    return replaced(model.bbox_head, "match", match)


def losses_by_layer(model: Any) -> Any:
    """Losses of a layer at a time."""
    import torch

    losses = model.bbox_head.losses
    at_once = losses.of_layers

    def of_layers(
        logits: Any, boxes: Any, targets: Any, matches: Any, average: Any
    ) -> dict[str, Any]:
        each = [
            at_once(logits[i : i + 1], boxes[i : i + 1], targets, matches[i : i + 1], average)
            for i in range(len(logits))
        ]
        return {name: torch.cat([layer[name] for layer in each]) for name in each[0]}

    return replaced(losses, "of_layers", of_layers)


def whole_vocabulary(model: Any) -> Any:
    """Logits of all positions."""
    import torch.nn.functional as F

    from llmdet.models.language import language_model

    def cross_entropy(hidden: Any, index: Any, targets: Any, head: Any) -> Any:
        logits = head(hidden).float().flatten(0, 1)
        labels = targets.new_full((len(logits),), -100)
        labels[index] = targets
        return F.cross_entropy(logits, labels, ignore_index=-100)

    return replaced(language_model, "supervised_cross_entropy", cross_entropy)


WAYS: dict[str, Callable[[Any], Any]] = {
    "attention": explicit_attention,
    "fusion": original_fusion,
    "deformable": samples_at_once,
    "linear": torch_linear,
    "checkpointing": recomputed,
    "tokens": tokens_in_the_step,
    "proposals": propose_everywhere,
    "matching": match_one_by_one,
    "losses": losses_by_layer,
    "vocabulary": whole_vocabulary,
}
