"""Recordings of GLaMM's text: questions as asked, answers as read, conversations as token ids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from llmdet.datasets.views import SAM_MEAN, SAM_STD, ViewSettings, make_view
from llmdet.errors import ConfigError, DataError
from llmdet.models.vision.views import collate_views
from llmdet.prompts.conversation import (
    IGNORE_INDEX,
    Conversation,
    ConversationSettings,
    TokenizedConversation,
    Turn,
)
from llmdet.prompts.conversation_tokens import ConversationTokenizer
from llmdet.prompts.masks import ask_as_glamm, read_as_glamm
from llmdet.prompts.tokenizers import load_tokenizer
from llmdet.testing.parity.model import read_json, read_tensors
from llmdet.testing.parity.rows import Row, compare_exact, compare_recorded

IMAGE_ID, REGION_TOKEN = -200, "<bbox>"
#: What stands around images, and in front of every first question.
AROUND = (("image", "<im_start>", "<im_end>"),)
INTRODUCTION = "The <image> provides an overview of the picture.\n"
SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the human's questions."
)
REGION_QUESTION = (
    "Can you provide me with a detailed description of the region in the picture marked by <bbox>?"
)
#: Tokens of an image, in whose place recorded ids have one.
IMAGE_TOKENS = 576


def check(folder: Path) -> Iterator[Row]:
    """Compare what a folder records of GLaMM's evaluation."""
    recorded = read_json(folder / "expected.json")
    for number, case in enumerate(recorded["postprocess"]):
        caption, phrases = read_as_glamm(case["decoded"])
        yield compare_exact(f"answer {number}/gcg_caption", case["gcg_caption"], caption)
        yield compare_exact(f"answer {number}/region_caption", case["region_caption"], caption)
        yield compare_exact(f"answer {number}/phrases", case["gcg_phrases"], list(phrases))
    converse = converser(tokenizer_of(folder))
    region = converse.tokenizer.convert_tokens_to_ids(REGION_TOKEN)
    for number, case in enumerate(recorded["prompts"]):
        question = ask_as_glamm(case["instruction"])
        yield _asked(f"prompt {number}", case, question, converse, region)
    for number, case in enumerate(recorded["region_boxes"]):
        yield _asked(f"box {number}", case, REGION_QUESTION, converse, region)
        height, width = case["orig_hw"]
        box = np.array(case["box_xyxy"]) / np.array([width, height, width, height])
        rounded = torch.tensor(box)[None].half().bfloat16().float()
        yield compare_exact(f"box {number}/place", case["bboxes_given_to_model"], rounded.tolist())
    yield from _pixels(folder, recorded["prompts"][0])


def tokenizer_of(folder: Path) -> Path:
    """The tokenizer that all recordings of GLaMM share: it lies in one of them, or beside it.

    Raises:
        DataError: there is none.
    """
    for place in (folder / "tokenizer", folder.parent / "text_pipeline" / "tokenizer"):
        if place.is_dir():
            return place
    raise DataError(
        f"{folder} records token ids, but neither it nor the folder text_pipeline beside it has "
        "the tokenizer; copy it there"
    )


def converser(tokenizer: Path, max_length: int = 1 << 20, image: int = 1) -> ConversationTokenizer:
    """Conversations as the original writes them; an image has as many tokens as ``image`` says."""
    settings = ConversationSettings(
        str(tokenizer),
        slots=(("image", image), ("region", 1)),
        max_length=max_length,
        system=SYSTEM,
        any_kinds=True,
        template="vicuna",
        answers_only=True,
        around=AROUND,
        legacy_blanks=True,
    )
    return ConversationTokenizer(load_tokenizer(str(tokenizer), role="tokenizer"), settings)


def parse(text: str) -> Conversation:
    """A conversation from its text in the original's template, with our marks of regions."""
    system, _, rest = text.replace(REGION_TOKEN, "<region>").partition(" USER: ")
    for _, before, behind in AROUND:
        rest = rest.replace(before, "").replace(behind, "")
    turns = [Turn("system", system)]
    for round_ in filter(None, rest.split("</s>")):
        question, _, answer = round_.removeprefix("USER: ").partition(" ASSISTANT:")
        turns.append(Turn("user", question))
        if answer:
            turns.append(Turn("assistant", answer.removeprefix(" "), learned=True))
    return Conversation(tuple(turns))


def original_ids(tokens: TokenizedConversation, region: int) -> list[int]:
    """Ids with the original's in place of slots of one token."""
    ids = tokens.ids.copy()
    for slot in tokens.slots:
        ids[slot.start] = IMAGE_ID if slot.kind == "image" else region
    return ids.tolist()


def conversations(folder: Path) -> Iterator[Row]:
    """Compare conversations of a folder, as text and as token ids, with what is learned of them."""
    converse = converser(tokenizer_of(folder))
    region = converse.tokenizer.convert_tokens_to_ids(REGION_TOKEN)
    for number, case in enumerate(read_json(folder / "expected_collate.json")):
        name = case.get("case", f"batch {number}")
        if name.startswith("truncated"):
            yield _cut(name, case, folder)
        elif "raises" in case:  # where the original gives up, we need not
            tokens = converse(parse(case["conversations"][0]))
            yield compare_exact(f"{name}/learned", True, bool((tokens.labels >= 0).any()))
        else:
            yield from _batch(name, case, converse, region)
    for number, case in enumerate(read_json(folder / "expected_region_refer_conversations.json")):
        yield _written(f"{case['kind']} {number}", case, converse)


def _batch(
    name: str, case: Mapping[str, Any], converse: ConversationTokenizer, region: int
) -> Iterator[Row]:
    texts = case["conversations"]
    tokens = [converse(parse(text)) for text in texts]
    masks = [[1] * len(each.ids) for each in tokens]
    rows = {
        "input_ids": ([original_ids(each, region) for each in tokens], converse.pad_id),
        "labels": ([each.labels.tolist() for each in tokens], IGNORE_INDEX),
        "attention_masks": (masks, 0),
    }
    for key, (ours, fill) in rows.items():
        yield compare_exact(f"{name}/{key}", case[key], _padded(ours, fill))


def _cut(name: str, case: Mapping[str, Any], folder: Path) -> Row:
    """Of a question too long for any answer the original keeps a part; we say so instead."""
    longest = len(case["input_ids"][0]) + IMAGE_TOKENS - 1
    learned = any(label >= 0 for label in case["labels"][0])
    try:
        converser(tokenizer_of(folder), longest, IMAGE_TOKENS)(parse(case["conversations"][0]))
    except ConfigError:
        return compare_exact(f"{name}/learned", learned, False)
    return compare_exact(f"{name}/learned", learned, True)


def _written(name: str, case: Mapping[str, Any], converse: ConversationTokenizer) -> Row:
    """Recorded questions, and the answers to them, as one text."""
    answers = [turn.text for turn in parse(case["conversation"]).turns if turn.learned]
    asked = [*case["questions"], *_single_questions(case, len(answers))]
    asked[0] = case.get("begin_str", INTRODUCTION) + asked[0]
    messages = [{"role": "system", "content": SYSTEM}]
    for question, answer in zip(asked, answers, strict=True):
        messages += [{"role": "user", "content": question}]
        messages += [{"role": "assistant", "content": answer}]
    text = converse.tokenizer.apply_chat_template(
        messages, chat_template=converse.template, tokenize=False
    )
    return compare_exact(name, converse.tokenizer.bos_token + case["conversation"], text)


def _single_questions(case: Mapping[str, Any], count: int) -> list[str]:
    """Questions about one region each, which are not recorded where one about all is before."""
    turns = parse(case["conversation"]).turns
    said = [turn.text for turn in turns if turn.role == "user"]
    return [each.replace("<region>", REGION_TOKEN) for each in said[len(case["questions"]) : count]]


def _asked(
    name: str,
    case: Mapping[str, Any],
    question: str,
    converse: ConversationTokenizer,
    region: int,
) -> Row:
    text = (INTRODUCTION + question).replace(REGION_TOKEN, "<region>")
    tokens = converse(Conversation((Turn("user", text),)))
    return compare_exact(f"{name}/input_ids", case["input_ids"], [original_ids(tokens, region)])


def _pixels(folder: Path, case: Mapping[str, Any]) -> Iterator[Row]:
    """What both towers see of a picture, in 16 bits."""
    picture = read_tensors(folder / "inputs.pt")["image_rgb_uint8_hwc"].numpy()
    colours = np.ascontiguousarray(picture[..., ::-1])
    height, width = case["clip_shape"][-2:]
    side = max(case["resize"][0])
    settings = {
        "clip": ViewSettings((height, width), fit="crop"),
        "sam": ViewSettings(
            (side, side),
            centred=False,
            mean=SAM_MEAN,
            std=SAM_STD,
            interpolation="bilinear",
            padding="zero",
        ),
    }
    found = {
        f"{name}_pixel_values(bf16->fp32)": collate_views([make_view(colours, each)]).pixels
        for name, each in settings.items()
    }
    rounded = {name: pixels.bfloat16().float() for name, pixels in found.items()}
    expected = read_tensors(folder / "expected.pt")
    yield from compare_recorded(expected, lambda name, _: rounded.get(name))


def _padded(rows: Sequence[Sequence[int]], fill: int) -> list[list[int]]:
    longest = max(map(len, rows))
    return [[*row, *[fill] * (longest - len(row))] for row in rows]
