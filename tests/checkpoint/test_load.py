"""Loading into a built model: every format, and what happens to keys that do not fit."""

from __future__ import annotations

import pytest
import torch

from llmdet.checkpoint import llmdet_to_upstream, load_weights, write_checkpoint
from llmdet.checkpoint.load import is_language_key
from llmdet.checkpoint.systems import system_of
from llmdet.errors import CheckpointError, ConfigError

DETECTOR_ONLY = "the model has no language model"
LANGUAGE = ("lmm", "image_captioner", "region_captioner")


def assert_equal_weights(model, other):
    theirs = other.state_dict()
    for key, value in model.state_dict().items():
        assert torch.equal(value, theirs[key]), key


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_our_own_checkpoint_comes_back(llmdet, tmp_path, suffix):
    path = tmp_path / f"llmdet.{suffix}"
    write_checkpoint(path, llmdet(seed=1).state_dict())
    model = llmdet(seed=2)
    report = load_weights(model, path)
    assert report.format == "llmdet"
    assert not report.ignored
    assert not report.kept
    assert_equal_weights(model, llmdet(seed=1))


def test_the_originals_names_load_with_language_model(llmdet, tmp_path):
    source = llmdet(seed=1)
    write_checkpoint(tmp_path / "up.pth", llmdet_to_upstream(source.state_dict()))
    model = llmdet(seed=2)
    report = load_weights(model, tmp_path / "up.pth")
    assert report.format == "upstream"
    assert_equal_weights(model, source)


def test_language_keys_of_the_original_are_counted_when_the_model_is_a_plain_detector(
    llmdet, detector, tmp_path
):
    source = llmdet(seed=1)
    write_checkpoint(tmp_path / "up.pth", llmdet_to_upstream(source.state_dict()))
    model = detector(seed=2)
    report = load_weights(model, tmp_path / "up.pth")
    language = [key for key in source.state_dict() if is_language_key(key)]
    assert set(report.ignored[DETECTOR_ONLY]) == set(language)
    assert f"{len(language)} ignored: {DETECTOR_ONLY}" in report.summary()
    assert_equal_weights(model, source)


def test_a_detector_without_language_model_starts_a_full_model(llmdet, detector, tmp_path):
    write_checkpoint(tmp_path / "mm.pth", detector(seed=1).state_dict())
    model, untouched = llmdet(seed=2), llmdet(seed=2)
    report = load_weights(model, tmp_path / "mm.pth", load_missing=LANGUAGE)
    assert report.format == "mm_grounding_dino"
    kept = report.kept["new, as load_missing says"]
    assert set(kept) == {key for key in model.state_dict() if is_language_key(key)}
    for key in kept:
        assert torch.equal(model.state_dict()[key], untouched.state_dict()[key])


def test_missing_detector_keys_are_an_error_that_names_some_and_counts_all(detector, tmp_path):
    state_dict = detector().state_dict()
    for key in [key for key in state_dict if key.startswith("decoder.layers.1.")]:
        state_dict.pop(key)
    write_checkpoint(tmp_path / "cut.pth", state_dict)
    with pytest.raises(CheckpointError, match=r"\d+ tensors too few.*decoder\.layers\.1\."):
        load_weights(detector(), tmp_path / "cut.pth")


def test_a_part_of_the_detector_may_be_new_where_it_is_named(detector, tmp_path):
    state_dict = detector().state_dict()
    for key in [key for key in state_dict if key.startswith("decoder.layers.1.")]:
        state_dict.pop(key)
    write_checkpoint(tmp_path / "cut.pth", state_dict)
    report = load_weights(detector(), tmp_path / "cut.pth", load_missing=["decoder.layers.1"])
    kept = report.kept["new, as load_missing says"]
    assert kept
    assert all(key.startswith("decoder.layers.1.") for key in kept)


def test_a_misspelt_part_is_answered_with_its_nearest_match(detector, tmp_path):
    write_checkpoint(tmp_path / "llmdet.pth", detector().state_dict())
    with pytest.raises(ConfigError, match=r"load_missing names 'decodr'.*did you mean 'decoder'"):
        load_weights(detector(), tmp_path / "llmdet.pth", load_missing=["decodr"])


def test_captions_need_weights_with_a_language_part(llmdet, detector, tmp_path):
    write_checkpoint(tmp_path / "mm.pth", detector().state_dict())
    with pytest.raises(CheckpointError, match=r"Captions need weights.*load_missing=\['lmm', 'im"):
        load_weights(llmdet(), tmp_path / "mm.pth")


def test_weights_of_which_nothing_fits_are_refused_whatever_may_be_new(detector, tmp_path):
    write_checkpoint(tmp_path / "none.pth", {"bbox_head.other": torch.zeros(1)})
    parts = [name for name, _ in detector().named_children()]
    parts += ["level_embed", "query_embedding"]
    with pytest.raises(CheckpointError, match="no tensor has a place"):
        load_weights(detector(), tmp_path / "none.pth", load_missing=parts)


def test_unknown_keys_are_an_error(detector, tmp_path):
    state_dict = {**detector().state_dict(), "mask_head.weight": torch.zeros(1)}
    write_checkpoint(tmp_path / "more.pth", state_dict)
    with pytest.raises(CheckpointError, match=r"1 tensors that the model lacks mask_head"):
        load_weights(detector(), tmp_path / "more.pth")


def test_another_shape_is_an_error_that_tells_both(detector, tmp_path):
    write_checkpoint(tmp_path / "w.pth", detector(num_queries=10).state_dict())
    with pytest.raises(CheckpointError, match=r"query_embedding.weight \(10, 32\), model \(20,"):
        load_weights(detector(), tmp_path / "w.pth")


def test_weights_of_something_else_are_refused(detector, tmp_path):
    write_checkpoint(tmp_path / "other.pth", {"conv1.weight": torch.zeros(1)})
    with pytest.raises(
        CheckpointError, match=r"other.pth' has no weights of a grounding detector.*conv1"
    ):
        load_weights(detector(), tmp_path / "other.pth")


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("region_extractor.feature_refinement_module.0.weight", "SpatialRGPT"),
        ("mm_projector.rgb_projector.0.weight", "SpatialRGPT"),
    ],
)
def test_files_of_other_systems_are_named(detector, tmp_path, key, name):
    weights = {"model.layers.0.mlp.up_proj.weight": torch.zeros(1), key: torch.zeros(1)}
    write_checkpoint(tmp_path / "other.pth", weights)
    with pytest.raises(CheckpointError, match=rf"other\.pth' is a file of {name}.*no model for"):
        load_weights(detector(), tmp_path / "other.pth")


def test_files_as_those_systems_write_them_are_recognised(golden):
    listed = golden / "regions/public/spatialrgpt/region_extractor/state_dict_keys.txt"
    system = system_of(line.split()[0] for line in listed.read_text().splitlines())
    assert system is not None
    assert system.name.startswith("Spatial")


def test_a_detector_trained_without_denoising_needs_no_label_embedding(detector, tmp_path):
    state_dict = detector(seed=1).state_dict()
    state_dict.pop("dn_query_generator.label_embedding.weight")
    write_checkpoint(tmp_path / "nodn.pth", state_dict)
    report = load_weights(detector(), tmp_path / "nodn.pth")
    assert "denoising queries exist only while training" in report.kept


def test_a_base_without_lora_fits_a_model_with_lora_and_back(llmdet, qwen, tmp_path):
    plain_lmm = {"type": "LanguageModel", "model": qwen, "dtype": "float32"}
    bare = llmdet(lmm=plain_lmm, seed=1)
    write_checkpoint(tmp_path / "bare.pth", bare.state_dict())
    model = llmdet(lmm={**plain_lmm, "lora": {"r": 2}}, seed=2)
    with pytest.raises(CheckpointError, match="lora_A"):
        load_weights(model, tmp_path / "bare.pth")
    report = load_weights(model, tmp_path / "bare.pth", load_missing=["lmm"])
    assert all("lora_" in key for key in report.kept["new, as load_missing says"])
    weights = model.state_dict()
    stem = "lmm.causal_lm.model.layers.0.mlp.up_proj"
    assert torch.equal(weights[f"{stem}.base_layer.weight"], bare.state_dict()[f"{stem}.weight"])
    write_checkpoint(tmp_path / "lora.pth", weights)
    with pytest.raises(CheckpointError, match="lora_A"):
        load_weights(bare, tmp_path / "lora.pth")


def test_a_published_real_model_loads_by_name_with_its_longer_text(bert, detector, tmp_path):
    from llmdet.testing.models import tiny_grounding_dino

    source = detector(seed=1)
    # As mmdet saves it: what a run remembers beside the weights, and BERT's own buffer.
    weights = {**source.state_dict()}
    body = "language_model.language_backbone.body.model.embeddings.position_ids"
    weights[body] = torch.arange(512)[None]
    settings = {"epoch": 10, "dataset_meta": {"classes": None}, "cfg": "model = dict()"}
    torch.save({"meta": settings, "state_dict": weights}, tmp_path / "real-model_t.pth")
    model = tiny_grounding_dino(bert, seed=2, language_model={"max_tokens": 512})
    report = load_weights(model, tmp_path / "real-model_t.pth")
    assert report.format in ("llmdet", "mm_grounding_dino")
    assert_equal_weights(model, source)
    assert model.language_model.max_tokens == 512
