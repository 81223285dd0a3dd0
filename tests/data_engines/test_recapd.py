"""RecapD: regions are described in context, compared with their close-ups, and spoken of."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from llmdet.chat import Pace, Usage
from llmdet.data_engines.annotations import Annotations
from llmdet.data_engines.recapd import (
    NOTHING_LEFT,
    TOO_SMALL,
    UNLIKE,
    RecapModels,
    RecapOutput,
    RecapSettings,
    recaption,
)
from llmdet.data_engines.recapd_prompts import GLOBAL_PROMPTS, QUESTIONS, REGION_PROMPTS
from llmdet.data_engines.runs import Run
from llmdet.data_engines.similarity import SimilarityFilter
from llmdet.datasets.ledger import Ledger
from llmdet.errors import ConfigError

SCENE = "A wide grey floor with several coloured tiles of different sizes."
SETTINGS = RecapSettings(min_global_words=5, min_words=4)
COUNT = 6


class Captioner:
    """Describes the scene, or what colour a close-up has."""

    def __init__(self, reply=lambda text: None) -> None:
        self.identity = {"model": "a"}
        self.pace, self.usage, self.reply = Pace(3), Usage(), reply
        self.asked: list[tuple[str, tuple[int, int]]] = []

    def answer(self, requests) -> list[str]:
        found = []
        for request in requests:
            text, (image,) = request.messages[0].text, request.messages[0].images
            self.asked.append((text, image.size))
            about = f"A tile of red {image.getpixel((0, 0))[0]} and of {image.width} pixels."
            found.append(self.reply(text) or (about if SCENE in text else SCENE))
        return found


class RedSimilarity:
    """Descriptions are the more alike the redder their close-up is."""

    def __init__(self) -> None:
        self.identity = {"model": "clip"}
        self.pace = Pace(2)

    def answer(self, requests) -> list[float]:
        for pair in requests:
            assert f"red {pair.image.getpixel((0, 0))[0]} " in pair.text
        return [pair.image.getpixel((0, 0))[0] / 1000 for pair in requests]


@pytest.fixture
def coco(tmp_path: Path) -> Annotations:
    """Pictures with a large tile of red 10 i, a smaller one of red 10 i + 5 and one too small."""
    images, annotations = [], []
    for i in range(COUNT):
        image = Image.new("RGB", (80, 60), (0, 0, 100))
        image.paste((10 * i, 0, 0), (0, 0, 40, 40))
        image.paste((10 * i + 5, 0, 0), (40, 20, 60, 40))
        image.save(tmp_path / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "width": 80, "height": 60})
        for box in ([40, 20, 20, 20], [-5, 0, 45, 40], [70, 50, 5, 5]):
            one = {"id": len(annotations), "image_id": i, "category_id": 1, "bbox": box}
            annotations.append(one)
    document = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "floor_tile"}],
    }
    (tmp_path / "a.json").write_text(json.dumps(document))
    return Annotations(tmp_path / "a.json", tmp_path)


def run(
    coco: Annotations,
    captioner=None,
    *,
    compare=True,
    settings=SETTINGS,
    in_flight=32,
    global_turn=False,
    **keep,
):
    ledger = Ledger()
    out = coco.path.with_name("out.jsonl")
    made = RecapOutput(SimilarityFilter(**keep), global_turn)
    models = RecapModels(captioner or Captioner(), RedSimilarity() if compare else None)
    count = recaption(coco, out, models, settings, made, ledger, Run(in_flight))
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == count
    return rows, ledger


def test_regions_are_described_with_their_class_and_the_whole_picture_as_context(coco) -> None:
    captioner = Captioner()
    rows, ledger = run(coco, captioner, drop_lowest=0.0)
    assert len(rows) == COUNT
    row = rows[2]
    assert (row["filename"], row["width"], row["height"]) == ("2.png", 80, 60)
    assert row["global_caption"] == SCENE
    assert row["regions"] == [  # the largest first, inside the picture
        {
            "bbox": [0, 0, 40, 40],
            "category": "floor tile",
            "caption": "A tile of red 20 and of 40 pixels.",
            "similarity": 0.02,
        },
        {
            "bbox": [40, 20, 60, 40],
            "category": "floor tile",
            "caption": "A tile of red 25 and of 20 pixels.",
            "similarity": 0.025,
        },
    ]
    assert ledger.counts == {TOO_SMALL: COUNT}
    close_ups = [text for text, size in captioner.asked if size != (80, 60)]
    assert len(close_ups) == 2 * COUNT
    assert all(SCENE in text and "floor tile" in text for text in close_ups)
    wholes = {text for text, size in captioner.asked if size == (80, 60)}
    assert len(wholes) > 1  # several wordings


def test_a_row_is_a_conversation_about_its_regions(coco) -> None:
    rows, _ = run(coco, drop_lowest=0.0)
    for row in rows:
        turns = row["conversations"]
        assert [turn["from"] for turn in turns] == ["human", "gpt"] * 2
        assert [turn["value"] for turn in turns[1::2]] == [r["caption"] for r in row["regions"]]
        questions = [turn["value"] for turn in turns[::2]]
        assert questions[0].startswith("<image>\n")
        assert [re.findall(r"<region:\d>", question) for question in questions] == [
            ["<region:0>"],
            ["<region:1>"],
        ]
    rows, _ = run(coco, drop_lowest=0.0, global_turn=True)
    first = rows[0]["conversations"]
    assert [turn["value"] for turn in first[:2]] == [
        "<image>\nDescribe the image in detail.",
        SCENE,
    ]
    assert len(first) == 6
    assert not first[2]["value"].startswith("<image>")


def test_what_fits_its_close_up_least_is_left_out(coco) -> None:
    rows, ledger = run(coco, drop_lowest=0.25)  # of 12: red 0 and 5, both of the first picture
    kept = [region["similarity"] for row in rows for region in row["regions"]]
    assert len(kept) == 10
    assert min(kept) == 0.01
    assert ledger.counts == {UNLIKE: 2, NOTHING_LEFT: 1, TOO_SMALL: COUNT}
    rows, ledger = run(coco, min_similarity=0.05)
    assert [row["filename"] for row in rows] == ["5.png"]
    assert ledger.counts[UNLIKE] == 10


def test_without_a_filter_all_stay_and_nothing_is_compared(coco) -> None:
    rows, ledger = run(coco, compare=False)
    assert sum(len(row["regions"]) for row in rows) == 2 * COUNT
    assert not any("similarity" in region for row in rows for region in row["regions"])
    assert ledger.counts == {TOO_SMALL: COUNT}


def test_a_region_without_an_accepted_description_is_left_out(coco) -> None:
    class Failing(Captioner):
        def answer(self, requests):
            answers = super().answer(requests)
            return ["No idea." if "of red 35 " in text else text for text in answers]

    captioner = Failing()
    rows, ledger = run(coco, captioner, drop_lowest=0.0)
    assert [len(row["regions"]) for row in rows] == [2, 2, 2, 1, 2, 2]
    assert ledger.counts["region's description too short, left out"] == 1
    assert len(captioner.asked) == COUNT * 3 + SETTINGS.attempts - 1


def test_a_picture_without_a_description_is_left_out_before_its_regions_are_asked(coco) -> None:
    captioner = Captioner(lambda text: None if SCENE in text else "I cannot see it.")
    rows, ledger = run(coco, captioner)
    assert rows == []
    assert ledger.counts["picture's description refused, left out"] == COUNT
    assert len(captioner.asked) == COUNT * SETTINGS.attempts


def test_descriptions_with_marks_are_asked_again(coco) -> None:
    rows, ledger = run(coco, Captioner(lambda text: "Here is <region> with five words inside."))
    assert rows == []
    assert ledger.counts["picture's description holds a mark, left out"] == COUNT


def test_an_interrupted_run_goes_on_and_what_is_kept_may_change_on_the_way(coco) -> None:
    whole, _ = run(coco, min_similarity=0.02)

    class StoppedError(Exception):
        pass

    class Stopping(Captioner):
        def answer(self, requests):
            if len(self.asked) > 9:
                raise StoppedError
            return super().answer(requests)

    with pytest.raises(StoppedError):
        run(coco, Stopping(), in_flight=2)
    captioner = Captioner()
    rows, _ = run(coco, captioner, min_similarity=0.02)
    assert rows == whole
    assert len(captioner.asked) < 3 * COUNT
    with pytest.raises(StoppedError):
        run(coco, Stopping())
    with pytest.raises(ConfigError, match=r"begun with min words 4 \(now 5\)"):
        run(coco, settings=RecapSettings(min_global_words=5, min_words=5))


def test_wordings_have_their_places_once() -> None:
    assert all(text.count("{context}") == text.count("{name}") == 1 for text in REGION_PROMPTS)
    assert all(text.count("<region>") == 1 for text in QUESTIONS)
    assert [len(set(texts)) for texts in (GLOBAL_PROMPTS, REGION_PROMPTS, QUESTIONS)] == [10] * 3


def test_a_part_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="drop_lowest=1"):
        SimilarityFilter(drop_lowest=1)
