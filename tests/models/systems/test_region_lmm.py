"""Region language models: what they learn from, and what they answer."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from PIL import Image

from llmdet.apis.region_chat import RegionChat
from llmdet.datasets.sample import Regions
from llmdet.datasets.transforms import MakeViews, PackViews
from llmdet.engine.runner import Runner
from llmdet.errors import ConfigError, DataError
from llmdet.models.accumulation import accumulating
from llmdet.models.systems.region_lmm import without_answer
from llmdet.prompts.conversation import Conversation, Turn
from llmdet.registry import MODELS
from llmdet.testing.region_models import tiny_region_lmm

QUESTION = "What colour is <region>?"
COLOURS = {"red": (0, 0, 255), "blue": (255, 0, 0)}  # blue first, as pictures are decoded
SIZE = (30, 40)
LEFT, RIGHT = [0.0, 0, 20, 30], [20.0, 0, 40, 30]


@pytest.fixture
def model(qwen):
    return MODELS.build(tiny_region_lmm(qwen))


def picture(left, right):
    image = np.empty((*SIZE, 3), np.uint8)
    image[:, :20], image[:, 20:] = COLOURS[left], COLOURS[right]
    return image


def talk(*turns):
    roles = ("user", "assistant")
    said = [Turn(roles[n % 2], text, learned=n % 2 == 1) for n, text in enumerate(turns)]
    return Conversation(tuple(said))


def sample(left, right, *conversations, boxes=(LEFT, RIGHT), masks=None):
    regions = Regions(np.array(boxes, np.float32).reshape(-1, 4), masks)
    image = picture(left, right)
    return {"img": image, "ori_shape": SIZE, "regions": regions, "conversations": conversations}


def batch_of(model, *samples):
    views = MakeViews(model.view_settings())
    packed = [PackViews().transform(views.transform(dict(each))) for each in samples]
    return model.data_preprocessor(pseudo_collate(packed), True)


BOTH = talk(f"<image>\n{QUESTION}", "red", "And <region>?", "blue")
IMAGE_ONLY = talk("<image>\nWhat is it?", "two colours")


def test_a_batch_costs_the_mean_over_the_tokens_of_its_samples(model):
    samples = [sample("red", "blue", BOTH), sample("blue", "red", IMAGE_ONLY, IMAGE_ONLY)]
    whole = model.loss(**batch_of(model, *samples))["loss_lmm"]
    learned = [model.count_step([batch_of(model, each)["data_samples"]]) for each in samples]
    counts = [totals.learned["conversation"] for totals in learned]
    parts = [model.loss(**batch_of(model, each))["loss_lmm"] for each in samples]
    expected = (parts[0] * counts[0] + parts[1] * counts[1]) / sum(counts)
    torch.testing.assert_close(whole, expected)
    batches = [batch_of(model, each) for each in samples]
    with accumulating(model.count_step([each["data_samples"] for each in batches])):
        micro = [model.loss(**each)["loss_lmm"] for each in batches]
    torch.testing.assert_close((micro[0] + micro[1]) / 2, whole)


@pytest.mark.parametrize("conversations", [(BOTH,), (IMAGE_ONLY,), ()])
def test_every_part_that_trains_has_a_gradient_whatever_is_spoken_of(model, conversations):
    model.train()
    model.loss(**batch_of(model, sample("red", "blue", *conversations)))["loss_lmm"].backward()
    missing = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []
    moved = {
        n.split(".")[0] for n, p in model.named_parameters() if p.grad is not None and p.grad.any()
    }
    assert moved == ({"towers", "filler", "lmm"} if conversations else set())
    assert not any(p.grad is not None for p in model.towers["clip"].tower.parameters())


def test_a_mark_stands_for_its_region_wherever_and_how_often_it_is_written(model):
    def features(conversation, **changes):
        made = batch_of(model, sample("red", "blue", conversation, **changes))
        tokens = [[model.conversations(conversation)]]
        return model.filler(model.look(made["inputs"]), made["data_samples"], tokens)["region"]

    first, second = features(BOTH)
    assert not torch.allclose(first, second, atol=1e-3)
    turned = talk("<image>\n<region:1> or <region:0> or <region:1>?", "both")
    torch.testing.assert_close(features(turned), torch.stack([second, first, second]))
    polygon = [[0, 0, 20, 0, 20, 30, 0, 30]]
    masks = features(BOTH, masks=(polygon, None))
    torch.testing.assert_close(masks, torch.stack([first, second]), rtol=0, atol=1e-4)


def test_a_mark_without_its_region_is_named(model):
    made = batch_of(model, sample("red", "blue", BOTH, boxes=[LEFT]))
    with pytest.raises(DataError, match=r"marks region 1 .* but the sample has 1"):
        model.loss(**made)


@pytest.mark.parametrize(
    ("slots", "message"),
    [
        ({"image": {"tower": "sam", "encoder": {}}}, "'sam' is none of model.towers: clip"),
        ({"video": {"tower": "clip", "encoder": {}}}, "kind 'video'"),
        ({"image": {"tower": "clip", "encoder": {}, "connector": "region"}}, "names no kind"),
        ({"image": {"tower": "clip", "encoders": {}}}, "unknown key 'encoders'"),
    ],
)
def test_slots_that_cannot_be_filled_are_named(qwen, slots, message):
    with pytest.raises(ConfigError, match=message):
        MODELS.build(tiny_region_lmm(qwen, slots=slots))


def test_pictures_in_one_batch_are_answered_as_each_by_itself(model):
    """Of other sizes, numbers of regions and lengths of questions, with masks and without."""
    polygon = [[0, 0, 20, 0, 20, 30, 0, 30]]
    samples = [
        sample("red", "blue", talk(f"<image>\n{QUESTION}")),
        sample("blue", "red", talk("<image>\nWhat is it?"), boxes=()),
        sample("blue", "blue", BOTH, masks=(polygon, None)),
        sample("red", "red", talk("<image>\n<region:1> or <region:0>?"), IMAGE_ONLY),
    ]
    samples[1] |= {"img": np.zeros((12, 50, 3), np.uint8), "ori_shape": (12, 50)}
    options = {"max_new_tokens": 8, "min_new_tokens": 8}

    def said(*chosen):
        made = model.eval().predict(**batch_of(model, *chosen), **options)
        return [each.get("pred_text") or each.get("pred_phrases") for each in made]

    together = said(*samples)
    assert together == [said(each)[0] for each in samples]
    assert len({str(answer) for answer in together}) > 1
    assert len(together[3]) == 2
    made = batch_of(model, samples[2])
    regions = model.predict(**made)[0].pred_instances
    assert regions.bboxes.tolist() == [LEFT, RIGHT]


@pytest.fixture(scope="module")
def conversation_set(tmp_path_factory):
    """Pictures of two halves, and a conversation about each."""
    folder = tmp_path_factory.mktemp("halves")
    rows = []
    for number, (left, right) in enumerate([("red", "blue"), ("blue", "red")] * 4):
        Image.fromarray(picture(left, right)[..., ::-1]).save(folder / f"{number}.png")
        said = [("human", QUESTION), ("gpt", left), ("human", "And <region>?"), ("gpt", right)]
        rows.append(
            {
                "filename": f"{number}.png",
                "height": SIZE[0],
                "width": SIZE[1],
                "regions": [{"bbox": LEFT}, {"bbox": RIGHT}],
                "conversations": [{"from": who, "value": text} for who, text in said],
            }
        )
    text = "\n".join(json.dumps(row) for row in rows) + "\n"
    (folder / "train.jsonl").write_text(text)
    return folder


def training(qwen, folder: Path, work_dir: Path) -> Config:
    pipeline = ["LoadImageFromFile", "TokenizeConversations", "MakeViews", "PackViews"]
    dataset = {
        "type": "ODVGDataset",
        "data_root": str(folder),
        "ann_file": "train.jsonl",
        "data_prefix": {"img": ""},
        "filter_cfg": {"filter_empty_gt": False},
        "pipeline": [{"type": kind} for kind in pipeline],
    }
    return Config(
        {
            "default_scope": "llmdet",
            "model": tiny_region_lmm(qwen),
            "work_dir": str(work_dir),
            "train_dataloader": {
                "dataset": dataset,
                "batch_size": 4,
                "num_workers": 0,
                "sampler": {"type": "InfiniteSampler", "shuffle": True},
            },
            "train_cfg": {"type": "IterBasedTrainLoop", "max_iters": 60, "val_interval": 100},
            "optim_wrapper": {
                "type": "OptimWrapper",
                "optimizer": {"type": "AdamW", "lr": 2e-3},
                "clip_grad": {"max_norm": 1.0},
            },
            "default_hooks": {"checkpoint": {"type": "CheckpointHook", "by_epoch": False}},
            "randomness": {"seed": 1},
            "experiment_name": "halves",
        }
    )


def test_the_runner_trains_it_and_it_answers(qwen, conversation_set, tmp_path):
    config = training(qwen, conversation_set, tmp_path)
    runner = Runner.from_cfg(config)
    runner.train()
    (tmp_path / "config.py").write_text(f"model = {tiny_region_lmm(qwen)!r}\n")
    chat = RegionChat.from_config(tmp_path / "config.py", tmp_path / "iter_60.pth", device="cpu")
    image = conversation_set / "1.png"  # blue, red
    assert chat.ask(image, QUESTION, [LEFT]) == "blue"
    array = np.asarray(Image.open(image))
    follows = chat.ask(array, "And <region>?", [LEFT, RIGHT], history=[(QUESTION, "blue")])
    assert follows == "red"
    mask = np.zeros(SIZE, bool)
    mask[:, 20:] = True
    assert chat.ask(array, QUESTION, masks=[mask]) == "red"
    assert len(chat.describe(image)) == 1
    assert len(chat.describe(image, [LEFT, RIGHT])) == 2
    assert [found.name for found in chat.classify(image, ["cat"], [LEFT, RIGHT])] == [None, None]
    made = batch_of(runner.model, sample("red", "blue", BOTH))
    answered = runner.model.eval()(**made, mode="predict")
    assert answered[0].pred_text == "blue"


def test_the_last_question_is_asked_whatever_was_said_before(model):
    history = Turn("assistant", "red"), Turn("user", "And <region>?")
    open_end = Conversation((Turn("user", f"<image>\n{QUESTION}"), *history))
    assert without_answer(open_end) == open_end
    answered = Conversation((*open_end.turns, Turn("assistant", "blue", learned=True)))
    assert without_answer(answered) == open_end
