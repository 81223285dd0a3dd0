"""Writing other formats: transformers' classes open what we write and compute the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from llmdet import Detector
from llmdet.checkpoint import convert_checkpoint, load_weights, write_checkpoint
from llmdet.checkpoint.load import is_language_key
from llmdet.checkpoint.transformers_check import closing_ids, corrected_text_positions
from llmdet.errors import CheckpointError, ConfigError
from llmdet.testing.models import tiny_config

TEXT = "red circle. blue square."


@pytest.fixture
def written(detector, exchangeable, bert, tmp_path):
    """A detector, and the transformers folder made of its checkpoint."""
    model = detector(**exchangeable, seed=1)
    write_checkpoint(tmp_path / "llmdet.pth", model.state_dict())
    convert_checkpoint(
        tmp_path / "llmdet.pth",
        tmp_path / "folder",
        target_format="transformers",
        model=tiny_config(bert, **exchangeable),
    )
    return model, tmp_path / "folder"


def ours(model, images, text):
    sizes = [[feat.shape[-2:]] * len(images) for feat in model.extract_feat(images)]
    sizes = [[(int(h), int(w)) for h, w in level] for level in sizes]
    pyramid = model.pyramid(model.extract_feat(images), sizes)
    encoded = model.encode(pyramid, model.encode_text([text] * len(images)))
    decoded = model.decode(encoded, model.propose(encoded))
    return model.bbox_head(decoded, encoded.text)


@torch.no_grad()
def assert_transformers_computes_the_same(model, folder, atol=1e-5):
    """Boxes and logits of both models for two images."""
    from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

    theirs = AutoModelForZeroShotObjectDetection.from_pretrained(folder).eval()
    processor = AutoProcessor.from_pretrained(folder)
    images = torch.rand(2, 3, 64, 96)
    tokens = processor.tokenizer([TEXT] * 2, return_tensors="pt")
    with corrected_text_positions(closing_ids(processor.tokenizer)):
        output = theirs(pixel_values=images, **tokens)
    expected = ours(model, images, TEXT)
    torch.testing.assert_close(output.pred_boxes, expected.boxes[-1], rtol=0, atol=atol)
    length = tokens.input_ids.shape[1]
    logits = output.logits[..., :length]
    torch.testing.assert_close(logits, expected.logits[-1][..., :length], rtol=0, atol=atol)


def test_transformers_computes_the_same_from_what_we_write(written):
    assert_transformers_computes_the_same(*written)


def tiny_models(bert):
    """Models of the configs that ship for small data sets, whose sizes transformers has not."""
    from llmdet.utils.config import load_config

    options = {"model.language_model.name": bert}
    configs = Path(__file__).parents[2] / "configs"
    shipped = load_config(configs / "quickstart/detector.py", options).model.to_dict()
    bottlenecks = {
        **shipped["backbone"],
        "depth": 50,
        "base_channels": 8,
        "stem_channels": 8,
        "style": "caffe",
    }
    neck = {**shipped["neck"], "in_channels": [64, 128, 256]}
    yield "quickstart", shipped
    yield "bottlenecks", {**shipped, "backbone": bottlenecks, "neck": neck}
    yield "swin", load_config(configs / "finetune/coco_json.py", options).model.to_dict()


def test_the_models_that_ship_for_small_data_sets_give_the_same_in_transformers_and_back(
    bert, tmp_path
):
    for name, settings in tiny_models(bert):
        model = build(settings)
        write_checkpoint(tmp_path / f"{name}.pth", model.state_dict())
        convert_checkpoint(
            tmp_path / f"{name}.pth",
            tmp_path / name,
            target_format="transformers",
            model=settings,
        )
        assert_transformers_computes_the_same(model, tmp_path / name, atol=1e-4)
        derived = Detector.from_pretrained(tmp_path / name, device="cpu").model
        assert_transformers_computes_the_same(derived, tmp_path / name, atol=1e-4)


def build(settings):
    """A model of these settings with random weights that leave no path silent."""
    from mmengine.config import ConfigDict

    from llmdet.registry import MODELS

    torch.manual_seed(0)
    model = MODELS.build(ConfigDict(settings))
    for name, value in model.state_dict().items():
        if name.endswith("running_var"):
            torch.nn.init.uniform_(value, 0.5, 2.0)
        elif value.is_floating_point() and not value.any():
            torch.nn.init.normal_(value, std=0.05)
    return model.eval()


def test_a_transformers_folder_loads_by_path_and_gives_the_same_weights(
    written, detector, exchangeable
):
    model, folder = written
    again = detector(**exchangeable, seed=2)
    report = load_weights(again, folder)
    assert report.format == "transformers"
    saved, loaded = model.state_dict(), again.state_dict()
    different = [key for key in saved if not torch.equal(saved[key], loaded[key])]
    assert different == ["dn_query_generator.label_embedding.weight"]


def test_the_processor_files_scale_as_asked(detector, exchangeable, bert, tmp_path):
    from transformers import AutoProcessor

    write_checkpoint(tmp_path / "llmdet.pth", detector(**exchangeable).state_dict())
    convert_checkpoint(
        tmp_path / "llmdet.pth",
        tmp_path / "folder",
        target_format="transformers",
        model=tiny_config(bert, **exchangeable),
        test_scale=(1000, 1560),
    )
    size = AutoProcessor.from_pretrained(tmp_path / "folder").image_processor.size
    assert (size["shortest_edge"], size["longest_edge"]) == (1000, 1560)


def test_the_processor_files_normalise_as_our_preprocessor_does(written):
    from transformers import AutoProcessor

    model, folder = written
    image = torch.randint(0, 255, (3, 800, 800), dtype=torch.uint8)
    theirs = AutoProcessor.from_pretrained(folder).image_processor(image, return_tensors="pt")
    pixels = (image.float() - model.data_preprocessor.mean) / model.data_preprocessor.std
    torch.testing.assert_close(theirs.pixel_values[0], pixels, rtol=0, atol=1e-4)


def test_the_language_model_is_left_out_of_a_transformers_folder_with_a_reason(
    llmdet, exchangeable, bert, tmp_path
):
    model = llmdet(**exchangeable)
    write_checkpoint(tmp_path / "llmdet.pth", model.state_dict())
    conversion = convert_checkpoint(
        tmp_path / "llmdet.pth",
        tmp_path / "folder",
        target_format="transformers",
        model=tiny_config(bert, **exchangeable),
    )
    left = conversion.left_out["the language model exists only while training"]
    assert set(left) == {key for key in model.state_dict() if is_language_key(key)}


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_to_the_originals_names_and_back_is_bit_exact(llmdet, tmp_path, suffix):
    source = llmdet().state_dict()
    write_checkpoint(tmp_path / "llmdet.pth", source)
    upstream, back = tmp_path / f"up.{suffix}", tmp_path / f"back.{suffix}"
    convert_checkpoint(tmp_path / "llmdet.pth", upstream, target_format="upstream")
    conversion = convert_checkpoint(upstream, back, target_format="llmdet")
    assert conversion.source_format == "upstream"
    model = llmdet(seed=5)
    load_weights(model, back)
    for key, value in model.state_dict().items():
        assert torch.equal(value, source[key]), key


def test_unknown_formats_and_missing_tokenizers_are_refused(detector, tmp_path):
    write_checkpoint(tmp_path / "llmdet.pth", detector().state_dict())
    with pytest.raises(ConfigError, match="--to onnx is unknown"):
        convert_checkpoint(tmp_path / "llmdet.pth", tmp_path / "x", target_format="onnx")
    with pytest.raises(ConfigError, match="--tokenizer"):
        convert_checkpoint(tmp_path / "llmdet.pth", tmp_path / "x", target_format="transformers")
    with pytest.raises(CheckpointError, match="is a folder"):
        convert_checkpoint(
            tmp_path / "llmdet.pth",
            tmp_path / "x.pth",
            target_format="transformers",
            tokenizer="bert",
        )
