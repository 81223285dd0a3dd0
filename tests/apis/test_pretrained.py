"""A detector as a folder that needs nothing else."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from llmdet import Detector
from llmdet.apis import pretrained
from llmdet.checkpoint import convert_checkpoint, read_checkpoint, write_checkpoint
from llmdet.errors import CheckpointError, ConfigError, DataError
from llmdet.testing.demo import tiny_demo
from llmdet.utils.config import load_config

NAMES = ["red circle", "dog"]
#: Settings of the tiny detector as version 1 wrote them, never to be changed: later versions read
#: what earlier ones wrote.
VERSION_1 = "detector_folder_v1.json"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A saved detector whose config, weights and text encoder are gone."""
    place = tmp_path_factory.mktemp("made")
    made = tiny_demo(place)
    detector = Detector.from_pretrained(made.config, made.weights, device="cpu")
    target = tmp_path_factory.mktemp("saved") / "detector"
    detector.save_pretrained(target)
    shutil.rmtree(place)
    return target


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def change(folder, **values):
    """Edit settings by dotted keys."""
    path = folder / pretrained.SETTINGS
    settings = json.loads(path.read_text())
    for place, value in values.items():
        *parents, last = place.split("__")
        part = settings
        for key in parents:
            part = part[int(key) if isinstance(part, list) else key]
        part[last] = value
    path.write_text(json.dumps(settings))


def test_a_saved_detector_finds_the_same_wherever_it_is(detector, folder, photos, tmp_path):
    elsewhere = shutil.copytree(folder, tmp_path / "elsewhere")
    loaded = Detector.from_pretrained(elsewhere, device="cpu")
    image = photos / "cat.jpg"
    found = loaded.predict(image, NAMES, threshold=0)
    assert found.to_dict() == detector.predict(image, NAMES, threshold=0).to_dict()
    assert len(found)
    loaded.save_pretrained(tmp_path / "again")
    for file in (pretrained.SETTINGS, pretrained.WEIGHTS):
        assert (tmp_path / "again" / file).read_bytes() == (folder / file).read_bytes()


def test_a_folder_holds_no_path_of_the_machine_that_made_it(folder):
    for file in folder.rglob("*.json"):
        assert "/tmp" not in file.read_text()


def test_the_language_model_is_saved_where_the_detector_has_one(taught, photos, tmp_path):
    options = {"captions": True, "generation": {"max_new_tokens": 4}}
    detector = Detector.from_pretrained(taught.config, taught.weights, device="cpu", captions=True)
    detector.save_pretrained(tmp_path / "saved")
    loaded = Detector.from_pretrained(tmp_path / "saved", device="cpu", captions=True)
    image = photos / "cat.jpg"
    told = loaded.predict(image, NAMES, threshold=0, **options)
    assert told.to_dict() == detector.predict(image, NAMES, threshold=0, **options).to_dict()
    assert told.description
    # Without captions the same folder is the plain detector, which can be saved alone.
    plain = Detector.from_pretrained(tmp_path / "saved", device="cpu")
    plain.save_pretrained(tmp_path / "plain")
    assert not (tmp_path / "plain" / "language_model").exists()
    with pytest.raises(ConfigError, match=r"model\.lmm is None or missing"):
        Detector.from_pretrained(tmp_path / "plain", device="cpu", captions=True)


def test_what_version_1_wrote_is_read_by_every_later_version(copy, root, photos, detector):
    written = root / "tests" / "apis" / VERSION_1
    shutil.copy(written, copy / pretrained.SETTINGS)
    loaded = Detector.from_pretrained(copy, device="cpu")
    found = loaded.predict(photos / "cat.jpg", NAMES, threshold=0)
    assert found.to_dict() == detector.predict(photos / "cat.jpg", NAMES, threshold=0).to_dict()


def test_settings_of_older_versions_are_upgraded_step_by_step(copy, monkeypatch):
    settings = json.loads((copy / pretrained.SETTINGS).read_text())
    settings["detector"] = settings.pop("model")  # as an imagined earlier version named it
    settings["version"] = 0
    (copy / pretrained.SETTINGS).write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match="unknown version 0"):
        Detector.from_pretrained(copy, device="cpu")

    def from_0(old):
        return {"model" if key == "detector" else key: value for key, value in old.items()}

    monkeypatch.setitem(pretrained.UPGRADES, 0, from_0)
    assert Detector.from_pretrained(copy, device="cpu").gives_captions is False


@pytest.mark.parametrize(
    ("place", "value", "sentence"),
    [
        ("version", 99, "newer version of this package .format 99"),
        ("version", "1", "describes no saved detector"),
        ("format", "other", "describes no saved detector"),
        ("model__type", "subprocess.Popen", "a detector with a text encoder can be saved"),
        ("model__backbone__type", "os.system", "backbone.type='os.system' is no part"),
        ("model__neck__type", "antigravity", "neck.type='antigravity' is no part"),
        ("model__backbone__init_cfg", {"checkpoint": "https://host/x.pth"}, "leads out of"),
        ("model__connector", "../x.pth", "leads out of the folder"),
        ("model__language_model", "bert", "a text encoder can be saved"),
        ("model__lmm", "qwen", "no language model"),
        ("model", [], "lacks its model or its pipeline"),
        ("pipeline", [{"type": "Albu"}], "step 'Albu' cannot be saved or loaded"),
        ("pipeline", ["LoadImageFromFile"], "cannot be saved or loaded"),
        ("pipeline", [], "no LoadImageFromFile"),
    ],
)
def test_folders_that_ask_for_anything_else_are_refused(copy, place, value, sentence):
    change(copy, **{place: value})
    with pytest.raises(CheckpointError, match=sentence):
        Detector.from_pretrained(copy, device="cpu")


def test_the_text_encoder_is_always_that_of_the_folder(copy):
    change(copy, model__language_model__name="someone else's")
    loaded = Detector.from_pretrained(copy, device="cpu")
    assert loaded.config.model.language_model.name == str(copy / "text_encoder")


def test_damaged_and_incomplete_folders_are_named(copy, tmp_path):
    weights = copy / pretrained.WEIGHTS
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"):
        Detector.from_pretrained(copy, device="cpu")
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"has no model\.safetensors"):
        Detector.from_pretrained(copy, device="cpu")
    (copy / pretrained.SETTINGS).write_text("{")
    with pytest.raises(CheckpointError, match=r"detector\.json"):
        Detector.from_pretrained(copy, device="cpu")
    with pytest.raises(ConfigError, match=r"neither detector\.json.*nor the config\.json"):
        Detector.from_pretrained(tmp_path, device="cpu")


def test_weights_of_a_folder_must_be_those_of_its_model(copy):
    weights = read_checkpoint(copy / pretrained.WEIGHTS).state_dict
    weights["level_embed"] = torch.full_like(weights["level_embed"], np.nan)
    write_checkpoint(copy / pretrained.WEIGHTS, weights)
    with pytest.raises(CheckpointError, match="NaN or infinity"):
        Detector.from_pretrained(copy, device="cpu")


def test_a_folder_that_cannot_be_written_is_named(detector, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="file cannot be written"):
        detector.save_pretrained(tmp_path / "file")


def test_a_pipeline_of_other_steps_cannot_be_saved(tiny, tmp_path):
    from mmengine.config import Config

    config = Config.fromfile(tiny.config)
    config.test_dataloader.dataset.pipeline.insert(1, {"type": "RandomFlip", "prob": 0.0})
    detector = Detector.from_pretrained(config, tiny.weights, device="cpu")
    with pytest.raises(ConfigError, match="step 'RandomFlip' cannot be saved"):
        detector.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_a_hub_id_that_cannot_be_reached_is_named_at_once():
    with pytest.raises(CheckpointError, match="'someone/detector' is neither a file here nor"):
        Detector.from_pretrained("someone/detector", device="cpu")


def test_a_folder_of_transformers_is_a_detector(tmp_path, photos):
    """Its weights and results equal those of transformers in tests/checkpoint/test_convert.py."""
    groups = {"norm_cfg": {"type": "GN", "num_groups": 32}}
    made = tiny_demo(tmp_path, neck=groups)
    config = load_config(made.config)
    folder = tmp_path / "folder"
    convert_checkpoint(
        made.weights,
        folder,
        target_format="transformers",
        model=config.model.to_dict(),
        test_scale=(64, 96),
    )
    expected = Detector.from_pretrained(made.config, made.weights, device="cpu")
    derived = Detector.from_pretrained(folder, device="cpu")
    derived.save_pretrained(tmp_path / "saved")
    again = Detector.from_pretrained(tmp_path / "saved", device="cpu")
    for detector in (derived, again):
        found = detector.predict(photos / "cat.jpg", NAMES, threshold=0)
        wanted = expected.predict(photos / "cat.jpg", NAMES, threshold=0)
        best = min(len(found), len(wanted))
        np.testing.assert_allclose(found.scores[:best], wanted.scores[:best], atol=1e-4)
        np.testing.assert_allclose(found.boxes[:best], wanted.boxes[:best], atol=1e-2)
    (folder / "config.json").write_text('{"model_type": "detr"}')
    with pytest.raises(CheckpointError, match="is of a 'detr', and a detector can be derived from"):
        Detector.from_pretrained(folder, device="cpu")
    (folder / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match=r"config\.json cannot be read"):
        Detector.from_pretrained(folder, device="cpu")
