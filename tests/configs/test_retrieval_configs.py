"""Evaluation configs of ChatRex and RexSeek on miniatures: a model that is right wins."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from llmdet.datasets.sample import grounding_of
from llmdet.datasets.views import ViewSettings
from llmdet.engine.conversations import share_settings
from llmdet.engine.settings import check_settings
from llmdet.errors import ConfigError, DataError
from llmdet.evaluation.suite import flatten, protocol_note, run_metric
from llmdet.models.outputs import ObjectIndex
from llmdet.prompts.objects import GroundedPhrase, ObjectAnswer, ObjectGrammar
from llmdet.registry import DATASETS, METRICS
from llmdet.testing.retrieval_benchmarks import (
    RETRIEVAL_WRITERS,
    write_candidates,
    write_retrieval_miniature,
)
from llmdet.utils.config import load_config

CONFIGS = Path(__file__).parents[2] / "configs"
NAMES = sorted(
    f"{path.parent.name}/{path.stem}"
    for folder in ("chatrex", "rexseek")
    for path in (CONFIGS / folder).glob("*.py")
    if not path.stem.startswith(("stage", "infer"))
)
#: Numbers that must be the best possible where every answer is right.
PERFECT = {
    "humanref": (
        "humanref/average.density_f1_mean",
        "humanref/average.recall_mean",
        "humanref/rejection_score",
        "humanref/box_count.2-5.density_f1_50",
    ),
    "coco_retrieval": ("coco/bbox_mAP", "retrieval/precision_50", "retrieval/recall_50"),
    "lvis_retrieval": ("lvis/bbox_AP", "lvis/bbox_APr", "retrieval/f1_50"),
    "refexp": ("refcocog_test/refexp/refcocog_precision@1", "val/refexp/refcoco_precision@1"),
    "lvis_names": (
        "region_classification/semantic_iou",
        "region_classification/semantic_similarity",
    ),
    "paco_names": (
        "region_classification/semantic_iou",
        "region_classification/semantic_similarity",
    ),
}
GRAMMAR = ObjectGrammar()


class Viewed:
    """As a model with a tower, without one."""

    @staticmethod
    def view_settings():
        return {"dual": ViewSettings((28, 28))}


def built(name, **options):
    """The data set and the evaluator of a config, in the present folder."""
    config = load_config(CONFIGS / f"{name}.py", options)
    check_settings(config)
    share_settings(Viewed(), config.test_dataloader)
    with DefaultScope.overwrite_default_scope(config.default_scope):
        dataset = DATASETS.build(config.test_dataloader.dataset)
        evaluator = Runner.build_evaluator(None, config.test_evaluator)
    evaluator.dataset_meta = dataset.metainfo
    return dataset, evaluator


def measured(dataset, evaluator, answer, dump=None):
    """Numbers of a model that answers ``answer(sample, number of the question)``."""
    for index in range(len(dataset)):
        sample = dataset[index]["data_samples"]
        count = len(grounding_of(sample).conversations)
        ObjectIndex().write_prediction(sample, [answer(sample, n) for n in range(count)])
        evaluator.process([sample])
        if dump is not None:
            dump.process(None, [sample.to_dict()])
    return evaluator.evaluate(len(dataset))


def found(named):
    """An answer that names candidates behind phrases."""
    phrases = [GroundedPhrase(name, tuple(n), (0.5,) * len(n)) for name, n in named.items() if n]
    return ObjectAnswer(GRAMMAR.write(named), tuple(phrases))


def right_answers(truth):
    """What a model says that knows everything."""

    def answer(sample, number):
        known = truth[sample.get("benchmark_set"), sample.img_id]
        grounding = grounding_of(sample)
        if not grounding.sought:
            return found({known[number].replace("_", " "): [0]})
        boxes = [box.tolist() for box in grounding.regions.boxes]
        names = grounding.sought[number].names
        return found({name: [boxes.index(box) for box in known[name]] for name in names})

    return answer


def test_every_evaluation_has_a_miniature():
    assert {name.partition("/")[2] for name in NAMES} == set(RETRIEVAL_WRITERS) == set(PERFECT)


@pytest.mark.parametrize("name", NAMES)
def test_a_model_that_is_right_gets_the_best_numbers(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    benchmark = name.partition("/")[2]
    truth = write_retrieval_miniature(benchmark, tmp_path)
    values = measured(*built(name), right_answers(truth))
    for number in PERFECT[benchmark]:
        assert values[number] == pytest.approx(1), number


#: Of a prediction file: metric, annotations, and its number -> the number of the test.
AGAIN = {
    "humanref": ("humanref", "humanref/annotations.jsonl", "average.density_f1_mean"),
    "coco_retrieval": ("retrieval", "coco/annotations/instances_val2017.json", "f1_50"),
    "lvis_retrieval": (
        "retrieval",
        "coco/annotations/lvis_v1_minival_inserted_image_name.json",
        "precision_50",
    ),
    "lvis_names": ("region-classification", "coco/annotations/lvis_v1_val.json", "semantic_iou"),
}


@pytest.mark.parametrize("benchmark", AGAIN)
def test_a_prediction_file_gives_the_digits_again(benchmark, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    truth = write_retrieval_miniature(benchmark, tmp_path)
    dataset, evaluator = built(f"chatrex/{benchmark}")
    dump = METRICS.build(
        {"type": "DumpPredictions", "out_file": "preds.jsonl", "header": {"model": "tiny"}}
    )
    dump.dataset_meta = dataset.metainfo
    right = right_answers(truth)

    def half_right(sample, number):
        """The first question is answered as it should be, every other one with the first box."""
        sought = grounding_of(sample).sought
        if not sought or number == sample.img_id % 2:
            return right(sample, number if sought else 0)
        return found({sought[number].names[0]: [0]})

    values = measured(dataset, evaluator, half_right, dump)
    dump.evaluate(len(dataset))
    metric, file, number = AGAIN[benchmark]
    again = run_metric(metric, f"data/{file}", "preds.jsonl")
    first = f"{metric.replace('-', '_')}/"
    same = {k.removeprefix(first): v for k, v in values.items() if k.startswith(first)}
    numbers = flatten(again.values)
    assert numbers == {name: same[name] for name in numbers}
    assert 0 < numbers[number] < 1
    assert again.protocol == protocol_note(again.predictions)


def test_who_boxes_everybody_finds_all_by_construction(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_retrieval_miniature("humanref", tmp_path)
    dataset, evaluator = built("rexseek/humanref")

    def everybody(sample, number):
        grounding = grounding_of(sample)
        return found({grounding.sought[number].names[0]: range(len(grounding.regions))})

    values = measured(dataset, evaluator, everybody)
    assert values["humanref/average.recall_mean"] == 1
    assert values["humanref/average.precision_mean"] == pytest.approx((1 / 3 + 2 / 3 + 1) / 3)
    assert values["humanref/domain.interaction.density_f1_mean"] == pytest.approx(1)
    assert values["humanref/rejection_score"] == 0
    protocol = dataset.metainfo["protocol"]
    assert protocol["candidates"] == {"file": "annotations.jsonl", "annotated": True}


def test_humanref_among_a_detectors_boxes_can_only_find_what_is_offered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    truth = write_retrieval_miniature("humanref", tmp_path)
    boxes = {n: next(iter(truth[None, n].values()))[:1] for n in range(4)}
    write_candidates(tmp_path / "data" / "humanref" / "upn.jsonl", boxes)
    option = {"test_dataloader.dataset.candidates": "upn.jsonl"}
    dataset, evaluator = built("rexseek/humanref", **option)

    def first(sample, number):
        regions = grounding_of(sample).regions
        return found({grounding_of(sample).sought[number].names[0]: range(len(regions))})

    values = measured(dataset, evaluator, first)
    assert values["humanref/average.recall_mean"] == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)
    assert values["humanref/rejection_score"] == 1
    assert dataset.metainfo["protocol"]["candidates"]["model"] == "tiny"


def test_several_names_in_one_question_and_all_names_of_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    truth = write_retrieval_miniature("coco_retrieval", tmp_path)
    place = "test_dataloader.dataset."
    dataset, evaluator = built("chatrex/coco_retrieval", **{place + "several": True})
    (conversation,) = grounding_of(dataset[0]["data_samples"]).conversations
    assert conversation.turns[0].text == (
        "<image>\n<obj0><region:0><obj1><region:1><obj2><region:2>\n"
        "Please detect cat; dog in this image. Answer the question with object indexes."
    )
    values = measured(dataset, evaluator, right_answers(truth))
    assert [values["coco/bbox_mAP"], values["retrieval/f1_50"]] == pytest.approx([1, 1])
    options = {place + "names": "all", place + "score_threshold": 0.75}
    dataset, evaluator = built("chatrex/coco_retrieval", **options)
    grounding = grounding_of(dataset[0]["data_samples"])
    assert [sought.names for sought in grounding.sought] == [("cat",), ("dog",)]
    assert len(grounding.regions) == 2  # the third scores less
    assert grounding.regions.scores.tolist() == pytest.approx([0.9, 0.8])


def test_no_image_is_left_out_where_nothing_is_asked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_retrieval_miniature("coco_retrieval", tmp_path)
    path = tmp_path / "data/coco/annotations/instances_val2017.json"
    content = path.read_text().replace('"iscrowd": 0', '"iscrowd": 1')
    path.write_text(content)
    dataset, _ = built("chatrex/coco_retrieval")
    sample = dataset[0]["data_samples"]
    ObjectIndex().write_prediction(sample, [])
    assert len(sample.pred_instances.bboxes) == 0
    assert np.shape(grounding_of(sample).regions.boxes) == (0, 4)


def test_what_cannot_be_tested_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_retrieval_miniature("humanref", tmp_path)
    place = "test_dataloader.dataset."
    with pytest.raises(ConfigError, match="annotated candidates have no scores"):
        built("rexseek/humanref", **{place + "scores": "candidate"})
    with pytest.raises(ConfigError, match=r"has no \[OBJ\]"):
        built("rexseek/humanref", **{place + "question": "Where?"})
    with pytest.raises(DataError, match="holds 3, more than max_candidates"):
        built("rexseek/humanref", **{place + "max_candidates": 2})
    write_retrieval_miniature("coco_retrieval", tmp_path)
    with pytest.raises(ConfigError, match="ClassRetrievalDataset needs candidates"):
        built("chatrex/coco_retrieval", **{place + "candidates": None})
    write_retrieval_miniature("lvis_names", tmp_path)
    with pytest.raises(ConfigError, match="text_encoder: 'nowhere' is neither a folder"):
        built("chatrex/lvis_names", **{"test_evaluator.text_encoder": "nowhere"})
