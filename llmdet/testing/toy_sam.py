"""A SAM small enough for the toy set, which learns from nothing to fill in the shape in a box."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

#: Fields of its configuration: views of 128 x 128 pixels, maps of 16 x 16 cells.
TOY_SAM: dict[str, Any] = {
    "model_type": "sam",
    "initializer_range": 0.12,  # transformers' own is for sizes at which sums are longer
    "vision_config": {
        "initializer_range": 0.12,
        "hidden_size": 64,
        "mlp_dim": 192,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "global_attn_indexes": [0, 1, 2],
        "use_rel_pos": False,
        "output_channels": 64,
        "image_size": 128,
        "patch_size": 8,
        "num_pos_feats": 32,
    },
    "prompt_encoder_config": {"hidden_size": 64, "image_size": 128, "patch_size": 8},
    "mask_decoder_config": {
        "hidden_size": 64,
        "mlp_dim": 128,
        "num_attention_heads": 4,
        "iou_head_hidden_dim": 32,
        "layer_norm_eps": 1e-5,
    },
}
_NUMBERS = 128  # sines of each side of a box
_JITTER = 0.15  # of a box's sides, standard deviation of where it is said to lie


def train_sam(toy: Path, folder: Path, seed: int, steps: int, batch_size: int = 8) -> None:
    """Train image encoder and mask decoder on the toy set's masks, each prompted by its box.

    Args:
        toy: the toy set.
        folder: gets the model, as transformers writes it.
        seed: of weights and order.
        steps: of training.
        batch_size: images of each.
    """
    import torch
    from torch import nn

    from llmdet.models.outputs.mask_decoder import MaskDecoder
    from llmdet.models.vision.sam import SamTower, build_sam

    torch.manual_seed(seed)
    tower, decoder = SamTower(TOY_SAM, frozen=False, dtype="float32"), MaskDecoder(TOY_SAM)
    with torch.no_grad():
        # As in segment_anything. transformers' random weights are 32 times as large, so that
        # neighbouring cells have nothing in common.
        decoder.positions.positional_embedding.normal_()
    prompt = nn.Linear(4 * _NUMBERS, decoder.dims)
    weights = [*tower.parameters(), *decoder.parameters(), *prompt.parameters()]
    optimizer = torch.optim.AdamW([w for w in weights if w.requires_grad], 2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps + 1)
    pictures = _Pictures(toy, tower.view)
    draw = random.Random(seed)
    for step in range(1, steps + 1):
        chosen = draw.sample(range(len(pictures)), min(batch_size, len(pictures)))
        loss = _loss(tower, decoder, prompt, pictures, chosen)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        if step % 25 == 0:
            logger.info("step %d of %d: loss %.3f", step, steps, loss.item())
    sam = build_sam(TOY_SAM)
    sam.vision_encoder.load_state_dict(tower.encoder.state_dict())
    sam.mask_decoder.load_state_dict(decoder.decoder.state_dict())
    sam.shared_image_embedding.load_state_dict(decoder.positions.state_dict())
    sam.prompt_encoder.no_mask_embed.load_state_dict(decoder.no_mask.state_dict())
    sam.save_pretrained(folder)


class _Pictures:
    """Training images and their masks; each is read when it is first drawn, and kept."""

    def __init__(self, toy: Path, settings: Any) -> None:
        from llmdet.datasets.toy.writer import read_scenes

        self.toy, self.settings = toy, settings
        self.scenes = list(read_scenes(toy, "train"))
        self._views: dict[int, Any] = {}

    def __len__(self) -> int:
        return len(self.scenes)

    def view(self, index: int) -> Any:
        """The view of an image."""
        import cv2

        from llmdet.datasets.views import make_view

        if index not in self._views:
            image: Any = cv2.imread(str(self.toy / "images" / "train" / f"{index:06d}.jpg"))
            self._views[index] = make_view(image, self.settings)
        return self._views[index]


def _loss(tower: Any, decoder: Any, prompt: Any, pictures: _Pictures, chosen: Sequence[int]) -> Any:
    """Cross-entropy and dice of all objects of some images, in pixels of the view."""
    import numpy as np
    import torch
    import torch.nn.functional as F

    from llmdet.datasets.toy.scene import item_mask
    from llmdet.models.outputs.mask_losses import mask_cross_entropy, mask_dice
    from llmdet.models.transformer.positions import encode_coordinates
    from llmdet.models.vision.views import collate_views

    seen = tower(collate_views([pictures.view(index) for index in chosen]))
    scenes = [pictures.scenes[index] for index in chosen]
    image = torch.tensor([n for n, scene in enumerate(scenes) for _ in scene.items])
    boxes = torch.tensor([item.box for scene in scenes for item in scene.items])
    prompts = prompt(encode_coordinates(seen.frame.relative_boxes(_moved(boxes), image), _NUMBERS))
    logits = decoder(seen, prompts, image)
    made = F.interpolate(logits[:, None], seen.frame.size, mode="bilinear")[:, 0]
    wanted = []
    for number, scene in enumerate(scenes):
        masks = np.stack([item_mask(item, (scene.height, scene.width)) for item in scene.items])
        wanted.append(seen.frame.masks(torch.from_numpy(masks), number))
    targets = torch.cat(wanted)
    return (5 * mask_cross_entropy(made, targets) + mask_dice(made, targets)).mean()


def _moved(boxes: Any) -> Any:
    """Boxes [N, 4] xyxy that lie a little beside: what asks for masks later is not exact."""
    import torch

    centres, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    centres = centres + _JITTER * sides * torch.randn_like(centres)
    sides = sides * (_JITTER * torch.randn_like(sides)).exp()
    return torch.cat([centres - sides / 2, centres + sides / 2], 1)
