"""A CLIP says how well words fit a picture, whatever else is in its batch."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from llmdet.data_engines.similarity import ImageTextSimilarity, Pair
from llmdet.errors import ConfigError
from llmdet.testing.chat import tiny_similarity


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> str:
    return tiny_similarity(tmp_path_factory.mktemp("clip"))


def pairs() -> list[Pair]:
    random = np.random.default_rng(0)
    texts = ("a dog", "a brown ball on the left of the window", "a dog " * 100)
    sizes = ((20, 30), (16, 16), (60, 10))
    return [
        Pair(Image.fromarray(random.integers(0, 256, (h, w, 3), dtype=np.uint8)), text)
        for text, (w, h) in zip(texts, sizes, strict=True)
    ]


def test_a_pair_has_the_similarity_that_transformers_computes_for_it_alone(clip: str) -> None:
    import torch

    model = ImageTextSimilarity(clip, "cpu")
    together = model.answer(pairs())
    assert together == [model.answer([pair])[0] for pair in pairs()]
    for pair, found in zip(pairs(), together, strict=True):
        inputs = dict(model.pictures(images=[pair.image], return_tensors="pt"))
        words = model.words([pair.text], truncation=True, max_length=64, return_tensors="pt")
        padded = model.words.pad(words, padding="max_length", max_length=64, return_tensors="pt")
        with torch.no_grad():
            output = model.model(**inputs, **padded)
        assert found == pytest.approx((output.image_embeds @ output.text_embeds.T).item(), abs=6e-4)


def test_swapped_texts_have_other_similarities(clip: str) -> None:
    model = ImageTextSimilarity(clip, "cpu")
    first, second, _ = pairs()
    swapped = [Pair(first.image, second.text), Pair(second.image, first.text)]
    assert model.answer(swapped) != model.answer([first, second])


def test_what_is_no_clip_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no model like CLIP could be loaded"):
        ImageTextSimilarity(str(tmp_path / "absent"), "cpu")


def test_a_model_that_compares_nothing_is_named(clip: str) -> None:
    from transformers import AutoConfig, AutoModel

    AutoModel.from_config(AutoConfig.from_pretrained(f"{clip}/qwen")).save_pretrained(clip + "_lm")
    for name in ("preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"):
        Path(clip + "_lm", name).write_bytes(Path(clip, name).read_bytes())
    with pytest.raises(ConfigError, match="does not compare pictures with texts"):
        ImageTextSimilarity(clip + "_lm", "cpu")
