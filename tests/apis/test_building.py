"""From a config and weights to a detector."""

import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from llmdet import Detector
from llmdet.checkpoint import read_checkpoint, write_checkpoint
from llmdet.errors import CheckpointError, ConfigError
from llmdet.testing.models import tiny_grounding_dino

build = Detector.from_pretrained
NAMES = ["red circle", "dog", "tree"]


def test_weights_are_loaded_and_the_model_is_ready_for_inference(tiny, detector):
    state = torch.load(tiny.weights, weights_only=True)["state_dict"]
    ours = detector.model.state_dict()
    assert all(torch.equal(ours[key], value) for key, value in state.items())
    assert not detector.model.training


def test_upstream_weights_load_without_their_language_model(tiny, photos, tmp_path, detector):
    checkpoint = torch.load(tiny.weights, weights_only=True)
    language = (
        "lmm.model.layers.0.self_attn.q_proj.ori_model.weight",
        "lmm.model.layers.0.self_attn.q_proj.lora_A.weight",
        "lmm.model.layers.0.corss_attn_norm.weight",
        "connector.vision_projector.0.0.weight",
        "region_connector.pos_proj.bias",
        "image_seperate.weight",
        "ref_point_head.layers.0.weight",
    )
    checkpoint["state_dict"].update({key: torch.ones(2, 2) for key in language})
    torch.save(checkpoint, tmp_path / "upstream.pth")
    upstream = build(tiny.config, tmp_path / "upstream.pth", device="cpu")
    found, expected = (
        each.predict(photos / "cat.jpg", NAMES, threshold=0) for each in (upstream, detector)
    )
    assert len(found)
    assert found.to_dict() == expected.to_dict()


def test_missing_detector_weights_are_named(tiny, tmp_path):
    checkpoint = torch.load(tiny.weights, weights_only=True)
    for key in ("level_embed", "query_embedding.weight"):
        del checkpoint["state_dict"][key]
    torch.save(checkpoint, tmp_path / "poor.pth")
    with pytest.raises(CheckpointError, match=r"level_embed|query_embedding"):
        build(tiny.config, tmp_path / "poor.pth", device="cpu")


def test_an_empty_test_cfg_is_as_good_as_none_and_another_value_is_refused(tiny):
    detector = build(
        tiny.config, tiny.weights, device="cpu", cfg_options={"model.test_cfg": {}}, dtype="float32"
    )
    assert detector.model.test_cfg.limit_per == "image"
    with pytest.raises(ConfigError, match=r"model\.test_cfg=3 must be a dict"):
        build(tiny.config, tiny.weights, device="cpu", cfg_options={"model.test_cfg": 3})


def test_a_model_that_answers_questions_is_no_detector(tiny):
    with pytest.raises(ConfigError, match="answers questions and is no detector"):
        build("configs/glamm/gcg.py", tiny.weights, device="cpu")


def test_missing_weights_are_noticed_before_the_model_is_built(tiny, monkeypatch):
    monkeypatch.setattr("llmdet.apis.building.MODELS", None)
    with pytest.raises(CheckpointError, match=r"nope\.pth' does not exist"):
        build(tiny.config, "nope.pth", device="cpu")


def test_a_pickle_that_would_run_a_program_is_refused(tiny, tmp_path):
    torch.save({"state_dict": SimpleNamespace()}, tmp_path / "unsafe.pth")
    with pytest.raises(CheckpointError, match="would run a program"):
        build(tiny.config, tmp_path / "unsafe.pth", device="cpu")


def test_without_weights_a_warning_says_that_boxes_are_random(tiny, caplog):
    build(tiny.config, device="cpu")
    assert "No weights were given" in caplog.text


def test_the_device_is_chosen_and_announced(tiny, caplog):
    with caplog.at_level(logging.INFO, "llmdet"):
        built = build(tiny.config, tiny.weights)
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert built.device.type == expected
    assert f"Running on {expected}, chosen automatically" in caplog.text


def test_a_gpu_that_is_not_there_is_refused(tiny, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="no device cuda:0: PyTorch sees no CUDA GPU"):
        build(tiny.config, device="cuda:0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigError, match="no device cuda:2: PyTorch sees 2 GPUs"):
        build(tiny.config, device="cuda:2")


def test_wrong_settings_are_refused_with_the_choices(tiny):
    with pytest.raises(ConfigError, match="'gpu': write cpu, cuda"):
        build(tiny.config, device="gpu")
    with pytest.raises(ConfigError, match="dtype='int8'; choose one of float32"):
        build(tiny.config, device="cpu", dtype="int8")
    with pytest.raises(ConfigError, match="nope"):
        build("nope.py")


def test_a_loaded_config_is_left_as_it_is(tiny):
    config = Config.fromfile(tiny.config)
    before = config.to_dict()
    build(config, device="cpu", cfg_options={"model.test_cfg.chunked_size": 3})
    assert config.to_dict() == before


def test_a_config_without_a_test_pipeline_is_refused(tiny):
    config = Config.fromfile(tiny.config)
    config.test_dataloader.dataset.pipeline = [{"type": "PackDetInputs"}]
    with pytest.raises(ConfigError, match="no LoadImageFromFile"):
        build(config, device="cpu")
    config = Config({"model": config.model})
    with pytest.raises(ConfigError, match=r"test_dataloader\.dataset\.pipeline"):
        build(config, device="cpu")


def test_a_pipeline_that_packs_no_prompt_gets_it_all_the_same(tiny, detector, photos):
    config = Config.fromfile(tiny.config)
    config.test_dataloader.dataset.pipeline[-1] = {
        "type": "PackDetInputs",
        "meta_keys": ("img_path", "ori_shape", "img_shape", "scale_factor"),
    }
    question = {"expression": "the dog", "threshold": 0}
    bare = build(config, tiny.weights, device="cpu").predict(photos / "cat.jpg", **question)
    assert len(bare)
    assert bare.to_dict() == detector.predict(photos / "cat.jpg", **question).to_dict()


def test_predictions_are_those_of_the_model_in_evaluation(tiny, detector, photos):
    """The same image by hand: resized, packed, and given to the model's own predict."""
    from mmdet.structures import DetDataSample

    model = tiny_grounding_dino(tiny.config.parent / "bert")
    image = Image.open(photos / "coffee.png").convert("RGB")
    factor = min(96 / 200, 64 / 150)
    size = (int(150 * factor + 0.5), int(200 * factor + 0.5))
    array = np.array(image.resize(size, Image.Resampling.BILINEAR))[..., ::-1].copy()
    sample = DetDataSample(
        metainfo={
            "text": ("dog", "tree"),
            "custom_entities": True,
            "img_shape": array.shape[:2],
            "ori_shape": (200, 150),
            "scale_factor": (size[0] / 150, size[1] / 200),
        }
    )
    inputs = torch.from_numpy(array).permute(2, 0, 1)
    with torch.no_grad():
        (found,) = model.test_step({"inputs": [inputs], "data_samples": [sample]})
    prediction = detector.predict(photos / "coffee.png", ["dog", "tree"], threshold=0)
    assert np.allclose(prediction.scores, found.pred_instances.scores, atol=1e-4)
    assert np.allclose(prediction.boxes, found.pred_instances.bboxes, atol=0.05)


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [("narrow", "tensors of another shape backbone"), ("foreign", "no tensor has a place")],
)
def test_weights_that_do_not_fit_are_refused(tiny, tmp_path, weights, sentence):
    state_dict = read_checkpoint(tiny.weights).state_dict
    files = {
        "narrow": {
            key: value[: len(value) // 2] if key.startswith("backbone.") and value.ndim else value
            for key, value in state_dict.items()
        },
        "foreign": {f"bbox_head.other.{key}": value for key, value in state_dict.items()},
    }
    write_checkpoint(tmp_path / "weights.pth", files[weights])
    with pytest.raises(CheckpointError, match=sentence):
        build(tiny.config, tmp_path / "weights.pth", device="cpu")


def test_options_change_the_config_and_chunks_of_any_size_name_the_same_classes(tiny, photos):
    names = ["dog", "cat", "bus", "tree", "ball"]
    options = {"model.test_cfg.chunked_size": 2}
    detector = build(tiny.config, tiny.weights, device="cpu", cfg_options=options)
    assert detector.model.test_cfg.chunked_size == 2
    found = detector.predict(photos / "cat.jpg", names, threshold=0)
    assert set(found.labels) > {0, 1}
    assert found.names == [names[label] for label in found.labels]
    assert found.scores.tolist() == sorted(found.scores, reverse=True)
