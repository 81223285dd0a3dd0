"""Prompts and answers as token ids, labels and places."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from llmdet.errors import ConfigError, DataError
from llmdet.models.lmm.conversation import IGNORE_INDEX, ConversationBuilder

PROMPT, ANSWER = "Describe the image in detail.", "A red circle is above a blue square."
RECORDED = Path(__file__).parents[2] / "golden" / "pipeline"


@pytest.fixture
def tokenizer(folder):
    return AutoTokenizer.from_pretrained(folder)


def supervised_text(tokenizer, batch, row=0):
    labels = batch.labels[row]
    return tokenizer.decode(labels[labels != IGNORE_INDEX])


def test_conversations_equal_the_recorded_ones_of_the_original():
    """Token ids and labels of every image and region conversation that was recorded."""
    tokenizer = AutoTokenizer.from_pretrained(RECORDED / "lmm")
    builder = ConversationBuilder(tokenizer, 1000)
    records = json.loads((RECORDED / "random_sampling_neg_pos2.json").read_text())["records"]
    compared = 0
    for record in records:
        output = record["output"] or {}
        regions = output.get("region_conversations") or {"conversations": []}
        images = [output["conversations"]] if output.get("conversations") else []
        for recorded in images + regions["conversations"]:
            ids = recorded["input_id"]
            text = tokenizer.decode([i for i in ids if i >= 0])
            _, _, user, said = text.split("<|im_start|>")
            prompt = user.removeprefix("user\n").split("<|im_end|>")[0].strip("\n")
            answer = said.removeprefix("assistant\n").split("<|im_end|>")[0]
            place = ids.index(-200)
            if not ids[place - 1] == ids[place + 1] == builder.tokenizer("\n").input_ids[0]:
                continue  # a prompt with the mark elsewhere; see the next test
            batch = builder.training_batch([prompt], [answer], 1)
            expected = [builder.pad_id if i < 0 else i for i in ids]
            assert batch.input_ids[0].tolist() == expected
            assert batch.labels[0].tolist() == recorded["label"]
            assert batch.visual.tolist() == [[place]]
            compared += 1
    assert compared > 20


def test_the_mark_says_where_the_visual_tokens_stand(tokenizer):
    builder = ConversationBuilder(tokenizer, 100)
    behind = builder.training_batch(["What is this? <image>"], [ANSWER], 2)
    front = builder.training_batch(["What is this?"], [ANSWER], 2)
    assert behind.visual[0, 0] > front.visual[0, 0]
    marked = builder.training_batch(["<image>\nWhat is this?"], [ANSWER], 2)
    assert torch.equal(marked.input_ids, front.input_ids)


def test_more_than_one_mark_is_an_error(tokenizer):
    with pytest.raises(DataError, match="2 <image> marks"):
        ConversationBuilder(tokenizer, 100).training_batch(["<image> <image>"], [ANSWER], 1)


def test_the_whole_turn_of_the_assistant_is_supervised_and_of_the_user_only_the_template(tokenizer):
    builder = ConversationBuilder(tokenizer, 100, template_tokens=())
    batch = builder.training_batch([PROMPT], [ANSWER], 3)
    text = supervised_text(tokenizer, batch)
    assert ANSWER in text
    assert "assistant" in text
    assert "Describe" not in text
    with_template = ConversationBuilder(tokenizer, 100).training_batch([PROMPT], [ANSWER], 3)
    assert supervised_text(tokenizer, with_template).count("\n") > text.count("\n")


def test_supervised_positions_predict_the_next_label(tokenizer):
    batch = ConversationBuilder(tokenizer, 100).training_batch(
        [PROMPT, PROMPT], [ANSWER, "A star."], 3
    )
    flat = batch.labels.flatten()
    assert torch.equal(flat[batch.supervised + 1], batch.targets)
    expected = (batch.labels[:, 1:] != IGNORE_INDEX).sum()
    assert len(batch.targets) == expected


def test_truncation_counts_the_visual_tokens(tokenizer):
    builder = ConversationBuilder(tokenizer, 60)
    short = builder.training_batch([PROMPT], [ANSWER * 20], 2)
    long = builder.training_batch([PROMPT], [ANSWER * 20], 12)
    assert short.input_ids.shape == long.input_ids.shape == (1, 60)
    assert len(long.targets) == len(short.targets) - 10


def test_a_limit_that_leaves_no_room_for_an_answer_is_an_error(tokenizer):
    with pytest.raises(ConfigError, match=r"max_length=60 cannot hold"):
        ConversationBuilder(tokenizer, 60).training_batch([PROMPT], [ANSWER], 100)


def test_training_pads_on_the_right_and_prompts_pad_on_the_left(tokenizer):
    builder = ConversationBuilder(tokenizer, 100)
    training = builder.training_batch([PROMPT] * 2, [ANSWER, "A star."], 2)
    assert training.attention_mask[:, 0].all()
    assert not training.attention_mask[1, -1]
    prompts = builder.prompt_batch([PROMPT * 3, PROMPT], 2)
    assert prompts.attention_mask[:, -1].all()
    assert not prompts.attention_mask[1, 0]
    assert prompts.position_ids[1, prompts.attention_mask[1]].tolist() == list(
        range(int(prompts.attention_mask[1].sum()))
    )
    assert prompts.attention_mask.gather(1, prompts.visual).all()
    assert len(prompts.targets) == 0


def test_a_prompt_is_the_beginning_of_the_conversation_it_is_trained_on(tokenizer):
    builder = ConversationBuilder(tokenizer, 100)
    asked = builder.prompt_batch([PROMPT], 2).input_ids[0]
    trained = builder.training_batch([PROMPT], [ANSWER], 2).input_ids[0]
    assert torch.equal(asked, trained[: len(asked)])


def test_every_sample_keeps_its_own_prompt(tokenizer):
    batch = ConversationBuilder(tokenizer, 100).training_batch(
        ["What is left?", "What is right?"], [ANSWER] * 2, 1
    )
    texts = tokenizer.batch_decode(batch.input_ids)
    assert "What is left?" in texts[0]
    assert "What is right?" in texts[1]


def test_a_template_that_refuses_system_turns_says_how_to_go_without(tokenizer):
    tokenizer.chat_template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    with pytest.raises(ConfigError, match="system=None"):
        ConversationBuilder(tokenizer, 100).training_batch([PROMPT], [ANSWER], 1)
    batch = ConversationBuilder(tokenizer, 100, system=None).training_batch([PROMPT], [ANSWER], 1)
    assert ANSWER in supervised_text(tokenizer, batch)


def test_a_tokenizer_without_any_template_is_refused(llama):
    tokenizer = AutoTokenizer.from_pretrained(llama)
    tokenizer.chat_template = None
    with pytest.raises(ConfigError, match="no chat template"):
        ConversationBuilder(tokenizer, 100)
