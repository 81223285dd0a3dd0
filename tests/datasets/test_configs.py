"""The data set configs load, and the small ones read generated data from end to end."""

import json
import shutil
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.runner import Runner

from llmdet.datasets.sample import grounding_of
from llmdet.datasets.text_encoder import share_text_encoder
from llmdet.datasets.toy import SEEN_NAMES, ToySettings, generate
from llmdet.prompts import Classes
from llmdet.registry import DATASETS
from llmdet.utils.config import load_config

CONFIGS = Path(__file__).parents[2] / "configs"
ALL = sorted([*CONFIGS.glob("_base_/datasets/*.py"), *CONFIGS.glob("finetune/*.py")])


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return generate(tmp_path_factory.mktemp("toy"), ToySettings(train=24, val=8))


@pytest.mark.parametrize("path", ALL, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_config_loads_and_keeps_its_paths_below_data(path):
    config = Config.fromfile(path)
    keys = [f"{split}_dataloader" for split in ("train", "val", "test", "zero_shot")]
    loaders = [config[key] for key in keys if key in config]
    assert loaders
    for loader in loaders:
        sets = loader.dataset.get("sets", {})
        datasets = loader.dataset.get("datasets") or [*sets.values()] or [loader.dataset]
        assert all(dataset.data_root.startswith("data/") for dataset in datasets)
    if path.parent.name == "finetune":
        assert config.default_scope == "llmdet"


def test_groundingcap_1m_lists_the_five_parts_without_flips():
    config = Config.fromfile(CONFIGS / "_base_/datasets/groundingcap_1m.py")
    parts = config.train_dataloader.dataset.datasets
    assert [Path(part.data_root).name for part in parts] == [
        "coco",
        "flickr30k_entities",
        "gqa",
        "llava_cap",
        "v3det",
    ]
    assert [part.actual_dataset_mode for part in parts] == ["OD", "VG", "VG", "OD", "OD"]
    steps = [step.type for step in config.train_pipeline]
    assert "RandomFlip" not in steps
    assert config.train_pipeline[2].scales[0] == (480, 1333)
    assert config.train_pipeline[2].scales[-1] == (800, 1333)
    assert len(config.train_pipeline[2].scales) == 11


@pytest.mark.usefixtures("scope")
def test_the_toy_config_gives_batches_of_captions_and_class_names(toy, bert_folder):
    config = load_config(
        CONFIGS / "_base_/datasets/toy.py",
        {"data_root": str(toy)},
    )
    config.model = {"language_model": {"name": bert_folder}}
    share_text_encoder(config)
    loader = config.train_dataloader
    loader.update(num_workers=0, persistent_workers=False)
    samples = [
        sample
        for batch in Runner.build_dataloader(loader, seed=0)
        for sample in batch["data_samples"]
    ]
    assert len(samples) == 48
    captions = [sample for sample in samples if grounding_of(sample).dataset_mode == "VG"]
    assert len(captions) == 24
    for sample in captions:
        caption = grounding_of(sample).conversations[0]
        assert caption.kinds == {"image"}
        assert caption.turns[1].text.startswith("The image")
    for sample in samples:
        assert_labels_have_tokens(sample)
        grounding = grounding_of(sample)
        assert any(talk.kinds == {"region"} for talk in grounding.conversations)
        if grounding.dataset_mode == "OD":
            assert set(grounding.prompt.names) <= set(SEEN_NAMES)


def assert_labels_have_tokens(sample):
    (made,) = grounding_of(sample).tokenized
    assert made.token_map[sample.gt_instances.labels.numpy()].any(axis=1).all()


@pytest.mark.usefixtures("scope")
@pytest.mark.parametrize("split", ["val", "test"])
def test_the_toy_config_evaluates_on_files_that_belong_together(toy, split):
    config = load_config(CONFIGS / "_base_/datasets/toy.py", {"data_root": str(toy)})
    dataset = DATASETS.build(config[f"{split}_dataloader"].dataset)
    sample = dataset[0]["data_samples"]
    assert grounding_of(sample).prompt == Classes(tuple(dataset.metainfo["classes"]))
    for evaluator in config[f"{split}_evaluator"]:
        truth = json.loads(Path(evaluator.ann_file).read_text())
        assert {c["name"] for c in truth["categories"]} == set(dataset.metainfo["classes"])
        assert {image["id"] for image in truth["images"]} == image_ids(dataset)


def image_ids(dataset):
    return {dataset.get_data_info(index)["img_id"] for index in range(len(dataset))}


@pytest.mark.usefixtures("scope")
@pytest.mark.parametrize("name", ["bccd", "raccoon", "playing_cards", "coco_json"])
def test_fine_tuning_configs_read_a_folder_given_on_the_command_line(
    name, toy, bert_folder, tmp_path
):
    (tmp_path / "images").symlink_to(toy / "images")
    for ours, theirs in (
        ("odvg_od_train.jsonl", "train_detection.jsonl"),
        ("odvg_label_map.json", "label_map.json"),
        ("instances_train.json", "train_coco.json"),
        ("instances_val.json", "val_seen_coco.json"),
    ):
        (tmp_path / ours).write_text((toy / "annotations" / theirs).read_text())
    config = load_config(
        CONFIGS / f"finetune/{name}.py",
        {"data_root": str(tmp_path), "lang_model_name": bert_folder},
    )
    share_text_encoder(config)
    training = DATASETS.build(config.train_dataloader.dataset)
    assert len(training) == 24
    sample = training[0]["data_samples"]
    assert_labels_have_tokens(sample)
    validation = DATASETS.build(config.val_dataloader.dataset)
    assert set(validation.metainfo["classes"]) == set(SEEN_NAMES)
    assert len(validation[0]["inputs"]) == 3
    assert Path(config.val_evaluator.ann_file).is_file()
    assert config.model.language_model.name == bert_folder


@pytest.mark.usefixtures("scope")
@pytest.mark.parametrize(
    ("name", "images", "classes"),
    [
        ("bccd", (205, 87), {"red blood cell", "white blood cell", "platelet"}),
        ("raccoon", (160, 40), {"raccoon"}),
        ("playing_cards", (148, 67), None),
    ],
)
def test_fine_tuning_configs_read_real_photographs(
    name, images, classes, real_data, bert_folder, tmp_path
):
    (tmp_path / "images").symlink_to(real_data / name / "images")
    for path in (real_data / name).glob("*.json*"):  # reading rows writes an index beside them
        shutil.copyfile(path, tmp_path / path.name)
    config = load_config(
        CONFIGS / f"finetune/{name}.py",
        {"data_root": str(tmp_path), "lang_model_name": bert_folder},
    )
    share_text_encoder(config)
    training = DATASETS.build(config.train_dataloader.dataset)
    validation = DATASETS.build(config.val_dataloader.dataset)
    assert (len(training), len(validation)) == images
    assert set(training.metainfo["classes"]) == set(validation.metainfo["classes"])
    assert classes in (None, set(training.metainfo["classes"]))
    for index in range(0, len(training), 20):
        sample = training[index]["data_samples"]
        assert_labels_have_tokens(sample)
        height, width = sample.img_shape
        boxes = sample.gt_instances.bboxes
        assert bool((boxes >= 0).all())
        assert boxes[:, 2].max() <= width
        assert boxes[:, 3].max() <= height
