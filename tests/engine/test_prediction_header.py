"""Whatever changes a number stands in the header, so that a resume with another one is refused."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config

from llmdet.engine import use_test_time_augmentation
from llmdet.engine.testing import ResumableTestLoop, weights_hash, write_predictions
from llmdet.errors import ConfigError
from llmdet.evaluation.metrics import DumpPredictions
from llmdet.evaluation.prediction_writer import PredictionWriter, header_differences
from llmdet.evaluation.predictions import prediction_row, read_header
from llmdet.utils.config import load_config, merge_options

PIPELINE = [
    {"type": "LoadImageFromFile"},
    {"type": "FixScaleResize", "scale": (800, 1333)},
    {"type": "PackGroundingInputs"},
]


def config() -> Config:
    dataset = {
        "type": "CocoDataset",
        "data_root": "data/",
        "ann_file": "annotations/val.json",
        "pipeline": PIPELINE,
    }
    return Config(
        {
            "model": {
                "type": "GroundingDINO",
                "num_queries": 900,
                "data_preprocessor": {"mean": [1.0, 2.0, 3.0]},
                "train_cfg": {"assigner": {}},
            },
            "load_from": "weights.pth",
            "test_dataloader": {"dataset": dataset, "num_workers": 2},
            "test_evaluator": {"type": "CocoMetric", "ann_file": "data/annotations/val.json"},
            "test_cfg": {"type": "TestLoop"},
        }
    )


@pytest.fixture(autouse=True)
def weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"a": torch.zeros(1)}, "weights.pth")
    torch.save({"a": torch.ones(1)}, "other.pth")


def dump(settings: Config, classes=("cat", "dog")) -> DumpPredictions:
    write_predictions(settings, "p.jsonl")
    metric = DumpPredictions(
        **{k: v for k, v in settings.test_evaluator[-1].items() if k != "type"}
    )
    metric.dataset_meta = {"classes": classes}
    return metric


CHANGES = {
    "weights_hash": {"load_from": "other.pth"},
    "chunk_size": {"model.test_cfg": {"chunked_size": 40}},
    "limit_per": {"model.test_cfg": {"limit_per": "chunk"}},
    "max_per_image": {"model.test_cfg": {"max_per_img": 30}},
    "protocol.test_cfg.referring.subject_only": {
        "model.test_cfg": {"referring": {"subject_only": True}}
    },
    "protocol.quirks.pad_before_backbone": {"model.quirks": {"pad_before_backbone": True}},
    "protocol.model.num_queries": {"model.num_queries": 300},
    "protocol.model.data_preprocessor.mean": {"model.data_preprocessor.mean": [0.0, 0.0, 0.0]},
    "protocol.dtype": {"model.test_cfg": {"dtype": "bfloat16"}},
    "protocol.data.pipeline[1].scale": {
        "test_dataloader.dataset.pipeline": [PIPELINE[0], {**PIPELINE[1], "scale": (400, 667)}]
    },
    "protocol.data.caption_prompt.cat.suffix": {
        "test_dataloader.dataset.caption_prompt": {"cat": {"suffix": " , a pet"}}
    },
    "protocol.data.ann_file": {"test_dataloader.dataset.ann_file": "annotations/train.json"},
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_resume_with_another_setting_is_refused_and_names_it(name):
    dump(config()).writer.close()
    changed = config()
    merge_options(changed, CHANGES[name])
    with pytest.raises(ConfigError) as error:
        _ = dump(changed).writer
    assert name in str(error.value)
    assert "this run has" in str(error.value)


def test_folders_of_other_weights_are_told_apart_in_both_formats(tmp_path):
    hashes = set()
    for number, name in enumerate(("model.safetensors", "pytorch_model-00001-of-00002.bin") * 2):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / name).write_bytes(bytes([number]))
        (folder / "training_args.bin").write_bytes(b"no weights")
        hashes.add(weights_hash(str(folder)))
    assert len(hashes) == 4
    assert weights_hash(str(tmp_path)) == f"hub:{tmp_path}"  # nothing to tell it by but its name


def test_labels_of_a_detector_without_words_do_not_get_the_names_of_the_data_set():
    proposals = config()
    proposals.model.type = "ProposalDINO"
    dump(proposals).writer.close()
    header = read_header("p.jsonl")
    assert header.classes == ("object",)
    assert header.protocol["test_cfg"] == {"granularity": "fine"}


def test_a_resume_with_other_noun_phrases_is_refused_also_where_a_machine_decides(monkeypatch):
    monkeypatch.setattr("llmdet.prompts.noun_phrases._tagger_installed", lambda: False)
    dump(config()).writer.close()
    rules = config()
    rules.model.test_cfg = {"noun_phrases": "rules"}
    dump(rules).writer.close()
    monkeypatch.setattr("llmdet.prompts.noun_phrases._tagger_installed", lambda: True)
    with pytest.raises(ConfigError, match=r"noun_phrases = 'rules', this run has 'nltk'"):
        _ = dump(config()).writer


def test_what_another_process_predicts_meanwhile_was_not_predicted_before(monkeypatch):
    metric = dump(config())
    row = {number: prediction_row(number, [[0, 0, 1, 1]], [0.5], [0]) for number in (1, 2)}
    metric.writer.write(row[1])
    metric.writer.close()
    metric = dump(config())

    def begin_early() -> None:
        """The other process has passed the barrier first."""
        header = read_header("p.jsonl")
        with PredictionWriter("p.jsonl", header, rank=1, world_size=2) as other:
            other.write(row[2])

    monkeypatch.setattr("llmdet.engine.testing.barrier", begin_early)
    loop = ResumableTestLoop.__new__(ResumableTestLoop)
    loop.evaluator = SimpleNamespace(metrics=[metric])
    assert list(loop._read_stored()) == [(None, 1)]


def test_a_resume_with_augmentation_is_refused_and_named():
    dump(config()).writer.close()
    changed = config()
    use_test_time_augmentation(changed)
    with pytest.raises(ConfigError, match=r"protocol\.test_time_augmentation"):
        _ = dump(changed).writer


def test_a_resume_with_other_classes_is_refused_and_names_them():
    dump(config()).writer.close()
    with pytest.raises(ConfigError, match=r"classes = \['cat', 'dog'\], this run has \['cat'\]"):
        _ = dump(config(), classes=("cat",)).writer


def test_a_resume_with_other_candidates_is_refused_and_names_them():
    """The data set knows whose they are, where a config has only their place."""

    def asked(of):
        metric = dump(config())
        metric.dataset_meta |= {"protocol": {"candidates": {"file": "c.jsonl", "model": of}}}
        return metric

    asked("tiny").writer.close()
    assert read_header("p.jsonl").protocol["candidates"]["model"] == "tiny"
    with pytest.raises(ConfigError, match=r"protocol\.candidates\.model = 'tiny', this run has"):
        _ = asked("large").writer


@pytest.mark.parametrize(
    "changes",
    [
        {"model.test_cfg": {"limit_per": "image", "chunks_per_forward": 1}},
        {"model.quirks": {}},
        {"model.train_cfg.assigner": {"type": "x"}},
        {"test_dataloader.dataset.data_root": "elsewhere/", "test_dataloader.num_workers": 0},
    ],
)
def test_what_changes_no_number_does_not_hinder_a_resume(changes):
    dump(config()).writer.close()
    changed = config()
    merge_options(changed, changes)
    dump(changed).writer.close()


def test_the_limit_of_augmented_tests_is_that_of_the_merged_views():
    settings = config()
    settings.model.test_cfg = {"max_per_img": 50}
    use_test_time_augmentation(settings)
    settings.model.max_per_img = 20
    header = dump(settings).header
    assert (header.limit_per, header.max_per_image) == ("image", 20)


def test_main_recipes_record_the_protocol_of_fixed_ap(root):
    settings = load_config(root / "configs" / "val" / "lvis_minival_swin_t.py")
    settings.load_from = "weights.pth"
    header = dump(settings).header
    assert (header.limit_per, header.max_per_image, header.chunk_size) == ("chunk", 300, 40)
    assert list(header_differences(header, dataclasses.replace(header, chunk_size=80))) == [
        "chunk_size = 40, this run has 80"
    ]
