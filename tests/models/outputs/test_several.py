"""Answers that hold text, indices of objects and masks at once."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate

from llmdet.datasets.masks import decode_mask, encode_mask
from llmdet.datasets.sample import Regions
from llmdet.datasets.transforms import MakeViews, PackViews
from llmdet.errors import ConfigError
from llmdet.models.outputs.mask import MaskAnswer
from llmdet.prompts.conversation import Conversation, Turn, ask
from llmdet.prompts.objects import ObjectAnswer
from llmdet.registry import MODELS
from llmdet.testing.region_models import TINY_SAM, tiny_region_lmm
from llmdet.testing.saying import saying

SIZE = (30, 40)
LEFT = np.zeros(SIZE, bool)
LEFT[:, :20] = True
HALVES = Regions(
    np.array([[0, 0, 20, 30], [20, 0, 40, 30]], np.float32),
    (encode_mask(LEFT), encode_mask(~LEFT)),
)
INDEX = {"type": "ObjectIndex", "count": 3}
MASK = {"type": "Mask", "tower": "sam", "decoder": {"type": "MaskDecoder", "model": TINY_SAM}}
ANSWERS = (
    "a red half",
    "<ground>white half</ground><objects><obj1></objects><mask:1>",
    "<p>red</p><mask:0>, <p>white</p><mask:1>",
)
QUESTIONS = ("What is <region:0>?", "Which is right of it?", "Describe the image with masks.")


def settings_of(qwen, *outputs):
    settings = tiny_region_lmm(qwen, talk={"max_length": 600, "max_new_tokens": 60, "system": None})
    settings["towers"]["sam"] = {"type": "SamTower", "model": TINY_SAM, "frozen": False}
    settings["output"] = {"type": "SeveralOutputs", "outputs": list(outputs)}
    return settings


@pytest.fixture(scope="module")
def model(qwen):
    torch.manual_seed(0)
    return MODELS.build(settings_of(qwen, INDEX, MASK))


def batch_of(model, conversation):
    image = np.empty((*SIZE, 3), np.uint8)
    image[:, :20], image[:, 20:] = (0, 0, 255), (255, 255, 255)
    fields = {"img": image, "ori_shape": SIZE, "regions": HALVES, "conversations": [conversation]}
    made = MakeViews(model.view_settings()).transform(fields)
    return model.data_preprocessor(pseudo_collate([PackViews().transform(made)]), True)


def turns(answers=()):
    said = []
    for number, question in enumerate(QUESTIONS[: len(answers) + 1]):
        said.append(Turn("user", question))
        if number < len(answers):
            said.append(Turn("assistant", answers[number], learned=True))
    return Conversation(tuple(said))


def test_one_conversation_learns_text_indices_and_masks(model):
    whole = model.output.introduce(turns(ANSWERS), len(HALVES))
    assert whole.turns[0].text.startswith(
        "<image>\n<obj0><region:0><obj1><region:1>\nWhat is <obj0>"
    )
    data = batch_of(model, whole)
    losses = model.loss(**data)
    assert set(losses) == {"loss_lmm", "loss_mask", "loss_dice"}
    assert model.output.counts(model._tokenized(data["data_samples"][0]), model.lmm.tokenizer) == {
        "mask": 3
    }
    sum(losses.values()).backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert all(p.grad is not None for p in trained)
    model.zero_grad()


def test_one_conversation_says_text_indices_and_masks(model):
    data = batch_of(model.eval(), model.output.introduce(turns(ANSWERS), len(HALVES)))
    seen = model.look(data["inputs"])
    written = [model.output.write(answer) for answer in ANSWERS]
    said = []
    for number, text in enumerate(written):
        opened = model.output.introduce(turns(written[:number]), len(HALVES))
        with saying(text):
            ((answer,),) = model.answer(seen, data["data_samples"], [[opened]])
        said.append(answer)
    assert [str(answer) for answer in said] == written
    text, index, caption = said
    assert not text.part(MaskAnswer).masks
    assert not text.part(ObjectAnswer).phrases
    (named,) = index.part(ObjectAnswer).phrases
    assert (named.phrase, named.indices) == ("white half", (1,))
    assert len(index.part(MaskAnswer).masks) == 1
    masks = caption.part(MaskAnswer)
    assert masks.said.phrases == ("red", "white")
    assert [decode_mask(mask, SIZE).shape for mask in masks.masks] == [SIZE, SIZE]
    assert index.part(str) is None


def test_how_it_writes_is_sent_to_workers_and_compared_by_value(qwen, model):
    write = model.output.write
    assert pickle.loads(pickle.dumps(write)) == write
    assert write("<g>a</g><o><obj1></o> <mask>") == (
        "<ground>a</ground><objects><obj1></objects> [SEG]"
    )
    other = MODELS.build(settings_of(qwen, {**INDEX, "delimiters": "g"}, MASK))
    assert other.output.write != write


def test_what_has_no_mask_costs_none(model):
    losses = model.loss(**batch_of(model, ask("<image>\nWhat is it?", "Two halves.")))
    assert losses["loss_mask"] == losses["loss_dice"] == 0


@pytest.mark.parametrize(
    ("outputs", "message"), [((), "give at least one"), ((MASK, MASK), r"same tokens \['</p>'")]
)
def test_outputs_that_do_not_go_together_are_refused(qwen, outputs, message):
    with pytest.raises(ConfigError, match=message):
        MODELS.build(settings_of(qwen, *outputs))
