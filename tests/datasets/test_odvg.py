"""Rows of grounding JSONL become samples, and what cannot be learnt from is counted."""

import pickle

import cv2
import numpy as np
import pytest
from mmengine.dataset import ConcatDataset
from mmengine.registry import init_default_scope

from llmdet.datasets.odvg import ODVGDataset
from llmdet.datasets.sample import grounding_of
from llmdet.errors import ConfigError, DataError
from llmdet.prompts.conversation import ask
from llmdet.registry import DATASETS

CAPTION = "A red ball lies beside a small dog."


def region(bbox, phrase="red ball", span=(2, 10)):
    return {"bbox": bbox, "phrase": phrase, "tokens_positive": [list(span)]}


def grounding(*regions, **fields):
    form = {"caption": CAPTION, "regions": list(regions)}
    return {"filename": "a.jpg", "height": 40, "width": 60, "grounding": form, **fields}


def detection(*boxes, **fields):
    instances = [{"bbox": box, "label": label, "category": "?"} for box, label in boxes]
    form = {"instances": instances}
    return {"filename": "a.jpg", "height": 40, "width": 60, "detection": form, **fields}


def talk(answer, prompt="<image>\nWhat is it?"):
    return [{"from": "human", "value": prompt}, {"from": "gpt", "value": answer}]


@pytest.fixture
def open_rows(write_rows):
    def build(*rows, **settings):
        path = write_rows(*rows)
        settings = {"data_prefix": dict(img="pictures/")} | settings
        return ODVGDataset(ann_file=str(path), **settings)

    return build


def test_a_grounding_row_gives_text_phrases_and_boxes(open_rows):
    dog = [[1, 2, 30, 30], [20, 5, 50, 35]]
    row = grounding(region([10, 10, 20, 20]), region(dog, ["small dog", "dog"], (25, 34)))
    info = open_rows(row)[0]
    assert info["img_path"] == "pictures/a.jpg"
    assert (info["height"], info["width"], info["dataset_mode"]) == (40, 60, "VG")
    assert info["text"] == CAPTION
    assert info["instances"] == [
        {"bbox": [10, 10, 20, 20], "bbox_label": 0, "ignore_flag": 0},
        {"bbox": dog[0], "bbox_label": 1, "ignore_flag": 0},
        {"bbox": dog[1], "bbox_label": 1, "ignore_flag": 0},
    ]
    assert info["phrases"][1] == {"phrase": ["small dog", "dog"], "tokens_positive": [[25, 34]]}
    assert info["conversations"] == ()
    assert info["tags"] == []


def test_a_detection_row_gives_labels_and_the_label_map(open_rows, write_json):
    label_map = write_json("labels.json", {"0": "cat", "1": "dog"})
    dataset = open_rows(detection(([1, 1, 9, 9], 1)), label_map_file=str(label_map))
    info = dataset[0]
    assert info["text"] == {"0": "cat", "1": "dog"}
    assert "phrases" not in info
    assert info["instances"][0]["bbox_label"] == 1
    assert info["dataset_mode"] == "OD"
    assert dataset.metainfo["classes"] == ("cat", "dog")
    without_text = open_rows(detection(), label_map_file=str(label_map), need_text=False)
    assert "text" not in without_text[0]


def test_a_row_without_detection_is_an_image_without_objects(open_rows, write_json):
    label_map = write_json("labels.json", {"0": "cat"})
    row = {"filename": "a.jpg", "height": 40, "width": 60}
    assert open_rows(row, label_map_file=str(label_map))[0]["instances"] == []


def test_unusable_boxes_are_dropped_and_counted_by_cause(open_rows):
    dataset = open_rows(
        grounding(
            region([-5, 2, 20, 30]),
            region([60, 5, 80, 20]),
            region([10, 10, 10.5, 30]),
            region([[10, 10, 30, 10.2], [-20, 0, 0, 10]]),
        )
    )
    info = dataset[0]
    assert [instance["bbox"] for instance in info["instances"]] == [[-5, 2, 20, 30]]
    assert list(info["phrases"]) == [0]
    assert dataset.dropped.counts == {"box outside the image": 2, "box under 1 pixel": 2}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ("<image>\nDescribe the image in detail.", "A dog.")),
        ({"clean_caption": False}, ("<image>\nDescribe the image in detail.", "A dog. Maybe red.")),
        ({"use_uniform_prompt": False}, ("<image>\nWhat is it?", "A dog.")),
        ({"use_short_cap": True}, ("<image>\nDescribe the image in detail.", CAPTION)),
        (
            {"use_short_cap": True, "actual_dataset_mode": "OD"},
            ("<image>\nDescribe the image in detail.", "A dog."),
        ),
    ],
)
def test_caption_options_choose_question_and_answer(open_rows, settings, expected):
    row = grounding(conversations=talk("A dog. Maybe red."), tags=["ball"])
    assert open_rows(row, **settings)[0]["conversations"] == (ask(*expected),)


def test_a_row_with_a_conversation_alone_is_an_image_without_a_text(open_rows):
    row = grounding(conversations=talk("A dog."))
    del row["grounding"]
    info = open_rows(row)[0]
    assert info["conversations"][0].turns[1].text == "A dog."
    assert (info["instances"], info["phrases"]) == ([], {})
    assert "text" not in info


def test_questions_without_a_mark_have_the_image_in_front(open_rows):
    row = grounding(conversations=talk("A dog."))
    row["conversations"][0]["value"] = "What is it?"
    (conversation,) = open_rows(row, use_uniform_prompt=False)[0]["conversations"]
    assert conversation.turns[0].text == "<image>\nWhat is it?"


def test_short_caption_leaves_out_sentences_that_are_tags(open_rows):
    row = grounding(conversations=talk("A dog."), tags=["dog", "red ball"])
    row["grounding"]["caption"] = "dog. red ball. A dog runs. grass"
    (caption,) = open_rows(row, use_short_cap=True)[0]["conversations"]
    assert caption.turns[1].text == "A dog runs. grass."


def test_a_caption_that_says_nothing_certain_is_left_out_and_counted(open_rows):
    row = grounding(conversations=talk("Perhaps a dog."))
    dataset = open_rows(row)
    assert dataset[0]["conversations"] == ()
    assert dataset.dropped.counts == {"caption empty after cleaning": 1}
    (upstream,) = open_rows(row, clean_caption="upstream")[0]["conversations"]
    assert upstream.turns[1].text == "Perhaps a dog."


@pytest.mark.parametrize("conversations", [None, []])
def test_captions_are_optional(open_rows, conversations):
    assert open_rows(grounding(conversations=conversations))[0]["conversations"] == ()


BROKEN = {
    "width": (grounding(width="60"), "field 'width'"),
    "filename": (grounding(filename=None), "field 'filename' is missing"),
    "caption": (grounding() | {"grounding": {"regions": []}}, "'grounding.caption' is missing"),
    "grounding": (grounding(grounding=[]), "'grounding' must be an object"),
    "box": (grounding(region([1, 2, 3])), r"'grounding.regions\[0\].bbox' must be four numbers"),
    "boxes": (grounding(region([[1, 2, 3, "4"]])), r"regions\[0\].bbox\[0\]' must be four"),
    "phrase": (grounding(region([1, 2, 30, 30], 7)), r"'grounding.regions\[0\].phrase'"),
    "spans": (grounding(region([1, 2, 30, 30], span=("0", 3))), r"regions\[0\].tokens_positive"),
    "turns": (grounding(conversations=talk("x")[:1]), "'conversations' must hold"),
    "value": (grounding(conversations=[{"from": "human"}, {}]), r"'conversations\[0\].value'"),
    "tags": (grounding(tags="dog"), "'tags' must be a list"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_row_names_file_line_and_field(open_rows, name):
    row, message = BROKEN[name]
    dataset = open_rows(grounding(), row)
    with pytest.raises(DataError, match=rf"rows\.jsonl:2: .*{message}"):
        dataset[1]


DIALOGUE = [
    {"from": "human", "value": "<image>\nWhat is <region>? And <region:0>?"},
    {"from": "gpt", "value": "A ball."},
    {"from": "human", "value": "What is <region:1>?"},
    {"from": "gpt", "value": "Perhaps a dog."},
]
SQUARE = [[10, 10, 20, 10, 20, 20, 10, 20]]


def test_a_conversation_about_regions_is_kept_as_it_stands(open_rows):
    regions = [{"bbox": [1, 2, 30, 30]}, {"segmentation": SQUARE}]
    info = open_rows(grounding(conversations=DIALOGUE, regions=regions))[0]
    (conversation,) = info["conversations"]
    assert [turn.role for turn in conversation.turns] == ["user", "assistant"] * 2
    assert [turn.learned for turn in conversation.turns] == [False, True] * 2
    assert conversation.turns[3].text == "Perhaps a dog."
    assert [slot.index for slot in conversation.slots] == [0, 0, 0, 1]
    np.testing.assert_array_equal(info["regions"].boxes, [[1, 2, 30, 30], [10, 10, 20, 20]])
    assert info["regions"].boxes.dtype == np.float32
    assert info["regions"].masks == (None, SQUARE)


def test_a_caption_is_a_conversation_of_two_turns(open_rows):
    info = open_rows(grounding(conversations=talk("A dog. Maybe red.")))[0]
    assert info["conversations"] == (ask("<image>\nDescribe the image in detail.", "A dog."),)
    assert len(info["regions"]) == 0
    assert open_rows(grounding(conversations=talk("Perhaps a dog.")))[0]["conversations"] == ()


def test_a_row_with_a_caption_alone_is_an_image_without_boxes(open_rows, tmp_path):
    row = {"id": "000012", "image": "000012.jpg", "conversations": talk("A dog.")}
    (tmp_path / "pictures").mkdir()
    cv2.imwrite(str(tmp_path / "pictures" / "000012.jpg"), np.zeros((40, 60, 3), np.uint8))
    prefix = dict(data_prefix=dict(img=str(tmp_path / "pictures")))
    info = open_rows(row, **prefix)[0]
    assert info["img_path"] == str(tmp_path / "pictures" / "000012.jpg")
    assert (info["width"], info["height"]) == (60, 40)
    assert "text" not in info
    assert (info["instances"], info["phrases"]) == ([], {})
    assert info["conversations"][0].turns[1].text == "A dog."
    with_sizes = open_rows(row | {"width": 6, "height": 4}, **prefix)[0]
    assert (with_sizes["width"], with_sizes["height"]) == (6, 4)
    with pytest.raises(DataError, match=r"rows\.jsonl:1: the picture .*absent\.jpg does not exist"):
        open_rows(row | {"image": "absent.jpg"}, **prefix)[0]


def test_captions_alone_go_through_the_whole_pipeline(open_rows, bert_folder, tmp_path):
    cv2.imwrite(str(tmp_path / "a.jpg"), np.zeros((40, 60, 3), np.uint8))
    pipeline = [
        dict(type="LoadImageFromFile"),
        dict(type="LoadAnnotations", with_bbox=True),
        dict(type="RandomSamplingNegPos", tokenizer_name=bert_folder, num_region_caption=2),
        dict(type="PackGroundingInputs"),
    ]
    row = {"image": "a.jpg", "conversations": talk("A dog.")}
    init_default_scope("llmdet")
    dataset = open_rows(row, data_prefix=dict(img=str(tmp_path)), pipeline=pipeline)
    packed = dataset[0]
    sample = packed["data_samples"]
    assert len(sample.gt_instances) == 0
    grounding = grounding_of(sample)
    (conversation,) = grounding.conversations
    assert conversation.turns[1].text == "A dog."
    assert grounding.prompt is None


def test_masks_of_boxes_are_handed_on_as_mmdet_names_them(open_rows, write_json):
    box = {"bbox": [10, 10, 20, 20], "label": 0, "segmentation": SQUARE}
    row = detection() | {"detection": {"instances": [box]}}
    label_map = write_json("labels.json", {"0": "cat"})
    assert open_rows(row, label_map_file=str(label_map))[0]["instances"][0]["mask"] == SQUARE
    phrase = region([10, 10, 20, 20]) | {"segmentation": SQUARE}
    assert open_rows(grounding(phrase))[0]["instances"][0]["mask"] == SQUARE


def test_rows_of_the_other_form_are_refused_with_the_setting(open_rows, write_json):
    with pytest.raises(DataError, match="in detection form, which the data set reads with label_m"):
        open_rows(detection())[0]
    label_map = str(write_json("labels.json", {"0": "cat"}))
    with pytest.raises(DataError, match="in grounding form, which the data set reads without lab"):
        open_rows(grounding(), label_map_file=label_map)[0]
    nothing = {"filename": "a.jpg", "width": 60, "height": 40, "groundings": {}}
    with pytest.raises(DataError, match="'grounding' is missing, and there are no 'conversations'"):
        open_rows(nothing)[0]


def test_a_label_beyond_the_label_map_is_named(open_rows, write_json):
    label_map = write_json("labels.json", {"0": "cat"})
    dataset = open_rows(detection(([1, 1, 9, 9], 4)), label_map_file=str(label_map))
    with pytest.raises(DataError, match=r"instances\[0\].label' is 4, but .* 0\.\.0"):
        dataset[0]


def test_permitted_broken_rows_are_replaced_and_counted(open_rows):
    dataset = open_rows(grounding(), BROKEN["box"][0], max_bad_rows=1)
    for _ in range(5):  # the same row is one broken row, however often it is met
        assert dataset[1]["text"] == CAPTION
    assert dataset.dropped.counts["broken record"] == 1
    strict = open_rows(BROKEN["box"][0], BROKEN["box"][0], max_bad_rows=1)
    with pytest.raises(DataError, match="four numbers"):
        [strict[0], strict[1]]


def test_detection_rows_without_boxes_train_as_background_and_are_counted(open_rows, write_json):
    label_map = write_json("labels.json", {"0": "cat"})
    rows = [detection(), detection(([1, 1, 9, 9], 0))]
    dataset = open_rows(*rows, label_map_file=str(label_map))
    assert [len(dataset[index]["instances"]) for index in range(2)] == [0, 1]
    assert dataset.dropped.counts == {"all boxes of an image, which trains as background": 1}


def test_filters_skip_rows_while_training_and_not_in_test_mode(open_rows):
    empty, small = grounding(), grounding(region([1, 1, 9, 9]), width=10, height=10)
    good = grounding(region([1, 1, 9, 9]), filename="good.jpg")
    filters = dict(filter_cfg=dict(filter_empty_gt=True, min_size=20))
    training = open_rows(empty, small, good, **filters)
    assert {training[i]["img_path"] for i in range(3)} == {"pictures/good.jpg"}
    assert set(training.dropped.counts) == {
        "image without boxes (filter_empty_gt)",
        "image smaller than min_size",
    }
    testing = open_rows(empty, small, good, test_mode=True, **filters)
    assert testing[0]["instances"] == []


def numbered(count):
    return [grounding(filename=f"{i}.jpg", width=10 + i, height=20) for i in range(count)]


def names(dataset):
    return [dataset[i]["img_path"].removeprefix("pictures/") for i in range(len(dataset))]


@pytest.mark.parametrize(
    ("indices", "expected"),
    [(2, ["0.jpg", "1.jpg"]), (-1, ["4.jpg"]), ([3, 1], ["3.jpg", "1.jpg"])],
)
def test_a_part_of_the_rows_can_be_chosen(open_rows, indices, expected):
    chosen = open_rows(*numbered(5), indices=indices)
    assert names(chosen) == expected
    whole = open_rows(*numbered(5))
    assert names(whole.get_subset(indices)) == expected
    assert len(whole) == 5
    ratios = [(10 + int(name[0])) / 20 for name in expected]
    np.testing.assert_allclose(chosen.aspect_ratios, ratios, rtol=1e-6)


def test_negative_indices_count_from_the_end_and_others_are_refused(open_rows):
    dataset = open_rows(*numbered(3))
    assert dataset[-1]["img_path"] == "pictures/2.jpg"
    assert dataset[-1]["sample_idx"] == 2
    with pytest.raises(IndexError):
        dataset.get_data_info(3)


def test_image_id_is_the_rows_or_its_place(open_rows):
    assert open_rows(grounding(), grounding(image_id=77))[1]["img_id"] == 77
    assert open_rows(grounding(), grounding())[1]["img_id"] == 1


def test_nothing_is_read_before_it_is_needed(tmp_path):
    missing = ODVGDataset(ann_file=str(tmp_path / "none.jsonl"), lazy_init=True)
    with pytest.raises(DataError, match=r"none\.jsonl"):
        missing.full_init()


def test_an_unpickled_copy_reads_the_same_rows(open_rows):
    dataset = open_rows(*numbered(3), indices=[2, 0])
    assert names(pickle.loads(pickle.dumps(dataset))) == names(dataset)


@pytest.mark.parametrize("setting", [{"clean_caption": "ours"}, {"actual_dataset_mode": "RES"}])
def test_unknown_options_are_refused(open_rows, setting):
    with pytest.raises(ConfigError, match="is unknown"):
        open_rows(grounding(), **setting)


@pytest.mark.usefixtures("scope")
def test_datasets_of_both_forms_concatenate_from_a_config(write_rows, write_json):
    label_map = write_json("labels.json", {"0": "cat"})
    rows = [row | {"detection": {"instances": []}} for row in numbered(3)]
    part = dict(type="ODVGDataset", ann_file=str(write_rows(*rows)))
    both = DATASETS.build(
        dict(type="ConcatDataset", datasets=[part, part | {"label_map_file": str(label_map)}])
    )
    assert isinstance(both, ConcatDataset)
    assert len(both) == 6
    assert "phrases" in both[0]
    assert "phrases" not in both[5]


def test_load_data_list_parses_every_row(open_rows):
    infos = open_rows(*numbered(3)).load_data_list()
    assert [info["sample_idx"] for info in infos] == [0, 1, 2]


@pytest.mark.parametrize("content", [None, b"", b"\xff\xd8\xff\xe0 cut"])
def test_a_broken_picture_counts_as_its_row_and_is_named_with_it(
    open_rows, tmp_path, scope, content
):
    (tmp_path / "pictures").mkdir()
    cv2.imwrite(str(tmp_path / "pictures/good.jpg"), np.zeros((40, 60, 3), np.uint8))
    if content is not None:
        (tmp_path / "pictures/a.jpg").write_bytes(content)
    rows = [grounding(), grounding(filename="good.jpg")]
    settings = dict(
        data_root=str(tmp_path),
        pipeline=[dict(type="LoadImageFromFile")],
        lazy_init=False,
    )
    with pytest.raises(DataError, match=r"rows\.jsonl:1: the picture .*a\.jpg"):
        open_rows(*rows, **settings).prepare_data(0)
    lenient = open_rows(*rows, **settings, max_bad_rows=1)
    assert [lenient.prepare_data(0), lenient.prepare_data(0)] == [None, None]
    assert lenient.prepare_data(1)["img"].shape == (40, 60, 3)
    assert lenient.dropped.counts == {"broken record": 1}


def test_a_picture_outside_its_folder_needs_that_folder_by_name(open_rows, tmp_path):
    row = grounding(filename="/srv/other/a.jpg")
    with pytest.raises(DataError, match=r"rows\.jsonl:1: the picture .* outside the folder"):
        open_rows(row)[0]
    assert open_rows(row, picture_folders=["/srv/other"])[0]["img_path"] == "/srv/other/a.jpg"
    with pytest.raises(ConfigError, match="picture_folders is a list"):
        open_rows(row, picture_folders="/srv/other")


def test_a_box_of_negative_size_is_counted_as_such(open_rows):
    dataset = open_rows(grounding(region([20, 10, 10, 20]), region([10, 20, 20, 10])))
    assert dataset[0]["instances"] == []
    assert dataset.dropped.counts == {"box with negative size": 2}


def test_an_empty_file_is_refused(open_rows):
    with pytest.raises(DataError, match=r"rows\.jsonl: the file has no row"):
        open_rows(lazy_init=False)


def test_a_label_map_may_have_a_byte_order_mark_and_must_be_utf8(open_rows, tmp_path):
    label_map = tmp_path / "map.json"
    label_map.write_bytes(b'\xef\xbb\xbf{"0": "cat"}')
    assert open_rows(detection(), label_map_file=str(label_map)).label_map == {"0": "cat"}
    label_map.write_bytes(b'{"0": "caf\xe9"}')
    with pytest.raises(DataError, match=r"map\.json:1 is not UTF-8"):
        open_rows(detection(), label_map_file=str(label_map))


def test_a_row_that_lies_about_the_size_of_its_picture_is_a_broken_row(open_rows, tmp_path):
    init_default_scope("llmdet")
    (tmp_path / "pictures").mkdir()
    for name in "ab":
        cv2.imwrite(str(tmp_path / f"pictures/{name}.jpg"), np.zeros((40, 60, 3), np.uint8))
    rows = [grounding(width=640, height=480), grounding(filename="b.jpg")]
    settings = dict(data_prefix=dict(img=str(tmp_path / "pictures")))
    settings["pipeline"] = [dict(type="LoadImageFromFile")]
    with pytest.raises(DataError, match=r"rows\.jsonl:1: the picture .*a\.jpg has 60 x 40 pixels"):
        open_rows(*rows, **settings)[0]
    lenient = open_rows(*rows, max_bad_rows=1, **settings)
    assert lenient[0]["img_path"].endswith("b.jpg")
    assert lenient.dropped.counts == {"broken record": 1}
    assert open_rows(*rows, test_mode=True, **settings)[0]["img"].shape == (40, 60, 3)


def test_a_file_of_which_no_row_can_be_used_says_why(open_rows):
    empty = open_rows(grounding(), filter_cfg=dict(filter_empty_gt=True), max_refetch=5)
    with pytest.raises(DataError, match=r"none of 6 samples can be used \(image without boxes"):
        empty[0]
