"""Conversations about a picture and its regions, from Python and from the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from llmdet.apis.region_chat import RegionChat
from llmdet.apis.region_talk import read_mask_file
from llmdet.datasets.masks import decode_mask, encode_mask
from llmdet.datasets.rows import read_row
from llmdet.datasets.toy.models import tiny_qwen
from llmdet.errors import ConfigError, DataError
from llmdet.models.outputs.mask import MaskAnswer
from llmdet.prompts.masks import marked_regions
from llmdet.registry import MODELS
from llmdet.testing.demo import TinyDemo
from llmdet.testing.region_models import TINY_SAM, tiny_clip, tiny_region_lmm
from llmdet.testing.saying import saying

SIZE = (30, 40)
LEFT, RIGHT = [0.0, 0, 20, 30], [20.0, 0, 40, 30]
QUESTION = "What is <region>?"


@pytest.fixture(scope="module")
def chat(tiny_regions):
    return RegionChat.from_config(tiny_regions.config, tiny_regions.weights, device="cpu")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A picture, and its right half as a mask in three forms."""
    folder = tmp_path_factory.mktemp("halves")
    pixels = np.zeros((*SIZE, 3), np.uint8)
    pixels[:, :20, 0], pixels[:, 20:, 2] = 255, 255
    Image.fromarray(pixels).save(folder / "halves.png")
    mask = np.zeros(SIZE, np.uint8)
    mask[:, 20:] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    cut = np.dstack([pixels, mask])
    Image.fromarray(cut).save(folder / "cut.png")
    counts = [20 * 30, 20 * 30]
    (folder / "mask.json").write_text(json.dumps([{"size": list(SIZE), "counts": counts}]))
    (folder / "polygon.json").write_text(json.dumps([[20, 0, 40, 0, 40, 30, 20, 30]]))
    return folder


def test_later_questions_see_earlier_answers(chat, files):
    options = {"max_new_tokens": 6, "min_new_tokens": 6}
    talk = chat.talk(files / "halves.png", [LEFT, RIGHT])
    first = talk.ask(QUESTION, **options)
    second = talk.ask("And <region>?", **options)
    same = chat.ask(files / "halves.png", QUESTION, [LEFT, RIGHT], **options)
    assert first == same
    history = [(QUESTION, first)]
    picture = np.asarray(Image.open(files / "halves.png"))
    again = chat.ask(picture, "And <region>?", [LEFT, RIGHT], history=history, **options)
    assert second == again
    assert second != chat.ask(picture, "And <region:1>?", [LEFT, RIGHT], **options)


@pytest.mark.parametrize("name", ["mask.png", "cut.png", "mask.json", "polygon.json"])
def test_masks_are_read_from_pictures_encodings_and_polygons(chat, files, name):
    (mask,) = read_mask_file(files / name)
    talk = chat.talk(files / "halves.png", masks=[mask])
    assert talk.regions.boxes.tolist() == [RIGHT]
    covered = decode_mask(talk.regions.masks[0], SIZE)
    assert covered[:, 20:].all()
    assert not covered[:, :20].any()
    json.dumps(talk.to_row())


def test_a_conversation_is_saved_as_a_row_and_as_a_picture(chat, files, tmp_path):
    (mask,) = read_mask_file(files / "mask.png")
    talk = chat.talk(files / "halves.png", [LEFT, None], [None, mask])
    talk.ask(QUESTION)
    talk.save(tmp_path / "out" / "talk.json")
    talk.save(tmp_path / "talk.png")
    row = json.loads((tmp_path / "out" / "talk.json").read_text())
    assert (row["height"], row["width"]) == SIZE
    assert [region["bbox"] for region in row["regions"]] == [LEFT, RIGHT]
    assert ["segmentation" in region for region in row["regions"]] == [False, True]
    said = [(turn["from"], turn["value"]) for turn in row["conversations"]]
    assert said == [("human", QUESTION), ("gpt", talk.turns[0][1])]
    drawn = np.asarray(Image.open(tmp_path / "talk.png").convert("RGB"))
    assert drawn.shape[0] > drawn.shape[1] * SIZE[0] / SIZE[1]  # what was said stands below


@pytest.mark.parametrize(
    ("boxes", "masks", "message"),
    [
        ([[50, 0, 60, 10]], None, r"box \[50.0, 0.0, 60.0, 10.0\] lies outside .* 40 x 30 pixels"),
        (
            [],
            [np.ones((30, 41), bool)],
            r"Mask 0 of 40 x 30 pixels must have the 'size' \[30, 40\]",
        ),
        ([], [np.zeros(SIZE, bool)], "Mask 0 .* is empty"),
        ([LEFT], [None, None], "1 boxes and 2 masks"),
        ([], [None], "Region 0 has neither"),
        ([], [[[1, 2, 3]]], "Mask 0 .* polygons of at least three points"),
    ],
)
def test_regions_that_are_none_are_one_sentence(chat, files, boxes, masks, message):
    with pytest.raises(DataError, match=message):
        chat.talk(files / "halves.png", boxes, masks)


def test_a_mark_without_a_region_is_named_with_its_question(chat, files):
    talk = chat.talk(files / "halves.png", [LEFT])
    talk.ask(QUESTION)
    with pytest.raises(DataError, match=r"'And <region>\?' marks region 1, counted from 0, and 1 "):
        talk.ask("And <region>?")
    assert len(talk.turns) == 1
    talk.ask("And <region:0>?")


@pytest.fixture(scope="module")
def all_heads(tmp_path_factory):
    """Config and weights of a tiny model that answers with text, indices and masks."""
    folder = tmp_path_factory.mktemp("all_heads")
    settings = tiny_region_lmm(tiny_qwen(folder / "qwen"), tiny_clip(folder / "clip"))
    settings["towers"]["sam"] = {"type": "SamTower", "model": TINY_SAM}
    mask = {"type": "Mask", "tower": "sam", "decoder": {"type": "MaskDecoder", "model": TINY_SAM}}
    outputs = [{"type": "ObjectIndex", "count": 4}, mask]
    settings["output"] = {"type": "SeveralOutputs", "outputs": outputs}
    settings["talk"]["max_length"] = 600
    (folder / "config.py").write_text(f"default_scope = 'llmdet'\nmodel = {settings!r}\n")
    torch.manual_seed(0)
    torch.save({"state_dict": MODELS.build(settings).state_dict()}, folder / "weights.pth")
    return TinyDemo(folder / "config.py", folder / "weights.pth")


NAMED = "<ground>blue half</ground><objects><obj1></objects>[SEG]"
CAPTION = "<p> red half </p> [SEG] and <p> blue half </p> [SEG]."


@pytest.fixture(scope="module")
def unified(all_heads):
    return RegionChat.from_config(all_heads.config, all_heads.weights, device="cpu")


def test_answers_with_masks_are_a_row_again(unified, files):
    (mask,) = read_mask_file(files / "mask.png")
    talk = unified.talk(files / "halves.png", [LEFT, None], [None, mask])
    with saying("red", NAMED, CAPTION):
        assert talk.ask("What is <region:0>?") == "red"
        assert talk.ask("Which is right of it?") == NAMED
        assert talk.ask("Describe the image.") == CAPTION
    assert talk.named == {1: "blue half"}
    assert [said.phrase for said in talk.masks] == ["blue half", "red half", "blue half"]
    row = talk.to_row()
    read = read_row(json.loads(json.dumps(row)), "row")
    assert [turn.text for turn in read.conversation.turns[1::2]] == [
        "red",
        "<ground>blue half</ground><objects><obj1></objects><mask:2>",
        "<p>red half</p><mask:3> and <p>blue half</p><mask:4>.",
    ]
    assert marked_regions(read.conversation.turns) == (2, 3, 4)
    assert len(read.regions) == 5
    written = unified.model.output.write(read.conversation.turns[3].text)
    assert written == NAMED


def test_what_one_thing_is_called_has_one_colour(unified, files):
    talk = unified.talk(files / "halves.png", [LEFT, RIGHT])
    with saying(NAMED, CAPTION):
        talk.ask("Which?")
        talk.ask("Describe the image.")
    whole = {"size": list(SIZE), "counts": [0, SIZE[0] * SIZE[1]]}
    answer = talk.answers[1].part(MaskAnswer)
    object.__setattr__(answer, "masks", (encode_mask(decode_mask(whole, SIZE)), *answer.masks[1:]))
    shown = talk._shown()
    assert [each.name for each in shown[:2]] == ["region 0", "region 1: blue half"]
    keys = [each.key for each in shown]
    assert keys == ["region 0", "blue half", "blue half", "red half", "blue half"]
    assert shown[2].box is None  # is drawn in the box of the region that it is of
    assert shown[3].box == [0, 0, 40, 30]
    plain = np.asarray(unified.talk(files / "halves.png", [LEFT, RIGHT]).plot())
    drawn = np.asarray(talk.plot())
    inside = slice(drawn.shape[1] // 8, drawn.shape[1] // 4)
    assert (drawn[inside, inside] != plain[inside, inside]).mean() > 0.5  # tinted


def test_a_mark_that_is_spelled_stands_for_no_mask(unified, files):
    talk = unified.talk(files / "halves.png", [LEFT])
    with saying(["It is [", "SEG], or [SEG]."]):
        talk.ask("Where is it?")
    assert len(talk.masks) == 1
    (answer,) = talk.to_row()["conversations"][1:]
    assert answer["value"] == "It is , or <mask:1>."


def test_find_asks_a_model_that_also_says_other_things(unified, files):
    with saying(NAMED):
        found = unified.find(files / "halves.png", "blue half", [LEFT, RIGHT])
    assert found.indices.tolist() == [1]
    assert found.answer.startswith("<ground>blue half")


@pytest.fixture
def start(demo, tiny_regions, files, tmp_path, monkeypatch):
    """Run main() of image_demo.py in an empty folder; returns what it wrote."""
    monkeypatch.chdir(tmp_path)

    def run(
        *arguments,
        image=files / "halves.png",
        config=tiny_regions.config,
        checkpoint=tiny_regions.weights,
    ):
        weights = ("--weights", str(checkpoint), "--device", "cpu")
        code = demo.main([str(image), str(config), *weights, *map(str, arguments)])
        assert code == 0
        return json.loads((tmp_path / "outputs" / "preds" / f"{image.stem}.json").read_text())

    return run


def test_the_demo_asks_prints_writes_and_draws(start, files, tmp_path, capsys):
    boxes = ("--boxes", json.dumps([LEFT]), "--masks", files / "mask.png")
    asked = ("--ask", QUESTION, "--ask", "And <region>?")
    row = start(*boxes, *asked, "--max-new-tokens", 3, "--print-result")
    assert [region["bbox"] for region in row["regions"]] == [LEFT, RIGHT]
    texts = [turn["value"] for turn in row["conversations"]]
    assert texts[::2] == [QUESTION, "And <region>?"]
    printed = capsys.readouterr()
    assert json.loads(printed.out) == row
    assert all(text in printed.err for text in texts)
    assert (tmp_path / "outputs" / "vis" / "halves.png").is_file()


def test_the_demo_draws_boxes_tints_masks_and_names_the_index(
    start, all_heads, files, tmp_path, capsys
):
    asked = ("--boxes", json.dumps([LEFT, RIGHT]), "--ask", "Which is right of <region:0>?")
    paths = {"config": all_heads.config, "checkpoint": all_heads.weights}
    with saying(NAMED):
        row = start(*asked, **paths)
    assert NAMED in capsys.readouterr().err
    assert row["conversations"][1]["value"].endswith("<obj1></objects><mask:2>")
    assert row["regions"][2]["segmentation"]["size"] == list(SIZE)
    assert (tmp_path / "outputs" / "vis" / "halves.png").is_file()


def test_the_whole_picture_can_be_asked_about(start):
    assert start("--ask", "What is this?")["regions"] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--ask", "?", "--text", "dog"), "has no --text"),
        (("--ask", "?", "--caption"), "has no --caption"),
        (("--masks", "m.png"), "--masks are regions that --ask asks about"),
    ],
)
def test_what_does_not_go_with_questions_is_one_sentence(start, arguments, message):
    with pytest.raises(ConfigError, match=message):
        start(*arguments)


def test_a_detector_answers_no_questions(start, tiny):
    with pytest.raises(ConfigError, match="and only a RegionLMM answers questions about regions"):
        start("--ask", QUESTION, "--boxes", json.dumps([LEFT]), config=tiny.config)


def test_a_question_without_a_mark_is_noticed(start, capsys):
    start("--ask", "What is it?", "--boxes", json.dumps([LEFT]))
    assert "No question says <region>" in capsys.readouterr().err
