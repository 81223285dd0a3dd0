"""Finding what words mean among candidate boxes: any model that sees, masks, and the program."""

import json

import numpy as np
import pytest
import torch

from llmdet.apis.box_masks import BoxMasks
from llmdet.apis.candidate_boxes import read_boxes
from llmdet.apis.numbered_boxes import NumberedBoxes
from llmdet.apis.results import Picture, Results
from llmdet.chat import Pace
from llmdet.cli.retrieve import main, parse_args
from llmdet.errors import ConfigError, DataError
from llmdet.testing.demo import tiny_proposal_demo
from llmdet.testing.region_models import TINY_SAM, TINY_SAM2, tiny_region_lmm

IMAGE = np.full((60, 80, 3), 90, np.uint8)
BOXES = np.array([[0, 0, 20, 30], [30, 0, 60, 30], [10, 30, 70, 60]], np.float32)
SCORES = np.array([0.9, 0.1, 0.5], np.float32)


class Scripted:
    """A model that answers what it is told to, and keeps what it was asked."""

    pace = Pace(batch_size=2)

    def __init__(self, *answers):
        self.answers, self.requests = list(answers), []

    def answer(self, requests):
        assert len(requests) <= self.pace.batch_size
        self.requests += requests
        return [self.answers.pop(0) for _ in requests]


def test_a_model_that_sees_numbered_boxes_chooses_among_them():
    chat = Scripted("1 and 3", "none", "I cannot tell.")
    red, absent, unread = NumberedBoxes(chat).find_each(IMAGE, ["red", "dog", "cat"], BOXES)
    assert red.indices.tolist() == [0, 2]
    assert np.array_equal(red.boxes, BOXES[[0, 2]])
    assert (red.scores, red.absent, red.left_out) == (None, False, 0)
    assert (absent.boxes.shape, absent.absent) == ((0, 4), True)
    assert (len(unread.boxes), unread.absent, unread.answer) == (0, False, "I cannot tell.")
    (message,) = chat.requests[1].messages
    assert "3 boxes" in message.text
    assert "dog" in message.text
    assert not np.array_equal(np.unique(message.images[0]), [90])  # the boxes are drawn
    assert (IMAGE == 90).all()


def test_the_best_candidates_are_drawn_and_those_of_a_detector_bring_their_scores():
    found = Results(Picture(IMAGE, 80, 60), BOXES, SCORES, np.zeros(3, np.int64), ["a"] * 3)
    chosen = NumberedBoxes(Scripted("2"), most=2).find(IMAGE, "red", found)
    assert (chosen.indices.tolist(), chosen.left_out) == ([2], 1)
    assert chosen.results.names == ["red"]
    nothing = NumberedBoxes(Scripted()).find(IMAGE, "red", np.zeros((0, 4)))
    assert nothing.absent
    with pytest.raises(ConfigError, match=r"needs \{phrase\}"):
        NumberedBoxes(Scripted(), question="Which?")


@pytest.mark.parametrize(
    ("boxes", "scores", "words"),
    [
        ([[1, 2, 3]], None, "no list of boxes"),
        (None, None, "no list of boxes"),
        ([[30, 20, 10, 5]], None, "right or lower side comes first"),
        ([[500, 500, 600, 600]], None, "lies outside"),
        (BOXES, ["a", 1, 2], "no scores of boxes"),
        (BOXES, [0.5, float("nan"), 1], "no scores of boxes"),
        (BOXES, [0.5], "3 boxes have 1 scores"),
    ],
)
def test_candidates_that_are_no_boxes_of_the_image_are_one_sentence(boxes, scores, words):
    with pytest.raises((ConfigError, DataError), match=words):
        NumberedBoxes(Scripted()).find(IMAGE, "red", boxes, scores)


def test_boxes_are_read_from_every_file_that_holds_them(tmp_path):
    path = tmp_path / "boxes.json"
    boxes, scores = read_boxes(json.dumps(BOXES.tolist()))
    assert (boxes.tolist(), scores) == (BOXES.tolist(), None)
    Results(Picture(IMAGE, 80, 60), BOXES, SCORES, np.zeros(3, np.int64), ["a"] * 3).save(path)
    boxes, scores = read_boxes(str(path), threshold=0.4)
    assert (boxes.tolist(), scores.tolist()) == (BOXES[[0, 2]].tolist(), SCORES[[0, 2]].tolist())
    path.write_text(json.dumps([[0, 0, 9, 9, 0.5], [0, 0, 9, 8, 0.6]]))
    boxes, _ = read_boxes(str(path), overlap=0.5)
    assert boxes.tolist() == [[0, 0, 9, 8]]
    path.write_text("[]")
    assert read_boxes(str(path))[0].shape == (0, 4)
    scored = [
        f'{{"bboxes": [[0, 0, 9, 9]], "scores": {each}}}' for each in ("[]", "[NaN]", "[null]")
    ]
    for wrong in ("{}", *scored, "[[1, 2]]", "[3]"):
        path.write_text(wrong)
        with pytest.raises(DataError, match=str(path)):
            read_boxes(str(path))


@pytest.mark.parametrize("fields", [TINY_SAM, TINY_SAM2])
def test_masks_of_boxes_lie_in_the_image_as_it_is(fields):
    torch.manual_seed(0)
    masks = BoxMasks(fields, device="cpu")
    seen = []
    masks.sam.register_forward_pre_hook(lambda _, __, k: seen.append(k), with_kwargs=True)
    assert masks(IMAGE, BOXES).shape == (3, 60, 80)
    assert masks(IMAGE, BOXES[:0]).shape == (0, 60, 80)
    (call,) = seen
    assert call["pixel_values"].shape == (1, 3, 64, 64)
    scale = torch.tensor([64 / 80, 48 / 60 if fields is TINY_SAM else 64 / 60] * 2)
    torch.testing.assert_close(call["input_boxes"][0], torch.from_numpy(BOXES) * scale)


@pytest.fixture(scope="module")
def proposals(tmp_path_factory):
    return tiny_proposal_demo(tmp_path_factory.mktemp("upn"))


def test_the_program_finds_among_proposals_and_saves_picture_boxes_and_masks(
    proposals, photos, tmp_path
):
    from transformers import SamConfig, SamModel

    from llmdet.datasets.toy.models import tiny_qwen

    output = {"type": "ObjectIndex", "count": 20}
    settings = tiny_region_lmm(tiny_qwen(tmp_path / "qwen"), output=output)
    config = tmp_path / "config.py"
    config.write_text(f"default_scope = 'llmdet'\nmodel = {settings!r}\n")
    fields = {key: value for key, value in TINY_SAM.items() if key != "model_type"}
    SamModel(SamConfig(**fields)).save_pretrained(tmp_path / "sam")
    detector = ["--detector", str(proposals.config), "--detector-weights", str(proposals.weights)]
    masks = ["--sam", str(tmp_path / "sam"), "--device", "cpu"]
    asked = ["--refer", "the cat", "--refer", "a dog", "--granularity", "fine", "--score-thr", "0"]
    out = ["--out-dir", str(tmp_path / "out")]
    main([str(photos / "cat.jpg"), str(config), *asked, *detector, *masks, *out])
    row = json.loads((tmp_path / "out" / "cat.json").read_text())
    assert [each["phrase"] for each in row["found"]] == ["the cat", "a dog"]
    assert row["candidates"]["source"] == "config.py, fine"
    assert len(row["candidates"]["scores"]) == len(row["candidates"]["bboxes"]) > 0
    for each in row["found"]:
        assert len(each["masks"]) == len(each["bboxes"]) == len(each["indices"])
    assert (tmp_path / "out" / "cat.jpg").is_file()


def test_the_program_asks_an_endpoint_about_given_boxes(photos, tmp_path, chat_server, capsys):
    chat_server.reply = lambda body: (
        200,
        {"choices": [{"index": 0, "message": {"role": "assistant", "content": "[2]"}}]},
    )
    asked = ["--refer", "the cat", "--boxes", "[[0, 0, 50, 50], [60, 0, 200, 140]]"]
    model = ["--chat-model", "any", "--url", chat_server.url]
    out = ["--out-dir", str(tmp_path), "--print-result"]
    main([str(photos / "cat.jpg"), *asked, *model, *out, "--temperature", "0.5"])
    row = json.loads(capsys.readouterr().out)
    assert row["found"][0]["bboxes"] == [[60, 0, 200, 140]]
    assert "masks" not in row["found"][0]
    ((_, request),) = chat_server.requests
    assert request["temperature"] == 0.5


@pytest.mark.parametrize(
    ("boxes", "words"),
    [
        ("[]", "there is no box to choose from"),
        ("[[0, 0, 50, 50, 0.1]]", "no box with a score of 0.25 or more (--score-thr) to choose"),
    ],
)
def test_without_candidates_the_program_says_why_it_asks_nothing(
    boxes, words, photos, tmp_path, chat_server, capsys
):
    (tmp_path / "boxes.json").write_text(boxes)
    model = ["--chat-model", "any", "--url", chat_server.url]
    asked = ["--refer", "the cat", "--boxes", str(tmp_path / "boxes.json")]
    main([str(photos / "cat.jpg"), *asked, *model, "--out-dir", str(tmp_path)])
    assert words in capsys.readouterr().err
    assert not chat_server.requests
    assert json.loads((tmp_path / "cat.json").read_text())["found"][0]["absent"]
    # No model is built to say so.
    main([str(photos / "cat.jpg"), "no_config.py", "no.pth", *asked, "--out-dir", str(tmp_path)])


def test_neither_the_image_nor_the_candidates_are_overwritten(photos, tmp_path, monkeypatch):
    photo, boxes = tmp_path / "cat.jpg", tmp_path / "cat.json"
    photo.write_bytes((photos / "cat.jpg").read_bytes())
    boxes.write_text("[[0, 0, 50, 50]]")
    (tmp_path / "link").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    model = ["--chat-model", "no/such", "--refer", "a cat"]
    for out in (".", "link", str(tmp_path)):
        with pytest.raises(ConfigError, match=r"would replace cat\.jpg: give another folder"):
            main(["cat.jpg", *model, "--boxes", "[[0, 0, 5, 5]]", "--out-dir", out])
    elsewhere = str(photos / "cat.jpg")
    photo.unlink()
    with pytest.raises(ConfigError, match=r"would replace cat\.json"):
        main([elsewhere, *model, "--boxes", "cat.json", "--out-dir", "."])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["config.py"], "Where do candidates come from"),
        (["--boxes", "[]"], "Who chooses"),
        (["config.py", "--chat-model", "m", "--boxes", "[]"], "not both"),
        (["config.py", "--boxes", "[]", "--objects", "person"], "are for a --detector"),
        (["config.py", "--boxes", "[]", "--detector-weights", "w"], "are of a --detector"),
        (["config.py", "--boxes", "[]", "--url", "http://x"], "belong to --chat-model"),
        (["--chat-model", "m", "--boxes", "[]", "--cfg-options", "a=1"], "change CONFIG"),
        (
            ["config.py", "--detector", "d.py", "--objects", "person", "--granularity", "fine"],
            "boxes without: give one",
        ),
        (["config.py", "--boxes", "[]", "--refer", " "], "--refer is empty"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused_before_anything_is_loaded(arguments, words):
    with pytest.raises(ConfigError, match=words):
        main(["cat.jpg", *arguments, "--refer", "a cat"])


def test_the_config_may_stand_behind_options():
    args = parse_args(["a.jpg", "--refer", "person", "config.py", "--boxes", "b.json", "w.pth"])
    assert (str(args.image), args.config, args.weights) == ("a.jpg", "config.py", "w.pth")
