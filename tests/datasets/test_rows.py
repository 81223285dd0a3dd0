"""Every structural fault of a row is named by its field; masks and conversations are typed."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from llmdet.datasets.rows import read_row
from llmdet.errors import DataError
from llmdet.prompts.conversation import Conversation, Turn

SQUARE = [[10, 10, 20, 10, 20, 20, 10, 20]]
TURNS = [{"from": "human", "value": "<image>\n<region>?"}, {"from": "gpt", "value": "A ball."}]


def row(**fields) -> dict:
    return {"filename": "a.jpg", "width": 40, "height": 30} | fields


def spoken(*turns: tuple[str, str], regions: int = 0) -> dict:
    boxes = [{"bbox": [0, 0, 9, 9]}] * regions
    said = [{"from": speaker, "value": text} for speaker, text in turns]
    return row(conversations=said, regions=boxes)


def encoded(compressed: bool) -> dict:
    mask = np.zeros((30, 40), np.uint8)
    mask[5:10, 20:26] = 1
    rle = coco_mask.encode(np.asfortranarray(mask))
    if compressed:
        return {"size": [30, 40], "counts": rle["counts"].decode()}
    flat = mask.T.ravel()
    steps = np.flatnonzero(np.diff(flat)) + 1
    return {"size": [30, 40], "counts": np.diff([0, *steps, flat.size]).tolist()}


def test_a_row_of_llavas_kind_is_read() -> None:
    said = [{"from": "human", "value": "<image>"}, TURNS[1]]
    read = read_row({"id": 3, "image": "b/a.jpg", "conversations": said}, "f:1")
    assert (read.filename, read.width, read.height) == ("b/a.jpg", None, None)
    assert (read.caption, read.boxes, read.phrases) == (None, None, [])
    turns = (Turn("user", "<image>"), Turn("assistant", "A ball.", learned=True))
    assert read.conversation == Conversation(turns)


def test_the_image_is_put_in_front_where_no_turn_marks_it() -> None:
    said = (("system", "Be brief."), ("human", "What is <region>?"), ("gpt", "A ball."))
    read = read_row(spoken(*said, regions=1), "f:1")
    assert read.conversation.turns[1].text == "<image>\nWhat is <region>?"


def test_a_system_turn_and_the_roles_of_chat_templates_are_understood() -> None:
    said = (("system", "Be brief."), ("user", "<image>?"), ("assistant", "No."))
    read = read_row(spoken(*said), "f:1")
    assert [turn.role for turn in read.conversation.turns] == ["system", "user", "assistant"]


@pytest.mark.parametrize("mask", [SQUARE, encoded(True), encoded(False)])
def test_a_region_may_be_given_by_its_mask_alone(mask) -> None:
    read = read_row(row(conversations=TURNS, regions=[{"segmentation": mask}]), "f:1")
    expected = [[10, 10, 20, 20]] if mask is SQUARE else [[20, 5, 26, 10]]
    assert read.regions.boxes.tolist() == expected
    assert read.regions.masks == (mask,)


def test_box_and_mask_may_stand_together() -> None:
    region = {"bbox": [1, 2, 3, 4], "segmentation": SQUARE}
    read = read_row(row(regions=[region, {"bbox": [5, 6, 7, 8]}]), "f:1")
    assert read.regions.boxes.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert read.regions.masks == (SQUARE, None)


REGION = {"bbox": [0, 0, 9, 9]}
WORDS = {"phrase": "x", "tokens_positive": [[0, 1]]}


def grounded(**region) -> dict:
    return row(grounding={"caption": "x", "regions": [WORDS | region]})


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (spoken(("human", "?")), "'conversations' must hold a human and a gpt turn; gpt's is"),
        (spoken(("gpt", "x")), r"'conversations\[0\].from' is 'gpt' where a turn of the user"),
        (
            spoken(("human", "?"), ("human", "!")),
            r"'conversations\[1\].from' is 'human' where a turn of the assistant",
        ),
        (
            spoken(("human", "?"), ("system", "!"), ("gpt", "x")),
            r"'conversations\[1\].from' is 'system' where",
        ),
        (spoken(("bot", "?")), r"'conversations\[0\].from' is 'bot', not one of human, gpt, user"),
        (row(conversations="hello"), "'conversations' must be a list"),
        (
            row(conversations=[{"from": "human", "value": 3}]),
            r"'conversations\[0\].value' must",
        ),
        (
            spoken(("human", "<region> and <region>"), ("gpt", "x"), regions=1),
            r"'conversations' has a mark for region 1 \(counted from 0\), but the row has 1 region",
        ),
        (
            spoken(("human", "<region:7>?"), ("gpt", "x"), regions=2),
            "has a mark for region 7 .* but the row has 2 region",
        ),
        (spoken(("human", "?"), ("gpt", "It is <region>.")), "has a mark for region 0 .* has 0"),
        (
            spoken(("human", "?"), ("gpt", "It is <mask:1>.")),
            r"has the mask of region 1 \(counted.* has 0",
        ),
        (spoken(("human", "<image><image>"), ("gpt", "x")), "mark for image 1 .* has 1 image"),
        (row(regions=[{}]), r"'regions\[0\].bbox' is missing"),
        (row(regions=[{"bbox": [5, 5, 5, 9]}]), r"'regions\[0\].bbox' \[5, 5, 5, 9\] has no area"),
        (
            row(regions=[REGION, {"segmentation": []}]),
            r"'regions\[1\].segmentation' must be a list of polygons or an encoded mask",
        ),
        (row(regions=[{"segmentation": [[1, 2, 3, 4]]}]), "polygons of at least three points"),
        (row(regions=[{"segmentation": [[1, 2, 3, 4, 5]]}]), "polygons of at least three points"),
        (row(regions=[{"segmentation": [[1, 2, 3, 4, 5, "6"]]}]), "polygons of at least three"),
        (row(regions=[{"segmentation": {"size": [30, 40]}}]), "must have 'counts'"),
        (
            row(regions=[{"segmentation": {"size": [40, 30], "counts": "x"}}]),
            r"must have the 'size' \[30, 40\] of the image, not \[40, 30\]",
        ),
        (
            grounded(bbox=[[0, 0, 9, 9], [1, 1, 5, 5]], segmentation=SQUARE),
            r"'grounding.regions\[0\].segmentation' is one mask, but 'bbox' holds 2 boxes",
        ),
        (
            grounded(bbox=[0, 0, 9, 9], segmentation=3),
            r"'grounding.regions\[0\].segmentation' must",
        ),
        (
            row(detection={"instances": [REGION | {"label": -1}]}),
            r"'detection.instances\[0\].label' must be a whole number from 0, not -1",
        ),
        (
            row(detection={"instances": [REGION | {"label": 0, "segmentation": "x"}]}),
            r"'detection.instances\[0\].segmentation' must be a list of polygons",
        ),
        ({"id": 3}, "'filename' is missing"),
        ({"image": ["a.jpg", "b.jpg"]}, "'image' must be a string"),
        ([], "it must be an object, not list"),
    ],
)
def test_a_structural_fault_names_file_line_and_field(broken, message: str) -> None:
    with pytest.raises(DataError, match=rf"^rows\.jsonl:7: field .*{message}|^rows.*{message}"):
        read_row(broken, "rows.jsonl:7")
