import json
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from llmdet.datasets.captioning import CaptionSettings, Question, caption_dataset
from llmdet.datasets.formats import ReadOptions, open_source
from llmdet.datasets.ledger import Ledger
from llmdet.errors import ConfigError, DataError

GOOD = "A brown dog runs over green grass towards a red ball beside a tree."
SETTINGS = CaptionSettings(min_words=5, batch_size=2)


class Scripted:
    """Answers by a function of the question and remembers all questions."""

    def __init__(self, answer=lambda question: GOOD) -> None:
        self.reply = answer
        self.questions: list[Question] = []
        self.batches: list[int] = []

    def answer(self, questions) -> list[str]:
        self.batches.append(len(questions))
        self.questions += questions
        return [self.reply(question) for question in questions]


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """Five pictures; picture i is filled with the colour (i, 0, 0) and has two boxes."""
    annotations = []
    for i in range(5):
        Image.new("RGB", (40, 20), (50 * i, 0, 0)).save(tmp_path / f"{i}.png")
        for box in ([2, 2, 10, 10], [20, 0, 20, 20]):
            annotations.append(
                {"id": len(annotations), "image_id": i, "category_id": 7, "bbox": box}
            )
    document = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 40, "height": 20} for i in range(5)],
        "annotations": annotations,
        "categories": [{"id": 7, "name": "traffic_light"}],
    }
    path = tmp_path / "a.json"
    path.write_text(json.dumps(document))
    return path


def run(path: Path, captioner, settings=SETTINGS, max_bad_rows: int = 0):
    ledger = Ledger(max_bad_rows)
    source = open_source(path, None, ReadOptions(), ledger)
    out = path.with_name("out.jsonl")
    count = caption_dataset(source, path.parent, out, captioner, settings, ledger)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == count
    return rows, ledger


def test_every_row_gets_its_caption_and_keeps_its_boxes(coco: Path) -> None:
    captioner = Scripted(lambda question: f"{GOOD} Red is {question.image.getpixel((0, 0))[0]}.")
    rows, ledger = run(coco, captioner)
    assert [row["conversations"][1]["value"][-4:].strip(" .") for row in rows] == [
        "s 0",
        "50",
        "100",
        "150",
        "200",
    ]
    assert rows[0]["conversations"][0] == {
        "from": "human",
        "value": "<image>\nDescribe the image in detail.",
    }
    assert rows[0]["detection"]["instances"][1]["bbox"] == [20, 0, 40, 20]
    assert captioner.batches == [2, 2, 1]
    assert not ledger.counts
    label_map = json.loads(coco.with_name("out_label_map.json").read_text())
    assert label_map == {"0": "traffic_light"}


def test_rejected_answers_are_asked_again_and_only_those(coco: Path) -> None:
    captioner = Scripted(
        lambda q: "Too short." if q.attempt == 0 and q.image.getpixel((0, 0))[0] == 50 else GOOD
    )
    rows, ledger = run(coco, captioner)
    assert all(row["conversations"][1]["value"] == GOOD for row in rows)
    assert Counter(question.attempt for question in captioner.questions) == {0: 5, 1: 1}
    assert not ledger.counts


def test_a_sample_without_an_accepted_answer_stays_without_caption_and_is_counted(coco) -> None:
    captioner = Scripted(lambda question: "Too short.")
    rows, ledger = run(coco, captioner)
    assert all("conversations" not in row for row in rows)
    assert ledger.counts == {"caption too short, left out": 5}
    assert len(captioner.questions) == 5 * SETTINGS.attempts


def test_regions_are_described_from_their_crops_the_largest_first(coco: Path) -> None:
    seen = []

    def reply(question: Question) -> str:
        if "phrase" not in question.prompt:
            return GOOD
        seen.append(question.image.size)
        assert "Describe the traffic light at" in question.prompt
        return f"a light of {question.image.width} pixels."

    rows, _ = run(coco, Scripted(reply), CaptionSettings(min_words=5, regions=1))
    assert set(seen) == {(24, 20)}  # 20 wide with a fifth on its left, cut at the right border
    grounding = rows[0]["grounding"]
    assert grounding["caption"] == "traffic light"
    assert [region["phrase"] for region in grounding["regions"]] == [
        "traffic light",
        "a light of 24 pixels",
    ]
    assert {str(region["tokens_positive"]) for region in grounding["regions"]} == {"[[0, 13]]"}


def test_the_prompt_may_name_what_is_annotated(coco: Path) -> None:
    captioner = Scripted()
    run(coco, captioner, CaptionSettings(min_words=1, caption_prompt="It shows: {names}."))
    assert captioner.questions[0].prompt == "It shows: traffic light."


class InterruptedRunError(Exception):
    pass


def test_an_interrupted_run_goes_on_and_gives_the_same_file(coco: Path) -> None:
    whole, _ = run(coco, Scripted())
    coco.with_name("out.jsonl").unlink()
    calls = 0

    def fail_later(question: Question) -> str:
        nonlocal calls
        calls += 1
        if calls > 3:
            raise InterruptedRunError
        return GOOD

    with pytest.raises(InterruptedRunError):
        run(coco, Scripted(fail_later))
    partial = coco.with_name("out.jsonl.partial")
    with partial.open("a") as file:
        file.write('{"row": {"torn')
    captioner = Scripted()
    rows, _ = run(coco, captioner)
    assert rows == whole
    assert len(captioner.questions) == 3  # two of five were done
    assert not partial.exists()


def test_counts_of_the_first_run_are_not_lost(coco: Path) -> None:
    calls = 0

    def bad_then_stop(question: Question) -> str:
        nonlocal calls
        calls += 1
        if calls > 2 * SETTINGS.attempts:
            raise InterruptedRunError
        return "Too short."

    with pytest.raises(InterruptedRunError):
        run(coco, Scripted(bad_then_stop))
    _, ledger = run(coco, Scripted())
    assert ledger.counts == {"caption too short, left out": 2}


def test_other_settings_do_not_continue_a_begun_file(coco: Path) -> None:
    def stop(question: Question) -> str:
        raise InterruptedRunError

    with pytest.raises(InterruptedRunError):
        run(coco, Scripted(stop))
    with pytest.raises(ConfigError, match=r"out\.jsonl\.partial was begun with other settings"):
        run(coco, Scripted(), CaptionSettings(min_words=6))


def test_a_broken_picture_stops_the_run_before_anything_is_asked_about_it(coco: Path) -> None:
    coco.with_name("3.png").write_bytes(b"no picture")
    for _ in range(2):  # a second run does not slip past it
        with pytest.raises(DataError, match=r"image id 3: the picture .*3\.png cannot be read"):
            run(coco, Scripted())


def test_permitted_broken_pictures_are_left_out_and_counted(coco: Path) -> None:
    coco.with_name("3.png").unlink()
    rows, ledger = run(coco, Scripted(), max_bad_rows=1)
    assert [row["filename"] for row in rows] == ["0.png", "1.png", "2.png", "4.png"]
    assert ledger.counts == {"broken record": 1}


def test_pictures_are_turned_as_their_exif_says(coco: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(coco.with_name("0.png"), exif=exif)
    captioner = Scripted()
    run(coco, captioner)
    assert captioner.questions[0].image.size == (20, 40)
