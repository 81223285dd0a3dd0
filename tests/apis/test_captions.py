"""Captions from the inferencer and the demo, of a tiny LLMDet."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from llmdet import Detector
from llmdet.apis.reading import parse_boxes
from llmdet.checkpoint import read_checkpoint, write_checkpoint
from llmdet.checkpoint.load import is_language_key
from llmdet.errors import CheckpointError, ConfigError, DataError
from llmdet.utils.config import load_config

NAMES = ["red circle", "dog"]
SHORT = {"captions": True, "generation": {"max_new_tokens": 4}}


def test_weights_without_a_language_part_cannot_give_captions(taught, tmp_path):
    weights = read_checkpoint(taught.weights).state_dict
    detector = {key: value for key, value in weights.items() if not is_language_key(key)}
    write_checkpoint(tmp_path / "mm.pth", detector)
    with pytest.raises(CheckpointError, match="Captions need weights that were trained with"):
        Detector.from_pretrained(taught.config, tmp_path / "mm.pth", device="cpu", captions=True)


def test_what_training_may_begin_anew_must_be_there_for_captions(taught, tmp_path):
    config = load_config(taught.config)
    config.load_missing = ["lmm", "image_captioner", "region_captioner"]
    weights = read_checkpoint(taught.weights).state_dict
    detector = {key: value for key, value in weights.items() if not is_language_key(key)}
    write_checkpoint(tmp_path / "mm.pth", detector)
    with pytest.raises(CheckpointError, match="Captions need weights"):
        Detector.from_pretrained(config, tmp_path / "mm.pth", device="cpu", captions=True)


def test_images_and_shown_boxes_are_described(describe, photos):
    everything = describe.predict(photos, NAMES, threshold=0, **SHORT)
    limit = float(everything[0].scores[4])
    result = describe.predict(photos, NAMES, threshold=limit, **SHORT)
    for shown, every in zip(result, everything, strict=True):
        assert shown.description == every.description != ""
        assert len(shown.captions) == len(shown) <= len(every)
        # a box says the same whether or not others are described
        assert shown.captions == every.captions[: len(shown)]
    assert result[0][0].caption == result[0].captions[0]


def test_either_kind_of_captions_can_be_had_alone(describe, photos):
    session = describe.set_image(photos / "cat.jpg")
    image = session.predict(NAMES, **{**SHORT, "captions": {"image"}})
    regions = session.predict(NAMES, threshold=0, **{**SHORT, "captions": "regions"})
    assert image.description
    assert image.captions is None
    assert regions.description is None
    assert len(regions.captions) == len(regions)
    plain = session.predict(NAMES)
    assert plain.description is plain.captions is None
    with pytest.raises(ConfigError, match="captions has 'boxes': choose True, False"):
        session.predict(NAMES, captions=["boxes"])


def test_captions_cost_no_second_run_of_the_detector(describe, photos, monkeypatch):
    runs = []
    extract = describe.model.extract_feat
    monkeypatch.setattr(
        describe.model, "extract_feat", lambda images: runs.append(len(images)) or extract(images)
    )
    describe.predict(photos / "cat.jpg", NAMES, **SHORT)
    assert runs == [1]


def test_captions_do_not_depend_on_the_batch(describe, photos):
    one, all_at_once = (
        describe.predict(photos, NAMES, threshold=0, batch_size=size, **SHORT) for size in (1, 3)
    )
    for first, second in zip(one, all_at_once, strict=True):
        assert first.description == second.description
        assert first.captions == second.captions


def test_given_boxes_are_described_and_have_no_score(describe, photos, tmp_path):
    boxes = np.array([[10, 10, 100, 90], [0, 0, 200, 140]], dtype=np.float32)
    generation = SHORT["generation"]
    found = describe.predict(photos / "cat.jpg", boxes=boxes, generation=generation)
    assert found.boxes.tolist() == boxes.tolist()
    assert found.names == ["region", "region"]
    assert found.scores is None  # nobody has judged these boxes
    assert found[0].score is None
    assert len(found.captions) == 2
    assert "scores" not in found.to_dict()
    assert "score" not in found.to_coco(1)[0]
    found.save(tmp_path / "cat.png")
    images = [photos / "cat.jpg", photos / "coffee.png"]
    each = describe.predict(images, boxes=[boxes, boxes[:1]], generation=generation, batch_size=2)
    assert [len(result) for result in each] == [2, 1]
    assert each[0].captions == found.captions


def test_a_box_outside_the_image_is_refused(describe, photos):
    boxes = np.array([[10, 10, 100, 90], [300, 10, 400, 90]], dtype=np.float32)
    sentence = r"\[300.0, 10.0.*outside .*cat\.jpg, which has 225 x 150"
    with pytest.raises(DataError, match=sentence):
        describe.predict(photos / "cat.jpg", boxes=boxes)
    with pytest.raises(DataError, match=sentence):
        describe.set_image(photos / "cat.jpg").predict(boxes=boxes)


def test_sampling_is_reproducible_by_the_seed(describe, photos):
    options = {"do_sample": True, "temperature": 2.0, "max_new_tokens": 8}
    texts = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found = describe.predict(photos / "cat.jpg", NAMES, captions="image", generation=options)
        texts.append(found.description)
    assert texts[0] == texts[1] != texts[2]


def test_detections_are_those_of_the_detector_without_language_model(taught, describe, photos):
    plain = Detector.from_pretrained(taught.config, taught.weights, device="cpu")
    assert not any("lmm" in name for name, _ in plain.model.named_parameters())
    image = photos / "astronaut.png"
    told = describe.predict(image, NAMES, threshold=0, **SHORT).to_dict()
    found = plain.predict(image, NAMES, threshold=0).to_dict()
    assert set(told) - set(found) == {"captions", "description"}
    assert all(told[key] == value for key, value in found.items())


def test_captions_of_a_model_without_language_model_are_refused(tiny):
    with pytest.raises(ConfigError, match=r"model\.lmm is None or missing"):
        Detector.from_pretrained(tiny.config, tiny.weights, device="cpu", captions=True)


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
