"""A vision-language model of transformers answers batches as it answers single requests."""

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from llmdet.chat import ChatRequest, Message, ask
from llmdet.chat.local import LocalChat
from llmdet.errors import ConfigError
from llmdet.testing.chat import tiny_llava


@pytest.fixture(scope="module")
def vlm(tmp_path_factory) -> str:
    return tiny_llava(tmp_path_factory.mktemp("vlm"))


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


def test_sampled_answers_depend_on_seed_and_question_and_not_on_the_batch(vlm: str) -> None:
    chat = LocalChat(vlm, "cpu", max_new_tokens=8)
    greedy = colourful(0, "A dog?")
    sampled = [replace(greedy, temperature=3.0, seed=seed) for seed in (0, 1, 2)]
    other = colourful(1, "A ball?", temperature=3.0)
    batch = [sampled[0], greedy, other, sampled[1], sampled[2], sampled[0]]
    answers = chat.answer(batch)
    assert answers == [chat.answer([request])[0] for request in batch]
    assert answers[0] == answers[-1]
    assert len(set(answers)) == 5


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    import torch

    from llmdet.chat.sampling import SeededSampling

    scores = torch.tensor([0.0, 1.0, 2.0, -1.0])
    count = 4000
    requests = [ask("?", temperature=2.0, seed=seed) for seed in range(count)]
    sampling = SeededSampling(requests, torch.device("cpu"))
    drawn = sampling(torch.zeros(count, 1), scores.expand(count, -1)).argmax(-1)
    found = torch.bincount(drawn, minlength=4) / count
    torch.testing.assert_close(found, (scores / 2).softmax(-1), atol=0.03, rtol=0)


def test_requests_and_tokens_are_counted(vlm: str) -> None:
    chat = LocalChat(vlm, "cpu", max_new_tokens=8)
    chat.answer([colourful(0, "A dog?")])
    alone = chat.usage.prompt_tokens
    chat.answer([colourful(0, "A dog?"), colourful(0, "A brown dog on the left of the window?")])
    assert chat.usage.requests == 3
    assert chat.usage.prompt_tokens > 3 * alone > 0  # padding is no token
    assert 0 < chat.usage.answer_tokens <= 24


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


def test_requests_with_and_without_pictures_share_a_batch(vlm: str) -> None:
    """As they do where one model has several roles."""
    chat = LocalChat(vlm, "cpu", max_new_tokens=8)
    (image,) = colourful(0, "A dog?").messages[0].images
    requests = [ask("A dog?"), ask("A brown dog?", image), ask("On the left?", image, image)]
    assert chat.answer(requests) == [chat.answer([request])[0] for request in requests]


def test_a_language_model_answers_text_and_refuses_pictures(tmp_path: Path) -> None:
    from llmdet.datasets.toy.models import tiny_qwen

    chat = LocalChat(tiny_qwen(tmp_path / "qwen"), "cpu", max_new_tokens=8)
    short, long = ask("A dog?"), ask("A brown dog on the left of the window?")
    together = chat.answer([short, long])
    assert together == [chat.answer([short])[0], chat.answer([long])[0]]
    with pytest.raises(ConfigError, match="reads text alone and was shown a picture"):
        chat.answer([colourful(0, "A dog?")])


def test_a_model_that_does_not_load_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no language model could be loaded"):
        LocalChat(str(tmp_path / "absent"), "cpu")
