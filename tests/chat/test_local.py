"""A vision-language model of transformers answers batches as it answers single requests."""

from pathlib import Path

import pytest
from PIL import Image

from llmdet.chat import ChatRequest, Message, ask
from llmdet.chat.local import LocalChat
from llmdet.errors import ConfigError


@pytest.fixture(scope="module")
def vlm(tmp_path_factory) -> str:
    return tiny_llava(tmp_path_factory.mktemp("vlm"))


def tiny_llava(folder: Path) -> str:
    """A LLaVA of random weights: CLIP 16 px, Qwen2 with its own tokenizer and chat template."""
    import torch
    from transformers import (
        AutoTokenizer,
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        Qwen2Config,
    )

    from llmdet.datasets.toy.models import tiny_qwen

    tokenizer = AutoTokenizer.from_pretrained(tiny_qwen(folder / "qwen"))
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    config = LlavaConfig(
        text_config=Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        ),
        vision_config=CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            image_size=16,
            patch_size=8,
            projection_dim=32,
        ),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
    )
    template = (
        "{% for message in messages %}<|im_start|>{{ message.role }}\n"
        "{% for part in message.content %}"
        "{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}"
        "{% endfor %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessor(
            size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}
        ),
        tokenizer=tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        chat_template=template,
        num_additional_image_tokens=1,
    )
    torch.manual_seed(0)
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


def colourful(seed: int, prompt: str, temperature: float = 0.0) -> ChatRequest:
    import numpy as np

    pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    return ask(prompt, Image.fromarray(pixels), temperature=temperature)


def test_a_model_of_transformers_answers_each_request_of_a_batch_as_it_would_alone(vlm) -> None:
    chat = LocalChat(vlm, "cpu", max_new_tokens=12)
    requests = [
        colourful(0, "Describe the image in detail."),
        colourful(1, "A brown dog?"),
        colourful(2, "Describe the region in a phrase, on the left of the window."),
    ]
    together = chat.answer(requests)
    assert together == [chat.answer([single])[0] for single in requests]
    assert len(set(together)) > 1
    assert not any("Describe" in answer and "<|im_start|>" in answer for answer in together)


def test_requests_of_several_temperatures_may_share_a_batch(vlm: str) -> None:
    chat = LocalChat(vlm, "cpu", max_new_tokens=8)
    first, again = colourful(0, "A dog?"), colourful(0, "A dog?", temperature=0.7)
    answers = chat.answer([again, first, again])
    assert answers[1] == chat.answer([first])[0]


def test_several_turns_and_pictures_make_one_conversation(vlm: str) -> None:
    chat = LocalChat(vlm, "cpu", max_new_tokens=8)
    (image,) = colourful(0, "A dog?").messages[0].images
    turns = (
        Message("system", "You are a helpful assistant."),
        Message("user", "A dog?", (image, image)),
        Message("assistant", "On the left."),
        Message("user", "A ball?"),
    )
    other = (*turns[:2], Message("assistant", "Red green blue red."), turns[3])
    answers = chat.answer([ChatRequest(turns), ChatRequest(other)])
    assert answers == [chat.answer([ChatRequest(turns)])[0], chat.answer([ChatRequest(other)])[0]]
    assert answers[0] != answers[1]


def test_another_folder_of_weights_is_another_identity(vlm: str, tmp_path: Path) -> None:
    chat = LocalChat(vlm, "cpu", max_new_tokens=8)
    before = chat.identity
    assert before["model"] == vlm
    extra = Path(vlm, "adapter.safetensors")
    extra.write_bytes(b"x")
    assert chat.identity != before
    extra.unlink()
    assert chat.identity == before


def test_a_model_that_does_not_load_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no vision-language model could be loaded"):
        LocalChat(str(tmp_path / "absent"), "cpu")
