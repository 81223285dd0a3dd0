"""A CLIP-like pair of encoders that learns pictures and captions of the toy set, as a tower."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from llmdet.datasets.views import ViewSettings, make_view

logger = logging.getLogger(__name__)


def train_clip(toy: Path, folder: Path, seed: int, steps: int, batch_size: int = 32) -> None:
    """Train image and text encoder so that pictures and their captions find each other.

    Args:
        toy: the toy set with its models, see :mod:`llmdet.datasets.toy`.
        folder: gets the image encoder, as transformers writes it.
        seed: of weights and order.
        steps: of training.
        batch_size: pairs of each.
    """
    import torch
    from transformers import AutoTokenizer, CLIPModel

    torch.manual_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(toy / "language_model")
    model = CLIPModel(_sizes(tokenizer))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps + 1)
    for step, rows in enumerate(_batches(toy, seed, steps, batch_size), 1):
        texts = [row["grounding"]["caption"] + tokenizer.eos_token for row in rows]
        words = tokenizer(texts, padding=True, return_tensors="pt")
        loss = model(
            input_ids=words.input_ids,
            attention_mask=words.attention_mask,
            pixel_values=_pixels(toy, rows),
            return_loss=True,
        ).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            logger.info("step %d of %d: loss %.3f", step, steps, loss.item())
    model.vision_model.save_pretrained(folder)


def _sizes(tokenizer: Any) -> Any:
    """Two small transformers; the image's has a map of 8 x 8 cells."""
    from transformers import CLIPConfig

    sizes = {"hidden_size": 96, "intermediate_size": 192, "num_attention_heads": 4}
    return CLIPConfig(
        vision_config={**sizes, "num_hidden_layers": 4, "image_size": 128, "patch_size": 16},
        text_config={
            **sizes,
            "num_hidden_layers": 2,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 200,
            "eos_token_id": tokenizer.eos_token_id,
            "bos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        projection_dim=96,
    )


def _batches(toy: Path, seed: int, steps: int, size: int) -> Iterator[list[dict[str, Any]]]:
    """Random rows with captions, ``steps`` times."""
    lines = (toy / "annotations" / "train_grounding.jsonl").read_text().splitlines()
    draw = random.Random(seed)
    for _ in range(steps):
        yield [json.loads(line) for line in draw.sample(lines, min(size, len(lines)))]


def _pixels(toy: Path, rows: Sequence[dict[str, Any]]) -> Any:
    """Pictures [B, 3, 128, 128] as the tower will see them."""
    import numpy as np
    from PIL import Image

    from llmdet.models.vision.views import collate_views

    settings = ViewSettings((128, 128))
    files = [toy / "images" / row["filename"] for row in rows]
    images = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    return collate_views([make_view(image[..., ::-1], settings) for image in images]).pixels
