"""GranD: objects, what is said of them, and what is removed because no box supports it."""

import json
import multiprocessing
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from llmdet.chat import Pace, Usage
from llmdet.data_engines.detections import Found
from llmdet.data_engines.flow import Shard
from llmdet.data_engines.grand.models import BoxesIn, DepthOrder, SamMasks, depths_in
from llmdet.data_engines.grand.objects import (
    EMPTY_MASK,
    NO_NAMES,
    NOTHING_FOUND,
    TOO_SMALL,
    UNFINDABLE,
)
from llmdet.data_engines.grand.run import PROVENANCE, GrandModels, make_grand
from llmdet.data_engines.grand.settings import (
    BOXES,
    CAPTIONER,
    DEPTH,
    DESCRIBER,
    MASKS,
    RELATER,
    WRITER,
    CaptionSettings,
    ContextSettings,
    DescriptionSettings,
    GrandSettings,
    ObjectSettings,
)
from llmdet.data_engines.grand.texts import NOTHING_SUPPORTED, UNSUPPORTED
from llmdet.data_engines.pictures import PictureSet
from llmdet.data_engines.runs import Run
from llmdet.datasets.formats import ReadOptions
from llmdet.datasets.formats.grand import read_grand, read_grand_objects
from llmdet.datasets.ledger import BROKEN, Ledger
from llmdet.datasets.masks import decode_mask
from llmdet.errors import ConfigError, DataError
from llmdet.testing.region_models import tiny_depth

COUNT = 4
#: Phrase -> boxes of a scene of 80 x 60 pixels and their scores.
FOUND = {
    "red tile": [([0, 0, 40, 40], 0.9)],
    "blue tile": [([40, 0, 60, 20], 0.8), ([60, 0, 80, 20], 0.7)],
    "square": [([0, 0, 40, 34], 0.5)],  # another name of the red tile
    "crumb": [([70, 50, 74, 54], 0.6)],
    "window": [([60, 30, 80, 60], 0.4)],  # no tag: only looked for where a caption names it
}
DENSE = (
    "A red tile lies on the left of the hall. Two blue tiles lie beside a green lamp. "
    "Behind the red tile is a window. A man watches."
)


def see(text, image):
    if text.startswith("List"):
        return "Red tile, blue tile,\n2. square, crumb"
    if text.startswith("What kind of place"):
        return "Indoor: hall"
    return "A red tile lies beside blue tiles." if "happens" in text else "A red tile near a door."


def describe(text, image):
    red, _, blue = image.getpixel((image.width // 2, image.height // 2))
    return f"a smooth {text.partition('Describe the ')[2].partition(' at its')[0]} of {red + blue}."


def relate(text, image):
    assert "[0] red tile (a smooth red tile of 200), on the left\n" in text
    return "1. [A red tile](0) lies beside [blue tiles](1, 2).\n- [It](0) is [there](9)."


def write(text):
    if text.startswith("This is known of a picture."):
        assert "Place: hall (indoor)" in text
        assert "Immediate foreground: red tile" in text
        assert "Background: blue tile (a smooth blue tile of 160), at the top on the right" in text
        assert "Relation: A red tile lies beside blue tiles." in text
        return DENSE
    if "Write the description anew" in text:
        assert "not in the picture: green lamp; man." in text
        return DENSE.replace(" beside a green lamp", " in a row")
    if "beyond it" in text:
        return "Tiles like these have been laid for centuries and are cleaned with water."
    return "* [The red tile](0) can be walked on."


SAY = {CAPTIONER: see, DESCRIBER: describe, RELATER: relate, WRITER: write}


class Speaker:
    def __init__(self, role, say) -> None:
        self.say, self.pace, self.usage = say, Pace(3), Usage()
        self.identity = {"model": f"the {role}"}
        self.asked = 0

    def answer(self, requests) -> list[str]:
        self.asked += len(requests)
        return [self.say(r.messages[0].text, *r.messages[0].images) for r in requests]


class Boxes:
    pace, identity = Pace(2), {"detector": "x"}

    def __init__(self, found=None) -> None:
        self.found = FOUND if found is None else found
        self.looked_for: list[tuple[str, ...]] = []

    def answer(self, requests):
        self.looked_for += [request.phrases for request in requests]
        return [self.of(request) for request in requests]

    def of(self, search):
        found = [Found(b, p, s) for p in search.phrases for b, s in self.found.get(p, ())]
        return sorted(found, key=lambda one: -one.score)


def filled(pixels, boxes):
    masks = np.zeros((len(boxes), *pixels.shape[:2]), bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.astype(int), strict=True):
        mask[y1:y2, x1:x2] = True
    return masks


class Depth:
    """The farther, the more to the right."""

    pace, identity = Pace(1), {"depth": "x"}

    def answer(self, requests):
        depth = np.tile(np.arange(80.0), (60, 1))
        return [
            [round(d * 1.25 - 0.25, 3) for d in depths_in(depth, r.boxes, True)] for r in requests
        ]


SETTINGS = GrandSettings(
    ObjectSettings(min_side=6),
    CaptionSettings(),
    DescriptionSettings(min_words=3),
    ContextSettings(min_words=3),
)


@pytest.fixture
def pictures(tmp_path: Path) -> PictureSet:
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    for i in range(COUNT):
        image = Image.new("RGB", (80, 60), (100, 0, 0))
        image.paste((200, 0, 0), (0, 0, 40, 40))
        image.paste((0, 0, 150), (40, 0, 60, 20))
        image.paste((0, 0, 160), (60, 0, 80, 20))
        image.save(folder / ("more" if i == 3 else ".") / f"{i}.png")
    return PictureSet.of(sorted(folder.rglob("*.png")))


def models_of(boxes=None, masks=filled, depth=True, **say) -> GrandModels:
    chats = {role: Speaker(role, talk) for role, talk in (SAY | say).items()}
    measured = Depth() if depth else None
    return GrandModels(chats, boxes or [Boxes()], masks and SamMasks(masks, {"sam": "y"}), measured)


def run(pictures, models=None, settings=SETTINGS, *, name="out", bad=0, **options):
    counts: dict[str, int] = {}

    def told(file, lines, ledger):
        counts.update(ledger.counts)

    folder = pictures.folder.with_name(name)
    models = models or models_of()
    made = make_grand(pictures, folder, models, settings, max_bad_rows=bad, told=told, **options)
    files = sorted((folder / "annotations").rglob("*.json"))
    assert len(files) == made
    records = [next(iter(json.loads(file.read_text()).values())) for file in files]
    return sorted(records, key=lambda one: one["file_name"]), counts


def test_a_picture_gets_all_fields_of_all_levels(pictures) -> None:
    records, counts = run(pictures)
    assert [one["file_name"] for one in records] == ["0.png", "1.png", "2.png", "more/3.png"]
    record = records[0]
    assert record["landmark"] == {"category": "indoor", "fine_category": "hall"}
    first, second, third = record["objects"]
    assert (first["id"], first["bbox"], first["label"]) == (0, [0, 0, 40, 40], "red tile")
    assert (first["labels"], first["score"]) == (["red tile", "square"], [0.9, 0.5])
    assert first["attributes"] == ["a smooth red tile of 200"]
    assert decode_mask(first["segmentation"], (60, 80)).sum() == 40 * 40
    assert first["segmentation_source"] == MASKS
    assert [one["depth"] for one in (first, second, third)] == [0.059, 0.534, 0.85]
    assert record["floating_objects"] == []
    assert record["relationships"] == [
        {
            "object_ids": [0, 1, 2],
            "floating_object_ids": [],
            "summary": "A red tile lies beside blue tiles.",
            "grounding": [
                {"phrase": "A red tile", "object_ids": [0]},
                {"phrase": "blue tiles", "object_ids": [1, 2]},
            ],
        }
    ]
    short = record["short_captions"]
    assert [one["caption"] for one in short] == [
        "A red tile near a door.",
        "A red tile lies beside blue tiles.",
    ]
    assert short[0]["details"] == [  # the door has no box
        {"phrase": "red tile", "tokens_positive": [2, 10], "ids": [0], "bbox": [0, 0, 40, 40]}
    ]
    assert short[1]["details"][1] == {
        "phrase": "blue tiles",
        "tokens_positive": [23, 33],
        "ids": [1, 2],
        "bbox": [40, 0, 80, 20],
    }
    assert record["additional_context"].startswith("Tiles like these")
    assert record["affordances"] == [{"object_ids": [0], "text": "The red tile can be walked on."}]
    assert counts == {
        TOO_SMALL: COUNT,  # the crumb
        UNSUPPORTED: 2 * COUNT,
    }


def test_what_no_box_supports_is_written_out_of_dense_captions_or_removed(pictures) -> None:
    models = models_of()
    record = run(pictures, models)[0][0]
    dense = record["dense_caption"]
    assert dense["caption"] == (
        "A red tile lies on the left of the hall. Two blue tiles lie in a row. "
        "Behind the red tile is a window."
    )
    assert record["removed_phrases"] == ["green lamp", "man"]  # rewritten; its sentence removed
    details = [(one["phrase"], one["ids"], one["bbox"]) for one in dense["details"]]
    assert details == [
        ("red tile", [0], [0, 0, 40, 40]),
        ("blue tiles", [1, 2], [40, 0, 80, 20]),
        ("red tile", [0], [0, 0, 40, 40]),
        ("window", [], [60, 30, 80, 60]),  # no object, but the detector finds it
    ]
    for one in dense["details"]:
        assert dense["caption"][slice(*one["tokens_positive"])] == one["phrase"]
    again = replace(SETTINGS, description=DescriptionSettings(min_words=3, rewrites=0))
    record = run(pictures, settings=again, name="without")[0][0]
    assert record["dense_caption"]["caption"] == (
        "A red tile lies on the left of the hall. Behind the red tile is a window."
    )
    nothing = models_of(writer=lambda text: "A man sees a lamp. His dog sleeps.")
    records, counts = run(pictures, nothing, name="nothing")
    assert counts[NOTHING_SUPPORTED] == COUNT
    assert not any("dense_caption" in one for one in records)
    assert records[0]["additional_context"] == "A man sees a lamp. His dog sleeps."


def test_every_field_says_where_it_is_from(pictures) -> None:
    (record, *_), _ = run(pictures)
    sources = record["provenance"]
    assert set(sources) == {field for fields in PROVENANCE.values() for field in fields}
    assert sources["objects.bbox"] == {"level": 1, "version": 1, "by": BOXES, "detector": "x"}
    assert sources["objects.segmentation"] == {"level": 1, "version": 1, "by": MASKS, "sam": "y"}
    assert sources["objects.depth"]["by"] == DEPTH
    assert sources["dense_caption.caption"]["model"] == "the writer"
    known = {"file_name", "height", "width", "floating_objects", "provenance"}
    assert {field.partition(".")[0] for field in sources} == set(record) - known


def test_the_reader_of_grand_reads_what_is_written(pictures) -> None:
    records, _ = run(pictures)
    out, ledger = pictures.folder.with_name("out") / "annotations", Ledger()
    samples = list(read_grand(out, ReadOptions(), ledger).samples)
    assert len(samples) == 3 * COUNT
    assert {one.filename for one in samples} == {one["file_name"] for one in records}
    dense = samples[2]
    assert dense.caption == records[0]["dense_caption"]["caption"]
    assert [one.phrase for one in dense.instances] == [
        "red tile",
        "blue tiles",
        "blue tiles",
        "red tile",
        "window",
    ]
    assert decode_mask(dense.instances[0].mask, (60, 80)).sum() == 40 * 40
    described = next(iter(read_grand_objects(out, ReadOptions(), ledger).samples))
    assert described.instances[0].phrase == "a smooth red tile of 200"
    assert not ledger.counts


def test_what_fewer_detectors_have_found_floats(pictures) -> None:
    second = Boxes({"red tile": [([0, 0, 40, 40], 0.6)], "square": [([1, 1, 40, 40], 0.95)]})
    settings = replace(SETTINGS, objects=ObjectSettings(min_side=6, agree=2))
    (record, *_), _ = run(pictures, models_of([Boxes(), second]), settings, up_to=2)
    assert [one["labels"] for one in record["objects"]] == [["square", "red tile"]]
    assert record["objects"][0]["sources"] == [0, 1]
    assert [one["label"] for one in record["floating_objects"]] == ["blue tile", "blue tile"]
    assert record["relationships"] == []  # of one object there are none
    assert record["short_captions"][1]["details"][1]["ids"] == [1, 2]  # phrases name both kinds


def test_masks_and_depth_may_be_left_out_and_empty_masks_are_none(pictures) -> None:
    def say(text):
        begins = text.startswith("This is known")
        return DENSE if begins and "Objects: red tile" in text else write(text)

    models = models_of(masks=None, depth=False, writer=say)
    (record, *_), _ = run(pictures, models)
    assert not {"segmentation", "depth"} & set(record["objects"][0])
    assert not {"objects.segmentation", "objects.depth"} & set(record["provenance"])
    assert "dense_caption" in record

    def without_second(pixels, boxes):
        masks = filled(pixels, boxes)
        masks[boxes[:, 0] == 40] = False
        return masks

    models = models_of(masks=without_second, relater=lambda text, image: "none")
    (record, *_), counts = run(pictures, models, name="empty", up_to=2)
    assert [one["bbox"][0] for one in record["objects"]] == [0, 60]
    assert counts[EMPTY_MASK] == COUNT
    assert counts["relations without a sentence about numbered objects, left out"] == COUNT


def test_pictures_with_nothing_are_left_out_and_counted(pictures) -> None:
    unseeing = models_of(captioner=lambda text, image: "?")
    assert run(pictures, unseeing, name="a") == (
        [],
        {
            NO_NAMES: COUNT,
            "landmark no kind of place, left out": COUNT,
            "tags without a name, left out": COUNT,
        },
    )
    records, counts = run(pictures, models_of([Boxes({})]), name="b")
    assert (records, counts) == ([], {NOTHING_FOUND: COUNT})

    class Unable(Boxes):
        def of(self, search):
            return DataError("too long")

    assert run(pictures, models_of([Unable()]), name="d")[1] == {
        UNFINDABLE: COUNT,
        NOTHING_FOUND: COUNT,
    }
    given = replace(SETTINGS, objects=ObjectSettings(("window",), tags=0, min_side=6))
    (record, *_), _ = run(pictures, models_of(relater=None), given, name="c", up_to=1)
    assert [one["label"] for one in record["objects"]] == ["window"]
    with pytest.raises(ConfigError, match="nothing is looked for"):
        ObjectSettings(tags=0)


def test_a_level_goes_on_from_the_one_below_and_is_made_once(pictures) -> None:
    whole, _ = run(pictures, name="whole")
    boxes = Boxes()
    early, _ = run(pictures, models_of([boxes]), up_to=1)
    assert "short_captions" not in early[0]
    looked = len(boxes.looked_for)
    models = models_of([boxes])
    assert run(pictures, models, up_to=4)[0] == whole
    assert models.chats[DESCRIBER].asked == 0
    assert boxes.looked_for[looked] == ("red tile", "door", "blue tiles")
    models = models_of()
    assert run(pictures, models)[0] == whole
    assert not any(model.asked for model in models.chats.values())

    other = replace(SETTINGS, description=DescriptionSettings(min_words=4))
    with pytest.raises(ConfigError, match=r"level_3.*begun with min words 3 \(now 4\)"):
        run(pictures, settings=other)
    folder = pictures.folder.with_name("out")
    for file in folder.glob("level_2*"):
        file.unlink()
    changed = models_of(captioner=lambda text, image: "A blue tile.")
    with pytest.raises(ConfigError, match=r"level_3.*begun with level 2 "):
        run(pictures, changed)


def test_a_killed_level_repeats_only_what_was_in_flight(pictures, tmp_path) -> None:
    whole, counted = run(pictures, name="whole")
    log = tmp_path / "calls"

    def counting(text):
        with log.open("a") as file:
            file.write(".")
        if len(log.read_text()) == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return write(text)

    def work():
        run(pictures, models_of(writer=counting), run=Run(in_flight=1))

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    before = len(log.read_text())
    models = models_of()
    records, counts = run(pictures, models, run=Run(in_flight=1))
    assert records == whole
    assert counts == {UNSUPPORTED: counted[UNSUPPORTED]}  # of the levels that were made here
    asked = models.chats[WRITER].asked + before
    assert asked - 4 * COUNT <= 2  # of the picture in flight: a caption and its rewriting
    assert models.chats[CAPTIONER].asked == models.chats[RELATER].asked == 0


def test_shards_make_up_the_whole(pictures) -> None:
    whole, _ = run(pictures, name="whole")
    parts = [run(pictures, name=f"{i}", run=Run(2, Shard(i, 2)))[0] for i in range(2)]
    together = sorted((one for part in parts for one in part), key=lambda one: one["file_name"])
    assert together == whole
    assert len(parts[0]) == 2


def test_broken_and_ambiguous_pictures_are_named(pictures) -> None:
    (pictures.folder / "2.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"^2\.png: the picture"):
        run(pictures)
    records, counts = run(pictures, bad=1)
    assert len(records) == COUNT - 1
    assert counts[BROKEN] == 1
    Image.new("RGB", (8, 8)).save(pictures.folder / "1.jpg")
    twice = PictureSet.of(sorted(pictures.folder.rglob("1.*")))
    with pytest.raises(DataError, match=r"1\.jpg and 1\.png would share"):
        run(twice, name="twice")
    with pytest.raises(ConfigError, match="found by 2 detectors, as agree asks for: there are 1"):
        run(pictures, settings=GrandSettings(ObjectSettings(agree=2)), name="agree")
    with pytest.raises(ConfigError, match="at least one detector"):
        GrandModels({}, [])


@pytest.fixture(scope="module")
def depth_model(tmp_path_factory) -> str:
    return tiny_depth(tmp_path_factory.mktemp("depth"))


def test_a_model_of_transformers_measures_depth(depth_model, tmp_path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    request = BoxesIn(Image.fromarray(noise), ([0, 0, 20, 20], [30, 10, 64, 48], [0, 0, 64, 48]))
    falling, growing = (DepthOrder(depth_model, "cpu", metric=m) for m in (False, True))
    ((near, far, *_), growths) = falling.answer([request])[0], growing.answer([request])[0]
    assert 0 <= near <= 1
    assert near != far
    assert growths[0] == pytest.approx(1 - near, abs=2e-3)
    assert falling.identity["model"] == depth_model
    assert falling.identity != growing.identity
    with pytest.raises(ConfigError, match="no model of depth could be loaded"):
        DepthOrder(str(tmp_path), "cpu")


def test_depth_goes_from_the_nearest_to_the_farthest_point() -> None:
    depth = np.arange(20.0).reshape(4, 5)
    boxes = [[0, 0, 5, 1], [0.5, 3.2, 0.6, 3.3], [0, 0, 5, 4]]
    assert depths_in(depth, boxes, metric=True) == [0.105, 0.789, 0.5]
    assert depths_in(depth, boxes, metric=False) == [0.895, 0.211, 0.5]
    assert depths_in(np.ones((4, 5)), boxes, metric=True) == [0, 0, 0]
