"""Folders of transformers' LLaVA-1.5 format, read and written."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from llmdet.checkpoint import load_weights
from llmdet.checkpoint.files import read_part
from llmdet.checkpoint.systems.llava import write_llava
from llmdet.datasets.toy.models import tiny_llama
from llmdet.datasets.views import make_view
from llmdet.errors import CheckpointError
from llmdet.models.language.dialogue import collate_dialogue
from llmdet.models.regions.base import batch_regions
from llmdet.models.vision.views import collate_views
from llmdet.prompts.conversation import Conversation, Turn
from llmdet.registry import MODELS

VISION = {
    "model_type": "clip_vision_model",
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 7,
}


@pytest.fixture(scope="module")
def llava(tmp_path_factory):
    """A tiny LLaVA as transformers writes it, and its folder."""
    from transformers import AutoConfig, AutoTokenizer, LlavaConfig, LlavaForConditionalGeneration

    llama = tiny_llama(tmp_path_factory.mktemp("llama"), tie_word_embeddings=False)
    text = AutoConfig.from_pretrained(llama)
    config = LlavaConfig(
        vision_config=VISION, text_config=text, image_token_index=text.vocab_size - 1
    )
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config).eval()
    folder = tmp_path_factory.mktemp("llava")
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(llama).save_pretrained(folder)
    return model, str(folder)


def build(folder, refinement="none", **lmm):
    tower = {"type": "TransformersTower", "model": folder, "dtype": "float32"}
    connector = {"type": "MLPConnector", "source": folder}
    region = {"tower": "clip", "encoder": {"type": "MaskPool"}}
    return MODELS.build(
        {
            "type": "RegionLMM",
            "towers": {"clip": {"type": "RefinedTower", "tower": tower, "refinement": refinement}},
            "slots": {
                "image": {
                    "tower": "clip",
                    "encoder": {"type": "AverageGrid", "size": 4},
                    "connector": connector,
                },
                "region": region,
            },
            "lmm": {"type": "LanguageModel", "model": folder, "dtype": "float32", **lmm},
            "talk": {"system": None},
        }
    ).eval()


@torch.no_grad()
def test_a_model_of_the_folder_reads_an_image_as_llava_does(llava):
    theirs, folder = llava
    ours = build(folder)
    image = np.random.default_rng(0).integers(0, 256, (28, 28, 3)).astype(np.uint8)
    view = collate_views([make_view(image, ours.view_settings()["clip"])])
    tokens = ours.conversations(Conversation((Turn("user", "<image>\nWhat is it?"),)))
    dialogue = collate_dialogue([tokens], ours.lmm.pad_id)
    seen = ours.look({"clip": view})["clip"]
    grid = ours.filler.encoders["image"](seen, batch_regions([1], torch.device("cpu")))
    features = ours.filler.connectors["image"](grid.features, grid.boxes)
    embeds = ours.lmm.embed(dialogue, {"image": features.flatten(0, 1)})
    logits = ours.lmm.causal_lm(inputs_embeds=embeds).logits
    ids = dialogue.input_ids.clone()
    ids.view(-1)[dialogue.slots["image"]] = theirs.config.image_token_id
    expected = theirs(input_ids=ids, pixel_values=view.pixels).logits
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_what_is_written_is_llava_again_and_the_rest_lies_beside_it(llava, tmp_path):
    from transformers import LlavaForConditionalGeneration

    theirs, folder = llava
    ours = build(folder, refinement="deconv")
    rest = write_llava(ours, tmp_path)
    assert {name.split(".")[0] for name in rest} == {"towers", "filler"}
    again = LlavaForConditionalGeneration.from_pretrained(tmp_path)
    for name, value in theirs.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    assert again.config.vision_feature_layer == -2
    torch.manual_seed(3)
    other = build(str(tmp_path), refinement="deconv")
    missing = ["lmm", "towers.clip.tower", "filler.connectors.image"]
    load_weights(other, tmp_path / "regions" / "model.safetensors", load_missing=missing)
    for name, value in ours.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name


def test_what_llava_has_no_place_for_is_named(llava, tmp_path):
    ours = build(llava[1], lora={"r": 2, "alpha": 2})
    with pytest.raises(CheckpointError, match="it has LoRA"):
        write_llava(ours, tmp_path)
    with pytest.raises(CheckpointError, match="no tensor that begins with mm_projector"):
        read_part(llava[1], ("mm_projector.",))
    with pytest.raises(CheckpointError, match="does not fit"):
        MODELS.build({"type": "MLPConnector", "in_dims": 8, "hidden_size": 64, "source": llava[1]})
