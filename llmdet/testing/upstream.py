"""What the original does otherwise in a training step, to measure our ways against."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

#: Names of the ways, and what each of them is.
SWITCHES = {
    "attention": "products and softmax of their own instead of scaled_dot_product_attention",
    "proposals": "the two-stage box map on all pixels instead of the chosen ones",
    "matching": "costs of each layer and image go to the host by themselves",
    "losses": "losses of one layer after the other",
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


def explicit_attention(model: Any) -> Any:
    """Attention by its definition."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    return sdpa_kernel(SDPBackend.MATH)


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
    "proposals": propose_everywhere,
    "matching": match_one_by_one,
    "losses": losses_by_layer,
    "vocabulary": whole_vocabulary,
}
