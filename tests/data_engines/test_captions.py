import json
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from llmdet.chat import ChatRequest, Pace, Usage
from llmdet.data_engines.annotations import Annotations
from llmdet.data_engines.captions import CaptionSettings, caption_dataset
from llmdet.data_engines.flow import Shard
from llmdet.data_engines.questions import RETRY_TEMPERATURE
from llmdet.data_engines.runs import Run
from llmdet.datasets.formats import ReadOptions
from llmdet.datasets.ledger import Ledger
from llmdet.errors import ConfigError, DataError

GOOD = "A brown dog runs over green grass towards a red ball beside a tree."
SETTINGS = CaptionSettings(min_words=5)


class Scripted:
    """Answers by a function of the request and remembers all requests."""

    def __init__(
        self, answer=lambda request: GOOD, model="a", url="http://a/v1", pace=None
    ) -> None:
        self.reply = answer
        self.pace, self.usage = pace or Pace(2), Usage()
        self.identity = {"model": model, "url": url}
        self.requests: list[ChatRequest] = []
        self.batches: list[int] = []

    def answer(self, requests) -> list[str]:
        self.batches.append(len(requests))
        self.requests += requests
        return [self.reply(request) for request in requests]


def picture(request: ChatRequest) -> Image.Image:
    return request.messages[0].images[0]


def prompt(request: ChatRequest) -> str:
    return request.messages[0].text


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


def run(
    path: Path,
    chat,
    settings=SETTINGS,
    max_bad_rows: int = 0,
    *,
    in_flight: int = 2,
    shard: Shard | None = None,
    images: Path | None = None,
    options: ReadOptions | None = None,
    source_format: str | None = None,
):
    ledger = Ledger(max_bad_rows)
    out = path.with_name("out.jsonl")
    annotations = Annotations(path, images or path.parent, source_format, options or ReadOptions())
    passage = Run(in_flight, shard or Shard())
    count = caption_dataset(annotations, out, chat, settings, ledger, passage)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == count
    return rows, ledger


def test_every_row_gets_its_caption_and_keeps_its_boxes(coco: Path) -> None:
    chat = Scripted(lambda request: f"{GOOD} Red is {picture(request).getpixel((0, 0))[0]}.")
    rows, ledger = run(coco, chat)
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
    assert chat.batches == [2, 2, 1]
    assert not ledger.counts
    label_map = json.loads(coco.with_name("out_label_map.json").read_text())
    assert label_map == {"0": "traffic_light"}


def test_rejected_answers_are_asked_again_and_only_those(coco: Path) -> None:
    chat = Scripted(
        lambda q: (
            "Too short." if q.temperature == 0 and picture(q).getpixel((0, 0))[0] == 50 else GOOD
        )
    )
    rows, ledger = run(coco, chat)
    assert all(row["conversations"][1]["value"] == GOOD for row in rows)
    assert Counter(request.temperature for request in chat.requests) == {
        0.0: 5,
        RETRY_TEMPERATURE: 1,
    }
    assert not ledger.counts


def test_a_sample_without_an_accepted_answer_stays_without_caption_and_is_counted(coco) -> None:
    chat = Scripted(lambda request: "Too short.")
    rows, ledger = run(coco, chat)
    assert all("conversations" not in row for row in rows)
    assert ledger.counts == {"caption too short, left out": 5}
    assert len(chat.requests) == 5 * SETTINGS.attempts


def test_regions_are_described_from_their_crops_the_largest_first(coco: Path) -> None:
    seen = []

    def reply(request: ChatRequest) -> str:
        if "phrase" not in prompt(request):
            return GOOD
        seen.append(picture(request).size)
        assert "Describe the traffic light at" in prompt(request)
        return f"a light of {picture(request).width} pixels."

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
    chat = Scripted()
    run(coco, chat, CaptionSettings(min_words=1, caption_prompt="It shows: {names}."))
    assert chat.requests[0].messages[0].text == "It shows: traffic light."


class InterruptedRunError(Exception):
    pass


def test_an_interrupted_run_goes_on_and_gives_the_same_file(coco: Path) -> None:
    whole, _ = run(coco, Scripted())
    coco.with_name("out.jsonl").unlink()
    calls = 0

    def fail_later(request: ChatRequest) -> str:
        nonlocal calls
        calls += 1
        if calls > 3:
            raise InterruptedRunError
        return GOOD

    with pytest.raises(InterruptedRunError):
        run(coco, Scripted(fail_later))
    partial = coco.with_name("out.jsonl.partial")
    with partial.open("a") as file:
        file.write('{"number": 4, "row": {"torn')
    chat = Scripted()
    rows, _ = run(coco, chat)
    assert rows == whole
    assert len(chat.requests) == 3  # two of five were done
    assert not partial.exists()


def test_counts_of_the_first_run_are_not_lost(coco: Path) -> None:
    calls = 0

    def bad_then_stop(request: ChatRequest) -> str:
        nonlocal calls
        calls += 1
        if calls > 2 * SETTINGS.attempts:
            raise InterruptedRunError
        return "Too short."

    with pytest.raises(InterruptedRunError):
        run(coco, Scripted(bad_then_stop))
    _, ledger = run(coco, Scripted())
    assert ledger.counts == {"caption too short, left out": 2}


def stop(request: ChatRequest) -> str:
    raise InterruptedRunError


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(settings=CaptionSettings(min_words=6)), r"min words 5 \(now 6\)"),
        (dict(settings=CaptionSettings(min_words=5, regions=2)), r"regions 0 \(now 2\)"),
        (
            dict(settings=CaptionSettings("Say it.", min_words=5)),
            r"caption prompt 'Describe this image .* \.\.\. .* \(now 'Say it\.'\)",
        ),
        (dict(chat=Scripted(model="b")), r"captioner model 'a' \(now 'b'\)"),
        (
            dict(chat=Scripted(url="http://b/v1")),
            r"captioner url 'http://a/v1' \(now 'http://b/v1'\)",
        ),
        (dict(shard=Shard(0, 2)), r"shard '0/1' \(now '0/2'\)"),
        (dict(images="elsewhere"), r"images '.*' \(now '.*elsewhere'\)"),
        (dict(classes="red\n"), r"annotations 'of hash \w+' \(now 'of hash \w+'\)"),
        (dict(annotations="more"), r"annotations 'of hash \w+' \(now 'of hash \w+'\)"),
        (dict(source_format="lvis"), r"format 'coco' \(now 'lvis'\)"),
    ],
)
def test_a_run_that_differs_in_anything_does_not_continue(coco: Path, change, message) -> None:
    with pytest.raises(InterruptedRunError):
        run(coco, Scripted(stop))
    partial = coco.with_name("out.jsonl.partial")
    before = partial.read_bytes()
    options = None
    if "images" in change:
        change["images"] = coco.parent / change["images"]
    if "classes" in change:
        file = coco.with_name("classes.txt")
        file.write_text(change.pop("classes"))
        options = ReadOptions(classes=file)
    if "annotations" in change:  # one more field in one image, the same number of samples
        document = json.loads(coco.read_text())
        document["images"][0]["tags"] = [change.pop("annotations")]
        coco.write_text(json.dumps(document))
    chat = change.pop("chat", Scripted())
    with pytest.raises(
        ConfigError, match=rf"out\.jsonl\.partial was begun with {message}\. Repeat"
    ):
        run(coco, chat, options=options, **change)
    assert partial.read_bytes() == before
    assert not chat.requests


def test_the_pace_may_change_on_the_way(coco: Path) -> None:
    with pytest.raises(InterruptedRunError):
        run(coco, Scripted(stop))
    rows, _ = run(coco, Scripted(pace=Pace(1, concurrency=3)), in_flight=4)
    assert [row["filename"] for row in rows] == [f"{i}.png" for i in range(5)]


def test_shards_have_their_part_of_the_samples(coco: Path) -> None:
    parts = []
    for index in range(2):
        rows, _ = run(coco, Scripted(), shard=Shard(index, 2))
        parts.append([row["filename"] for row in rows])
    assert parts == [["0.png", "2.png", "4.png"], ["1.png", "3.png"]]


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
    chat = Scripted()
    run(coco, chat)
    assert chat.requests[0].messages[0].images[0].size == (20, 40)
