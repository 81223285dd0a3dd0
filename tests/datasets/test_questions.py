"""Evaluation sets in which every sample is one question."""

import json

import numpy as np
import pytest

from llmdet.datasets.question_rows import read_questions
from llmdet.errors import ConfigError, DataError
from llmdet.prompts.mask_tasks import GCG_QUESTION
from llmdet.prompts.region_tasks import ask_of_regions
from llmdet.registry import DATASETS
from llmdet.testing.benchmarks import HEIGHT, WIDTH
from llmdet.testing.mask_benchmarks import write_mask_miniature
from llmdet.testing.region_benchmarks import write_region_miniature

LEFT, RIGHT = [4.0, 4, 20, 16], [24.0, 10, 36, 26]


def build(kind, folder, ann_file, **settings):
    return DATASETS.build(
        {
            "type": kind,
            "data_root": str(folder),
            "ann_file": ann_file,
            "serialize_data": False,
            **settings,
        }
    )


def asked(info):
    (conversation,) = info["conversations"]
    return [turn.text for turn in conversation.turns]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("regions")
    for name in ("coco_classification", "refcocog_choice", "refcocog_captions", "pope"):
        write_region_miniature(name, folder)
    return folder / "data"


def classification(data, **settings):
    file = "annotations/instances_val2017.json"
    prefix = {"img": "val2017"}
    kind = "RegionClassificationDataset"
    return build(kind, data / "coco", file, data_prefix=prefix, **settings)


def test_every_object_but_crowds_is_a_question_of_its_own(data):
    dataset = classification(data, vocabulary="COCO-2")
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    assert [info["img_id"] for info in infos] == [10, 11]
    assert [info["regions"].boxes.tolist() for info in infos] == [[LEFT], [RIGHT]]
    assert all(info["regions"].masks is None and "window" not in info for info in infos)
    (text,) = asked(infos[0])
    assert text.startswith("<image>\nWhat category name best describes the region")
    assert text.endswith("from COCO-2 categories.")
    assert dataset.metainfo["classes"] == ("cat", "dog")


def test_the_annotated_masks_and_a_window_are_there_on_request(data):
    info = classification(data, regions="masks", window=True).get_data_info(1)
    assert len(info["regions"].masks[0][0]) == 8
    x1, y1, x2, y2 = info["window"]
    assert (x2 - x1, y2 - y1) == (HEIGHT, HEIGHT)
    assert x1 <= RIGHT[0]
    assert x2 >= RIGHT[2] <= WIDTH
    with pytest.raises(ConfigError, match="use 'boxes' or 'masks'"):
        classification(data, regions="mask")


def test_a_region_with_captions_is_one_question(data):
    file = "mdetr_annotations/finetune_refcocog_val_captions.json"
    settings = {"data_prefix": {"img": "train2014"}, "task": "caption"}
    info = build("RegionCaptionDataset", data / "coco", file, **settings).get_data_info(1)
    assert (info["img_id"], asked(info)) == (2, [f"<image>\n{ask_of_regions('caption')}"])
    assert info["regions"].boxes.tolist() == [RIGHT]


def test_two_boxes_under_one_id_are_no_region(tmp_path):
    boxes = [{"image_id": 1, "bbox": [0, 0, n, 9], "caption": "a"} for n in (3, 4)]
    content = {"images": [{"id": 1, "file_name": "1.jpg"}], "annotations": boxes}
    (tmp_path / "c.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"annotations\[1\] has another box"):
        build("RegionCaptionDataset", tmp_path, "c.json")


def choice(data, **settings):
    settings = {"candidates": "candidates/refcocog_val.jsonl", **settings}
    file = "mdetr_annotations/finetune_refcocog_val.json"
    prefix = {"img": "train2014"}
    return build("RegionChoiceDataset", data / "coco", file, data_prefix=prefix, **settings)


def test_candidates_are_offered_in_an_order_that_tells_nothing_and_always_the_same(data):
    dataset = choice(data)
    info = dataset.get_data_info(0)
    assert sorted(info["regions"].boxes.tolist()) == [LEFT, RIGHT]
    assert 'denoted by <region>, <region>, which one fits "the cat"?' in asked(info)[0]
    orders = {choice(data, seed=n).get_data_info(0)["regions"].boxes[0, 0] for n in range(8)}
    assert len(orders) == 2
    again = choice(data).get_data_info(0)["regions"].boxes
    np.testing.assert_array_equal(again, info["regions"].boxes)
    assert dataset.metainfo["protocol"]["candidates"]["model"] == "tiny"
    assert dataset.metainfo["protocol"]["candidates"]["weights_hash"] == "abc"


def test_the_true_box_is_added_only_on_request_and_where_none_overlaps_it(data):
    best = [choice(data, max_candidates=1).get_data_info(n)["regions"] for n in range(2)]
    assert [regions.boxes.tolist() for regions in best] == [[LEFT], [LEFT]]
    limited = choice(data, max_candidates=1, add_truth=True)
    with_truth = [limited.get_data_info(n)["regions"].boxes.tolist() for n in range(2)]
    assert with_truth[0] == [LEFT]
    assert sorted(with_truth[1]) == [LEFT, RIGHT]


def test_candidates_may_be_coco_results_by_picture(data, tmp_path):
    results = [{"image_id": 9, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}]
    (tmp_path / "c.json").write_text(json.dumps(results))
    with pytest.raises(DataError, match="has no field 'original_id'"):
        choice(data, candidates=str(tmp_path / "c.json"), candidates_of="image")
    offered = choice(data, candidates=str(tmp_path / "c.json")).get_data_info(0)
    assert len(offered["regions"]) == 0
    (tmp_path / "rows.jsonl").write_text("{}\n")
    with pytest.raises(DataError, match=r"no header of tools/test\.py --out"):
        choice(data, candidates=str(tmp_path / "rows.jsonl"))


def test_pope_asks_for_one_word(data):
    dataset = build("POPEDataset", data, "pope/coco_pope_random.json", suffix=" Yes or no?")
    assert asked(dataset.get_data_info(0)) == ["<image>\nIs there a cat in the image? Yes or no?"]


@pytest.fixture
def rows(tmp_path):
    said = ["What is <region>?", "a cat", "Is <region> left of <region:0>?", "no"]
    turns = [{"from": ("human", "gpt")[n % 2], "value": text} for n, text in enumerate(said)]
    row = {
        "filename": "a.png",
        "width": WIDTH,
        "height": HEIGHT,
        "regions": [{"bbox": LEFT}, {"bbox": RIGHT}],
        "conversations": [{"from": "system", "value": "Be brief."}, *turns],
    }
    caption = {
        "filename": "b.png",
        "conversations": [
            {"from": "human", "value": "<image>\nDescribe."},
            {"from": "gpt", "value": "A mat."},
        ],
    }
    (tmp_path / "rows.jsonl").write_text(f"{json.dumps(row)}\n{json.dumps(caption)}\n")
    return tmp_path


def test_rows_are_asked_turn_by_turn(rows):
    dataset = build("RowQuestionDataset", rows, "rows.jsonl")
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    assert [info["img_id"] for info in infos] == [0, 1, 2]
    assert [asked(info) for info in infos] == [
        ["Be brief.", "<image:0>\nWhat is <region:0>?"],
        ["Be brief.", "<image>\nIs <region:1> left of <region:0>?"],
        ["<image:0>\nDescribe."],
    ]
    assert [question.answer for question in read_questions(rows / "rows.jsonl")] == [
        "a cat",
        "no",
        "A mat.",
    ]


def test_what_was_said_before_is_shown_on_request(rows):
    info = build("RowQuestionDataset", rows, "rows.jsonl", history=True).get_data_info(1)
    assert asked(info)[1:] == [
        "<image:0>\nWhat is <region:0>?",
        "a cat",
        "Is <region:1> left of <region:0>?",
    ]


def test_a_picture_elsewhere_is_refused(tmp_path):
    question = {"question_id": 1, "image": "../secret.jpg", "text": "?", "label": "yes"}
    (tmp_path / "q.jsonl").write_text(json.dumps(question) + "\n")
    with pytest.raises(DataError, match="question 1"):
        build("POPEDataset", tmp_path, "q.jsonl")


def grounded(tmp_path, **settings):
    write_mask_miniature("gcg", tmp_path)
    file = "GranDf/annotations/val_test/val_gcg_coco_caption_gt.json"
    prefix = {"img": "GranDf_HA_images/val_test"}
    folder = tmp_path / "data/grandf"
    return folder, build("GroundedCaptionDataset", folder, file, data_prefix=prefix, **settings)


def test_each_picture_is_asked_for_a_grounded_caption(tmp_path):
    folder, dataset = grounded(tmp_path)
    info = dataset.get_data_info(0)
    assert (info["img_id"], asked(info)) == (1, [f"<image>\n{GCG_QUESTION}"])
    introduction = "The <image> provides an overview of the picture.\n"
    _, dataset = grounded(tmp_path, legacy_prompt=True, introduction=introduction)
    (text,) = asked(dataset.get_data_info(0))
    assert text.startswith(f"{introduction}Could you")
    assert "interleaved     segmentation" in text
    asked_of = dataset.metainfo["protocol"]["asked_of"]
    assert asked_of == {"question": text.removeprefix(introduction), "introduction": introduction}
    (folder / "names.json").write_text('{"images": [{"id": "sa_07"}]}')
    prefix = {"img": "GranDf_HA_images"}
    dataset = build("GroundedCaptionDataset", folder, "names.json", data_prefix=prefix)
    info = dataset.get_data_info(0)
    assert (info["img_id"], info["img_path"].rpartition("/")[2]) == (7, "sa_07.jpg")


def test_what_an_answer_shows_is_not_shown_to_the_model(tmp_path):
    regions = [{"bbox": LEFT}, {"bbox": RIGHT}, {"bbox": LEFT}]
    texts = ["Beside <region>?", "It is <mask:2>.", "And <region:1>?", "<p>this</p><mask:0>."]
    turns = [{"from": ("human", "gpt")[n % 2], "value": text} for n, text in enumerate(texts)]
    row = {"filename": "1.jpg", "height": HEIGHT, "width": WIDTH, "regions": regions}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row | {"conversations": turns}))
    dataset = build("RowQuestionDataset", tmp_path, "rows.jsonl", history=True)
    first, second = (dataset.get_data_info(index) for index in range(2))
    assert [len(info["regions"]) for info in (first, second)] == [1, 2]
    assert asked(second) == ["<image:0>\nBeside <region:0>?", *texts[1:3]]
    assert [turn.learned for turn in second["conversations"][0].turns] == [False, True, False]
    given = build(
        "RowQuestionDataset", tmp_path, "rows.jsonl", answers="given", introduction="See <image>. "
    )
    assert asked(given.get_data_info(0)) == ["See <image>. Beside <region:0>?", texts[1]]
    given = given.get_data_info(1)
    assert asked(given)[1] == texts[3]
    assert given["answers_given"]
    with pytest.raises(ConfigError, match="use 'generated' or 'given'"):
        build("RowQuestionDataset", tmp_path, "rows.jsonl", answers="forced")
