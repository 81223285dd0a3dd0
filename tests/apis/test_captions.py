"""Captions from the inferencer and the demo, of a tiny LLMDet."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from llmdet.apis import LLMDetInferencer
from llmdet.apis.prompts import parse_boxes
from llmdet.checkpoint import read_checkpoint, write_checkpoint
from llmdet.checkpoint.load import is_language_key
from llmdet.datasets.toy.models import tiny_qwen
from llmdet.errors import CheckpointError, ConfigError, DataError
from llmdet.testing.demo import tiny_demo
from llmdet.utils.config import load_config

CLASSES = {"texts": "red circle . dog", "custom_entities": True}
SHORT = {"max_new_tokens": 4}


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """Config and weights of a tiny detector with a language model."""
    qwen = tiny_qwen(tmp_path_factory.mktemp("qwen"))
    made = tiny_demo(
        tmp_path_factory.mktemp("taught"),
        type="LLMDet",
        lmm={
            "type": "LanguageModel",
            "model": qwen,
            "dtype": "float32",
            "lora": {"r": 4},
            "region_attention": {"every": 2, "num_heads": 4},
        },
        image_captioner={"encoder": {"type": "GridCells", "grids": ((-2, 2), (-3, 3))}},
        region_captioner={},
    )
    # What training started from is not needed, and need not be there, afterwards.
    made.config.write_text(made.config.read_text() + "model['connector'] = 'work_dirs/gone.pth'\n")
    return made


@pytest.fixture(scope="module")
def describe(taught):
    return LLMDetInferencer(taught.config, taught.weights, "cpu", captions=True)


def test_weights_without_a_language_part_cannot_give_captions(taught, tmp_path):
    weights = read_checkpoint(taught.weights).state_dict
    detector = {key: value for key, value in weights.items() if not is_language_key(key)}
    write_checkpoint(tmp_path / "mm.pth", detector)
    with pytest.raises(CheckpointError, match="Captions need weights that were trained with"):
        LLMDetInferencer(taught.config, tmp_path / "mm.pth", "cpu", captions=True)


def test_what_training_may_begin_anew_must_be_there_for_captions(taught, tmp_path):
    config = load_config(taught.config)
    config.load_missing = ["lmm", "image_captioner", "region_captioner"]
    weights = read_checkpoint(taught.weights).state_dict
    detector = {key: value for key, value in weights.items() if not is_language_key(key)}
    write_checkpoint(tmp_path / "mm.pth", detector)
    with pytest.raises(CheckpointError, match="Captions need weights"):
        LLMDetInferencer(config, tmp_path / "mm.pth", "cpu", captions=True)


def test_images_and_shown_boxes_are_described(describe, photos):
    result = describe(photos, **CLASSES, pred_score_thr=0.3, generation=SHORT)
    everything = describe(photos, **CLASSES, pred_score_thr=0.0, generation=SHORT)
    for shown, every in zip(result["predictions"], everything["predictions"], strict=True):
        assert shown["description"] == every["description"] != ""
        assert len(shown["captions"]) == len(shown["bboxes"]) <= len(every["bboxes"])
        # a box says the same whether or not others are described
        assert shown["captions"] == every["captions"][: len(shown["captions"])]


def test_captions_cost_no_second_run_of_the_detector(describe, photos, monkeypatch):
    runs = []
    extract = describe.model.extract_feat
    monkeypatch.setattr(
        describe.model, "extract_feat", lambda images: runs.append(len(images)) or extract(images)
    )
    describe(photos / "cat.jpg", **CLASSES, generation=SHORT)
    assert runs == [1]


def test_captions_do_not_depend_on_the_batch(describe, photos):
    one, all_at_once = (
        describe(photos, **CLASSES, pred_score_thr=0.0, generation=SHORT, batch_size=size)
        for size in (1, 3)
    )
    for first, second in zip(one["predictions"], all_at_once["predictions"], strict=True):
        assert first["description"] == second["description"]
        assert first["captions"] == second["captions"]


def test_given_boxes_are_described_and_drawn(describe, photos, tmp_path):
    boxes = np.array([[10, 10, 100, 90], [0, 0, 200, 140]], dtype=np.float32)
    result = describe(
        photos / "cat.jpg", **CLASSES, boxes=boxes, generation=SHORT, out_dir=tmp_path
    )
    (prediction,) = result["predictions"]
    assert prediction["bboxes"] == boxes.tolist()
    assert prediction["label_names"] == ["region", "region"]
    assert "scores" not in prediction  # nobody has judged these boxes
    assert len(prediction["captions"]) == 2
    saved = json.loads((tmp_path / "preds" / "cat.json").read_text())
    assert saved == prediction
    assert (tmp_path / "vis" / "cat.jpg").is_file()


def test_a_box_outside_the_image_is_refused(describe, photos):
    boxes = np.array([[10, 10, 100, 90], [300, 10, 400, 90]], dtype=np.float32)
    with pytest.raises(DataError, match=r"\[300.0, 10.0.*outside .*cat\.jpg, which has 225 x 150"):
        describe(photos / "cat.jpg", **CLASSES, boxes=boxes, generation=SHORT)


def test_sampling_is_reproducible_by_the_seed(describe, photos):
    options = {"do_sample": True, "temperature": 2.0, "max_new_tokens": 8}
    texts = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        result = describe(photos / "cat.jpg", **CLASSES, generation=options)
        texts.append(result["predictions"][0]["description"])
    assert texts[0] == texts[1] != texts[2]


def test_detections_are_those_of_the_detector_without_language_model(taught, describe, photos):
    plain = LLMDetInferencer(taught.config, taught.weights, "cpu")
    assert not any("lmm" in name for name, _ in plain.model.named_parameters())
    image = photos / "astronaut.png"
    taught_result = describe(image, **CLASSES, pred_score_thr=0.0, generation=SHORT)["predictions"][
        0
    ]
    plain_result = plain(image, **CLASSES, pred_score_thr=0.0)["predictions"][0]
    assert set(taught_result) - set(plain_result) == {"captions", "description"}
    assert all(taught_result[key] == value for key, value in plain_result.items())


def test_captions_of_a_model_without_language_model_are_refused(tiny):
    with pytest.raises(ConfigError, match=r"model\.lmm is None or missing"):
        LLMDetInferencer(tiny.config, tiny.weights, "cpu", captions=True)


def test_boxes_without_captions_are_refused(detect, photos):
    with pytest.raises(ConfigError, match="captions=True"):
        detect(photos / "cat.jpg", **CLASSES, boxes=np.ones((1, 4)))


@pytest.mark.parametrize("text", ["dog", "[1, 2, 3, 4]", "[[1, 2, 3]]", "[['a', 2, 3, 4]]", "{}"])
def test_what_is_no_list_of_boxes_is_refused(text):
    with pytest.raises(ConfigError, match="no list of boxes"):
        parse_boxes(text)


def test_a_box_inside_out_is_refused():
    with pytest.raises(ConfigError, match="comes first"):
        parse_boxes("[[10, 10, 5, 20]]")
    assert parse_boxes("[[1, 2, 3.5, 4]]").tolist() == [[1, 2, 3.5, 4]]


def test_the_demo_prints_a_description_and_a_line_for_each_box(
    taught, photos, demo, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    shared = [str(photos / "cat.jpg"), str(taught.config), "--weights", str(taught.weights)]
    arguments = ["--device", "cpu", "--text", "dog . tree", "-c", "--max-new-tokens", "3"]
    demo.main([*shared, *arguments, "--caption", "--pred-score-thr", "0", "--print-result"])
    output = capsys.readouterr()
    prediction = json.loads(output.out)
    assert prediction["description"] in output.err
    named = zip(prediction["label_names"], prediction["captions"], strict=True)
    assert all(f"  {name}: {caption}" in output.err for name, caption in named)
    demo.main([*shared, *arguments, "--boxes", "[[10, 10, 100, 90]]", "--temperature", "0.7"])
    assert "  region: " in capsys.readouterr().err
