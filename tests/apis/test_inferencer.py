import json
import logging
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from llmdet.apis import LLMDetInferencer
from llmdet.checkpoint import read_checkpoint, write_checkpoint
from llmdet.errors import CheckpointError, ConfigError, DataError
from llmdet.prompts import Expression, Spans
from llmdet.testing.models import tiny_grounding_dino
from llmdet.visualization.drawing import draw_boxes

CLASSES = {"texts": "red circle . dog . tree", "custom_entities": True, "pred_score_thr": 0.0}


def assert_same(first, second, tolerance=1e-4):
    assert first["labels"] == second["labels"]
    assert first["label_names"] == second["label_names"]
    assert np.allclose(first["scores"], second["scores"], atol=tolerance)
    assert np.allclose(first["bboxes"], second["bboxes"], atol=1e-2)


def only(result):
    (prediction,) = result["predictions"]
    assert len(prediction["labels"]) > 0
    return prediction


# --- what comes out


def test_boxes_lie_in_the_original_image_and_are_named_and_sorted(detect, photos):
    prediction = only(detect(photos / "astronaut.png", **CLASSES))
    assert set(prediction) == {
        "image", "width", "height", "labels", "scores", "bboxes", "label_names", "best_score"
    }  # fmt: skip
    assert prediction["image"] == str(photos / "astronaut.png")
    assert (prediction["width"], prediction["height"]) == (512, 512)
    boxes = np.array(prediction["bboxes"])
    assert boxes.shape == (len(prediction["labels"]), 4)
    assert boxes.min() >= 0
    assert 96 < boxes.max() <= 512  # beyond the size at which the model sees the image
    assert prediction["scores"] == sorted(prediction["scores"], reverse=True)
    names = ["red circle", "dog", "tree"]
    assert prediction["label_names"] == [names[label] for label in prediction["labels"]]


def test_scores_below_the_threshold_are_cut_everywhere(detect, photos, tmp_path):
    every = only(detect(photos / "cat.jpg", **CLASSES))
    threshold = every["scores"][3]
    result = detect(
        photos / "cat.jpg",
        **{**CLASSES, "pred_score_thr": threshold},
        out_dir=tmp_path,
        return_vis=True,
    )
    kept = only(result)
    assert kept["scores"] == every["scores"][:4]
    assert json.loads((tmp_path / "preds" / "cat.json").read_text()) == kept
    image = np.array(Image.open(photos / "cat.jpg"))
    expected = draw_boxes(
        image, np.array(kept["bboxes"]), kept["labels"], kept["label_names"], kept["scores"]
    )
    assert np.array_equal(result["visualization"][0], expected)


def test_pictures_and_predictions_are_saved_under_the_names_of_the_images(detect, photos, tmp_path):
    result = detect(photos, **CLASSES, out_dir=tmp_path)
    assert len(result["predictions"]) == 3
    assert result["visualization"] == []
    assert sorted(p.name for p in (tmp_path / "vis").iterdir()) == [
        "astronaut.png",
        "cat.jpg",
        "coffee.png",
    ]
    saved = json.loads((tmp_path / "preds" / "coffee.json").read_text())
    assert saved == result["predictions"][2]
    with Image.open(tmp_path / "vis" / "coffee.png") as picture:
        assert picture.width / picture.height == pytest.approx(150 / 200, abs=0.2)


def test_equally_named_images_do_not_overwrite_each_other(detect, photos, tmp_path):
    paths = []
    for folder, source in (("left", "astronaut.png"), ("right", "coffee.png")):
        (tmp_path / folder).mkdir()
        paths.append(tmp_path / folder / "photo.png")
        paths[-1].write_bytes((photos / source).read_bytes())
    result = detect(paths, **CLASSES, out_dir=tmp_path / "out")
    saved = [
        json.loads((tmp_path / "out" / "preds" / f"{side}_photo.json").read_text())
        for side in ("left", "right")
    ]
    assert saved == result["predictions"]
    assert saved[0] != saved[1]
    assert len(list((tmp_path / "out" / "vis").iterdir())) == 2


def test_nothing_is_saved_without_a_folder_or_against_the_flags(
    detect, photos, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    detect(photos / "cat.jpg", **CLASSES)
    assert list(tmp_path.iterdir()) == []
    detect(photos / "cat.jpg", **CLASSES, out_dir="out", no_save_vis=True)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["preds"]
    detect(photos / "cat.jpg", **CLASSES, out_dir="other", no_save_pred=True)
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["vis"]


def test_printed_results_are_one_line_of_json_per_image(detect, photos, capsys):
    result = detect(photos, **CLASSES, print_result=True)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["image"] for line in lines] == [str(p) for p in sorted(photos.iterdir())]
    assert lines == result["predictions"]


# --- what goes in


def test_an_array_gives_what_its_file_gives_and_is_left_alone(detect, photos):
    array = cv2.imread(str(photos / "astronaut.png"))
    before = array.copy()
    from_array = only(detect(array, **CLASSES))
    assert_same(from_array, only(detect(photos / "astronaut.png", **CLASSES)))
    assert np.array_equal(array, before)


def test_a_pil_image_gives_what_its_file_gives(detect, photos):
    with Image.open(photos / "astronaut.png") as image:
        from_image = only(detect(image, **CLASSES))
        in_a_list = detect([image, photos / "cat.jpg"], **CLASSES)["predictions"]
    assert_same(from_image, only(detect(photos / "astronaut.png", **CLASSES)))
    assert_same(in_a_list[0], from_image)


def test_arrays_of_later_calls_do_not_overwrite_earlier_ones(tiny, tmp_path):
    detect = LLMDetInferencer(tiny.config, tiny.weights, "cpu")
    array = np.zeros((64, 64, 3), dtype=np.uint8)
    detect([array, array], **CLASSES, out_dir=tmp_path)
    detect(array, **CLASSES, out_dir=tmp_path)
    names = sorted(path.name for path in (tmp_path / "preds").iterdir())
    assert names == ["00000000.json", "00000001.json", "00000002.json"]


def test_grey_and_transparent_pictures_are_read_as_colour(detect, photos, tmp_path):
    for mode in ("L", "RGBA", "P"):
        Image.open(photos / "coffee.png").convert(mode).save(tmp_path / f"{mode}.png")
    assert all(p["labels"] for p in detect(tmp_path, **CLASSES)["predictions"])


def test_a_photo_taken_upright_is_detected_and_drawn_upright(detect, photos, tmp_path):
    turned = Image.open(photos / "coffee.png").transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned clockwise by 90 degrees
    turned.save(tmp_path / "upright.png", exif=exif)
    result = detect(tmp_path / "upright.png", **CLASSES, return_vis=True)
    height, width = result["visualization"][0].shape[:2]
    assert height > width
    assert_same(only(result), only(detect(photos / "coffee.png", **CLASSES)))


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_damaged_image_is_named(detect, photos, tmp_path, suffix):
    source = photos / ("coffee.png" if suffix == "png" else "cat.jpg")
    damaged = tmp_path / f"damaged.{suffix}"
    damaged.write_bytes(source.read_bytes()[:1500])
    with pytest.raises(DataError, match=rf"damaged\.{suffix} cannot be read"):
        detect(damaged, **CLASSES, out_dir=tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- prompts


def test_a_batch_gives_what_single_images_give(detect, photos):
    texts = [
        ["dog", "red circle", "yellow star"],
        Expression("the dog under the red tree"),
        Spans("a dog on the grass", (((2, 5),), ((13, 18),))),
    ]
    together = detect(photos, texts, batch_size=3, pred_score_thr=0.0)["predictions"]
    paths = sorted(photos.iterdir())
    for path, text, expected in zip(paths, texts, together, strict=True):
        assert_same(only(detect(path, [text], pred_score_thr=0.0)), expected)


def test_a_last_batch_may_be_smaller(detect, photos):
    two = detect(photos, **CLASSES, batch_size=2)["predictions"]
    one = detect(photos, **CLASSES, batch_size=1)["predictions"]
    for first, second in zip(one, two, strict=True):
        assert_same(first, second)


def test_a_text_of_classes_gives_what_a_list_of_classes_gives(detect, photos):
    written = detect(photos / "cat.jpg", "red circle . dog . ", custom_entities=True)
    listed = detect(photos / "cat.jpg", [["red circle", "dog"]])
    assert written == listed


def test_a_referring_expression_is_one_entity(detect, photos):
    prediction = only(
        detect(photos / "cat.jpg", "red tree.", tokens_positive=-1, pred_score_thr=0.0)
    )
    assert set(prediction["labels"]) == {0}
    assert prediction["label_names"][0].startswith("red tree")


def test_spans_choose_the_entities(detect, photos):
    text = "a dog and a red tree"
    prediction = only(
        detect(photos / "cat.jpg", text, tokens_positive=[[2, 5], [12, 20]], pred_score_thr=0.0)
    )
    assert set(prediction["label_names"]) == {"dog", "red tree"}


def test_noun_phrases_of_a_sentence_are_found_by_rules(tiny, photos):
    detect = LLMDetInferencer(tiny.config, tiny.weights, "cpu", noun_phrases="rules")
    prediction = only(detect(photos / "cat.jpg", "There is a dog.", pred_score_thr=0.0))
    assert {name.split()[-1] for name in prediction["label_names"]} == {"dog"}


def test_without_text_the_classes_of_the_config_are_looked_for(detect, photos, caplog):
    with caplog.at_level(logging.INFO, "llmdet"):
        prediction = only(detect(photos / "cat.jpg", pred_score_thr=0.0))
    assert set(prediction["label_names"]) <= {"dog", "red circle"}
    assert "looking for the 2 classes of the config" in caplog.text


def test_chunks_of_any_size_name_the_same_classes(tiny, photos):
    names = ["dog", "cat", "bus", "tree", "ball"]
    detect = LLMDetInferencer(tiny.config, tiny.weights, "cpu", chunked_size=2)
    assert detect.model.test_cfg.chunked_size == 2
    prediction = only(detect(photos / "cat.jpg", [names], pred_score_thr=0.0))
    assert set(prediction["labels"]) > {0, 1}
    assert prediction["label_names"] == [names[label] for label in prediction["labels"]]
    assert prediction["scores"] == sorted(prediction["scores"], reverse=True)


def test_the_number_of_texts_must_be_that_of_the_images(detect, photos):
    with pytest.raises(ConfigError, match="2 entries for 3 images"):
        detect(photos, ["dog", "cat"])


def test_spans_need_a_text(detect, photos):
    with pytest.raises(ConfigError, match="there is none: give texts"):
        detect(photos, tokens_positive=-1)


def test_a_batch_holds_at_least_one_image(detect, photos):
    with pytest.raises(ConfigError, match="batch_size is 0"):
        detect(photos, **CLASSES, batch_size=0)


# --- building


def test_weights_are_loaded_and_the_model_is_ready_for_inference(tiny, detect):
    state = torch.load(tiny.weights, weights_only=True)["state_dict"]
    ours = detect.model.state_dict()
    assert all(torch.equal(ours[key], value) for key, value in state.items())
    assert not detect.model.training


def test_upstream_weights_load_without_their_language_model(tiny, photos, tmp_path, detect):
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
    upstream = LLMDetInferencer(tiny.config, tmp_path / "upstream.pth", "cpu")
    assert_same(
        only(upstream(photos / "cat.jpg", **CLASSES)), only(detect(photos / "cat.jpg", **CLASSES))
    )


def test_missing_detector_weights_are_named(tiny, tmp_path):
    checkpoint = torch.load(tiny.weights, weights_only=True)
    for key in ("level_embed", "query_embedding.weight"):
        del checkpoint["state_dict"][key]
    torch.save(checkpoint, tmp_path / "poor.pth")
    with pytest.raises(CheckpointError, match=r"level_embed|query_embedding"):
        LLMDetInferencer(tiny.config, tmp_path / "poor.pth", "cpu")


def test_missing_weights_are_noticed_before_the_model_is_built(tiny, monkeypatch):
    monkeypatch.setattr("llmdet.apis.inferencer.MODELS", None)
    with pytest.raises(CheckpointError, match=r"nope\.pth' does not exist"):
        LLMDetInferencer(tiny.config, "nope.pth", "cpu")


def test_a_pickle_that_would_run_a_program_is_refused(tiny, tmp_path):
    torch.save({"state_dict": SimpleNamespace()}, tmp_path / "unsafe.pth")
    with pytest.raises(CheckpointError, match="would run a program"):
        LLMDetInferencer(tiny.config, tmp_path / "unsafe.pth", "cpu")


def test_without_weights_a_warning_says_that_boxes_are_random(tiny, caplog):
    LLMDetInferencer(tiny.config, device="cpu")
    assert "No weights were given" in caplog.text


def test_the_device_is_chosen_and_announced(tiny, caplog):
    with caplog.at_level(logging.INFO, "llmdet"):
        built = LLMDetInferencer(tiny.config, tiny.weights)
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert built.device.type == next(built.model.parameters()).device.type == expected
    assert f"Running on {expected}, chosen automatically" in caplog.text


def test_a_gpu_that_is_not_there_is_refused(tiny, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="no device cuda:0: PyTorch sees no CUDA GPU"):
        LLMDetInferencer(tiny.config, device="cuda:0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigError, match="no device cuda:2: PyTorch sees 2 GPUs"):
        LLMDetInferencer(tiny.config, device="cuda:2")


def test_wrong_settings_are_refused_with_the_choices(tiny):
    with pytest.raises(ConfigError, match="'gpu': write cpu, cuda"):
        LLMDetInferencer(tiny.config, device="gpu")
    with pytest.raises(ConfigError, match="noun_phrases is 'spacy': choose one of auto"):
        LLMDetInferencer(tiny.config, device="cpu", noun_phrases="spacy")
    with pytest.raises(ConfigError, match="nope"):
        LLMDetInferencer("nope.py")


def test_a_loaded_config_is_left_as_it_is(tiny):
    config = Config.fromfile(tiny.config)
    before = config.to_dict()
    LLMDetInferencer(config, device="cpu", chunked_size=3)
    assert config.to_dict() == before


def test_a_config_without_a_test_pipeline_is_refused(tiny):
    config = Config.fromfile(tiny.config)
    config.test_dataloader.dataset.pipeline = [{"type": "PackDetInputs"}]
    with pytest.raises(ConfigError, match="no LoadImageFromFile"):
        LLMDetInferencer(config, device="cpu")
    config = Config({"model": config.model})
    with pytest.raises(ConfigError, match=r"test_dataloader\.dataset\.pipeline"):
        LLMDetInferencer(config, device="cpu")


def test_a_pipeline_that_packs_no_prompt_gets_it_all_the_same(tiny, detect, photos):
    config = Config.fromfile(tiny.config)
    config.test_dataloader.dataset.pipeline[-1] = {
        "type": "PackDetInputs",
        "meta_keys": ("img_path", "ori_shape", "img_shape", "scale_factor"),
    }
    question = {"texts": "the dog", "tokens_positive": -1, "pred_score_thr": 0.0}
    bare = LLMDetInferencer(config, tiny.weights, "cpu")(photos / "cat.jpg", **question)
    assert only(bare) == only(detect(photos / "cat.jpg", **question))


def test_predictions_are_those_of_the_model_in_evaluation(tiny, detect, photos):
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
    prediction = only(detect(photos / "coffee.png", [["dog", "tree"]], pred_score_thr=0.0))
    assert np.allclose(prediction["scores"], found.pred_instances.scores, atol=1e-4)
    assert np.allclose(prediction["bboxes"], found.pred_instances.bboxes, atol=0.05)


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
        LLMDetInferencer(tiny.config, tmp_path / "weights.pth", "cpu")
