"""One model and one conversation: regions in of every kind, text, indices and masks out."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DefaultScope

from llmdet.apis.region_chat import RegionChat
from llmdet.datasets.masks import decode_mask
from llmdet.datasets.toy.__main__ import main
from llmdet.datasets.toy.masks import MaskedObjects
from llmdet.datasets.toy.writer import read_scenes
from llmdet.models.regions.any_region import MASK, QUERY, ROI
from llmdet.models.transformer.boxes import cxcywh_to_xyxy
from llmdet.registry import DATASETS, MODELS
from llmdet.testing.saying import saying
from llmdet.testing.toy_sam import train_sam

CONFIGS = Path(__file__).parents[2] / "configs"
ANSWERS = (
    "red circle",
    "<ground>blue ring</ground><objects><obj2></objects><mask:2>",
    "<p>red circle</p><mask:0>, <p>blue ring</p><mask:2>.",
)
QUESTIONS = (
    "What is <region:0>?",
    "Which of these is left of <region:1>? Answer with its index and its mask.",
    "Describe the image with masks.",
)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unified")
    toy = folder / "toy"
    sizes = ["--train", "4", "--val", "1", "--no-photographs"]
    main([str(toy), *sizes, "--masks"])
    train_sam(toy, folder / "sam", seed=0, steps=1, batch_size=2)
    moved = Config.fromfile(CONFIGS / "unified" / "all_heads.py")
    moved.model.towers.eye.weights = None
    moved.model.towers.eye.detector.language_model.name = str(toy / "bert")
    moved.model.lmm.model = str(toy / "mask_language_model")
    moved.model.towers.sam.model = str(folder / "sam")
    moved.model.output.outputs[1].decoder.model = str(folder / "sam")
    moved.train_dataloader.dataset.data_root = str(toy)
    return moved


@pytest.fixture(scope="module")
def model(config):
    torch.manual_seed(0)
    return MODELS.build(config.model).eval()


@pytest.fixture(scope="module")
def regions(config, model):
    """A picture with the box of an object query, another box, and the mask of an object."""
    toy = Path(config.train_dataloader.dataset.data_root)
    scene = next(read_scenes(toy, "train"))
    file = toy / "images" / "train" / "000000.jpg"
    chat = RegionChat(model)
    seen = chat._look(file).seen["eye"]
    found = cxcywh_to_xyxy(seen.query_boxes[0])
    sides = torch.tensor([scene.width, scene.height] * 2)
    whole = found[(found[:, 2:] - found[:, :2]).prod(1).argmax()].clamp(0, 1) * sides
    row = MaskedObjects.of_scene(scene).regions()[0]
    boxes = [whole.tolist(), [1.0, 1.0, 3.0, scene.height - 1.0], None]
    return file, boxes, [None, None, row["segmentation"]]


def test_rows_of_the_toy_set_are_what_it_learns_from(config, model):
    settings = config.train_dataloader.dataset.to_dict()
    for step in settings["pipeline"]:
        if step["type"] == "MakeViews":
            step["settings"] = model.view_settings()
        if step["type"] == "TokenizeConversations":
            step["settings"] = model.conversation_settings()
    with DefaultScope.overwrite_default_scope("llmdet"):
        dataset = DATASETS.build(settings)
        batch = pseudo_collate([dataset[number] for number in range(4)])
    model.train()
    losses = model.loss(**model.data_preprocessor(batch, True))
    model.eval()
    assert set(losses) == {"loss_lmm", "loss_mask", "loss_dice"}
    sum(losses.values()).backward()
    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    assert {name.partition(".")[0] for name, _ in trained} == {"lmm", "filler", "output"}
    assert all(p.grad is not None for _, p in trained)
    model.zero_grad()


def test_one_conversation_has_every_kind_of_region_and_of_answer(model, regions, monkeypatch):
    file, boxes, masks = regions
    talk = RegionChat(model).talk(file, boxes, masks)
    written = [model.output.write(answer) for answer in ANSWERS]
    read = []
    kinds = model.filler.encoders["region"].kinds
    monkeypatch.setattr(
        model.filler.encoders["region"],
        "kinds",
        lambda seen, batch: read.append(kinds(seen, batch)) or read[-1],
    )
    with saying(*written):
        for question, answer in zip(QUESTIONS, written, strict=True):
            assert talk.ask(question) == answer
    assert read == [[QUERY, ROI, MASK]] * 3
    assert talk.named == {2: "blue ring"}
    assert [said.phrase for said in talk.masks] == ["blue ring", "red circle", "blue ring"]
    height, width = cv2.imread(str(file)).shape[:2]
    assert decode_mask(talk.masks[0].mask, (height, width)).shape == (height, width)
    row = talk.to_row()
    assert [turn["value"] for turn in row["conversations"][1::2]] == [
        ANSWERS[0],
        ANSWERS[1].replace("<mask:2>", "<mask:3>"),
        ANSWERS[2].replace("<mask:0>", "<mask:4>").replace("<mask:2>", "<mask:5>"),
    ]
    assert len(row["regions"]) == 6
    assert np.asarray(talk.plot()).ndim == 3


@pytest.mark.parametrize(
    "name", ["unified/all_heads", "quickstart/retrieval", "quickstart/region_lmm"]
)
def test_a_training_without_tests_of_its_own_names_no_loop_for_them(name):
    config = Config.fromfile(CONFIGS / f"{name}.py")
    for stage in ("val", "test"):
        given = {config.get(f"{stage}_{part}") for part in ("cfg", "dataloader", "evaluator")}
        assert given == {None}
