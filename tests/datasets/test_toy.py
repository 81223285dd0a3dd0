"""The toy set is what it says: exact boxes, true captions, unseen combinations, equal by seed."""

import hashlib
import json
from collections import Counter

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from llmdet.datasets.toy import HELD_OUT_NAMES, SEEN_NAMES, ToySettings, generate
from llmdet.datasets.toy.__main__ import main
from llmdet.datasets.toy.captions import long_caption, relation
from llmdet.datasets.toy.judge import Tally, judge_description, judge_phrase
from llmdet.datasets.toy.photographs import (
    HELD_OUT_PHOTOGRAPHS,
    TRAINING_PHOTOGRAPHS,
    read_photograph,
)
from llmdet.datasets.toy.scene import Item, Scene, draw_scene, sample_scene
from llmdet.datasets.toy.vocabulary import ALL_KINDS, COLOURS, HELD_OUT, SEEN, SHAPES, Kind
from llmdet.errors import DataError

SETTINGS = ToySettings(seed=3, train=40, val=16)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return generate(tmp_path_factory.mktemp("toy"), SETTINGS)


def rows(toy, name):
    return [json.loads(line) for line in (toy / "annotations" / name).read_text().splitlines()]


def load(toy, name):
    return json.loads((toy / "annotations" / name).read_text())


def digest(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(str(p.relative_to(folder)), hashlib.md5(p.read_bytes()).hexdigest()) for p in files]


def uniform(count):
    return np.full(count, 1 / count)


@pytest.mark.parametrize("seed", range(12))
def test_box_is_the_tight_box_of_the_painted_pixels(seed):
    rng = np.random.default_rng(seed)
    scene = sample_scene(rng, ALL_KINDS, uniform(len(ALL_KINDS)))
    for item in scene.items:
        state = np.random.default_rng(seed)
        with_item = draw_scene(Scene(scene.width, scene.height, "plain", (item,)), state)
        state = np.random.default_rng(seed)
        background = draw_scene(Scene(scene.width, scene.height, "plain", ()), state)
        # painting the item draws its tint from the generator, so the noise differs: look past it
        changed = np.abs(with_item.astype(int) - background).max(-1) > 20
        y, x = np.nonzero(changed)
        painted = (x.min(), y.min(), x.max() + 1, y.max() + 1)
        np.testing.assert_allclose(item.box, painted, atol=1.25)


def test_objects_lie_inside_their_image_and_do_not_overlap():
    for seed in range(50):
        scene = sample_scene(np.random.default_rng(seed), ALL_KINDS, uniform(len(ALL_KINDS)))
        assert 1 <= len(scene.items) <= 6
        boxes = [item.box for item in scene.items]
        for i, (x1, y1, x2, y2) in enumerate(boxes):
            assert x1 >= 0
            assert y1 >= 0
            assert x2 <= scene.width
            assert y2 <= scene.height
            for a1, b1, a2, b2 in boxes[:i]:
                assert min(x2, a2) <= max(x1, a1) or min(y2, b2) <= max(y1, b1)


def test_each_held_out_word_is_learnt_from_other_combinations():
    assert len(set(HELD_OUT)) == len(HELD_OUT)
    assert Counter(kind.colour for kind in HELD_OUT) == dict.fromkeys(COLOURS, 1)
    assert max(Counter(kind.shape for kind in HELD_OUT).values()) <= 2
    assert set(SEEN_NAMES) | set(HELD_OUT_NAMES) == {f"{c} {s}" for c in COLOURS for s in SHAPES}


def test_training_never_shows_or_names_a_held_out_combination(toy):
    for path in (toy / "annotations").glob("train_*.jsonl"):
        text = path.read_text()
        assert not any(held_out in text for held_out in HELD_OUT_NAMES)
    text = (toy / "annotations" / "label_map.json").read_text()
    assert not any(held_out in text for held_out in HELD_OUT_NAMES)
    assert {c["name"] for c in load(toy, "train_coco.json")["categories"]} == set(SEEN_NAMES)


def test_every_unseen_validation_image_holds_a_held_out_combination(toy):
    for row in rows(toy, "val_unseen_detection.jsonl"):
        names = {instance["category"] for instance in row["detection"]["instances"]}
        assert names & set(HELD_OUT_NAMES)


@pytest.mark.parametrize("split", ["train", "val_seen", "val_unseen"])
def test_all_annotation_forms_agree(toy, split):
    label_map = load(toy, "label_map_all.json")
    coco = COCO(str(toy / "annotations" / f"{split}_coco.json"))
    pairs = zip(
        rows(toy, f"{split}_grounding.jsonl"), rows(toy, f"{split}_detection.jsonl"), strict=True
    )
    for image_id, (grounding, detection) in enumerate(pairs, start=1):
        instances = detection["detection"]["instances"]
        assert all(label_map[str(i["label"])] == i["category"] for i in instances)
        expected = sorted((i["bbox"], i["category"]) for i in instances)
        from_coco = sorted(
            (
                [x, y, round(x + w, 2), round(y + h, 2)],
                coco.cats[annotation["category_id"]]["name"],
            )
            for annotation in coco.imgToAnns[image_id]
            for x, y, w, h in [annotation["bbox"]]
        )
        assert from_coco == expected
        regions = grounding["grounding"]["regions"]
        boxes = [
            b for r in regions for b in (r["bbox"] if np.ndim(r["bbox"]) == 2 else [r["bbox"]])
        ]
        assert sorted(boxes) == sorted(i["bbox"] for i in instances)
        image = cv2.imread(str(toy / "images" / detection["filename"]))
        assert image.shape[:2] == (detection["height"], detection["width"])


def test_spans_of_a_caption_are_its_phrases_and_name_the_right_objects(toy):
    for grounding, detection in zip(
        rows(toy, "train_grounding.jsonl"), rows(toy, "train_detection.jsonl"), strict=True
    ):
        kinds = {tuple(i["bbox"]): i["category"] for i in detection["detection"]["instances"]}
        for region in grounding["grounding"]["regions"]:
            [(start, end)] = region["tokens_positive"]
            assert grounding["grounding"]["caption"][start:end] == region["phrase"]
            for box in np.reshape(region["bbox"], (-1, 4)):
                colour, shape = kinds[tuple(box)].split()
                assert f"{colour} {shape}" in region["phrase"] or SHAPES[shape] in region["phrase"]


def test_photographs_lie_behind_some_scenes_and_are_named_in_their_captions():
    weights = uniform(len(SEEN))
    scenes = [
        sample_scene(np.random.default_rng(seed), SEEN, weights, (), 128, ["coffee.png"])
        for seed in range(100)
    ]
    with_photograph = [scene for scene in scenes if scene.photograph]
    assert 5 < len(with_photograph) < 22
    assert " on a photograph. " in long_caption(with_photograph[0])
    plain = sample_scene(np.random.default_rng(0), SEEN, weights)
    assert not plain.photograph
    assert f" on a {plain.background} background. " in long_caption(plain)


def test_a_patch_of_a_photograph_fills_the_scene_in_exchanged_colours():
    scene = Scene(90, 120, "photograph", (), "coffee.png")
    drawn = [draw_scene(scene, np.random.default_rng(seed)) for seed in range(8)]
    assert {image.shape for image in drawn} == {(120, 90, 3)}
    assert min(image.std() for image in drawn) > 10
    strongest = {int(image.mean((0, 1)).argmax()) for image in drawn}
    assert strongest == {0, 1, 2}  # the photograph itself is reddish
    again = draw_scene(scene, np.random.default_rng(0))
    assert np.array_equal(again, drawn[0])


def test_photographs_of_validation_are_no_photographs_of_training(toy, tmp_path):
    assert not set(TRAINING_PHOTOGRAPHS) & set(HELD_OUT_PHOTOGRAPHS)
    for row in rows(toy, "photographs_detection.jsonl"):
        image = cv2.imread(str(toy / "images" / row["filename"]))[..., ::-1]
        name = row["filename"].split("/")[1].replace("jpg", "png")
        same = np.abs(image.astype(int) - read_photograph(name)).max(-1) < 40
        assert name in HELD_OUT_PHOTOGRAPHS
        assert 0.5 < same.mean() < 1
        shown = {instance["category"] for instance in row["detection"]["instances"]}
        assert shown & set(HELD_OUT_NAMES)
        assert shown & set(SEEN_NAMES)


def test_without_scikit_image_a_set_without_photographs_is_made(tmp_path, monkeypatch):
    import llmdet.datasets.toy.photographs as photographs

    read_photograph.cache_clear()
    monkeypatch.setattr(photographs, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="--no-photographs"):
        main([str(tmp_path / "a"), "--train", "8", "--val", "1"])
    main([str(tmp_path / "b"), "--train", "8", "--val", "1", "--no-photographs"])
    captions = (tmp_path / "b" / "annotations" / "train_grounding.jsonl").read_text()
    assert "photograph" not in captions


def square(x, y, side=10.0):
    corners = np.array([[x, y], [x + side, y], [x + side, y + side], [x, y + side]])
    return Item(Kind("red", "square"), "small", (corners,))


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [(30, 2, "left of"), (2, 30, "above"), (-30, 0, "right of"), (0, -30, "below"), (20, 20, None)],
)
def test_a_relation_is_stated_only_when_it_is_clear(x, y, expected):
    assert relation(square(0, 0).box, square(x, y).box) == expected


def test_long_caption_counts_and_places_the_objects():
    scene = Scene(90, 90, "plain", (square(0, 0), square(80, 80)))
    text = long_caption(scene)
    assert text.startswith("The image shows two shapes on a plain background.")
    assert text.endswith(
        "A small red square is in the upper left. A small red square is in the lower right."
    )


def judged(text, scene):
    kinds, boxes = [i.kind for i in scene.items], [i.box for i in scene.items]
    return judge_description(text, kinds, boxes, (scene.width, scene.height))


@pytest.mark.parametrize("seed", range(20))
def test_the_judge_finds_every_sentence_of_the_generator_true(seed):
    weights = np.full(len(SEEN), 1 / len(SEEN))
    scene = sample_scene(np.random.default_rng(seed), SEEN, weights)
    tally = judged(long_caption(scene), scene)
    assert tally.objects == tally.named == tally.found == tally.placed == len(scene.items)


def test_the_judge_counts_what_is_wrong():
    scene = Scene(90, 90, "plain", (square(0, 0), square(80, 0)))
    text = (
        "A small red square is on the left. A large red square is in the upper right. "
        "A small red square is in the center. A small red star is at the top."
    )
    tally = judged(text, scene)
    assert tally == Tally(objects=2, named=4, found=2, placed=1)
    shares = (tally + tally).shares()
    assert shares == {"recall": 1.0, "precision": 0.5, "place": 0.5}
    assert np.isnan(judged("", scene).shares()["precision"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Red square.", (True, True)),
        ("Small red star.", (True, False)),
        ("Red and blue square", (False, True)),
        ("", (False, False)),
    ],
)
def test_the_judge_reads_colour_and_shape_of_a_phrase(text, expected):
    assert judge_phrase(text, Kind("red", "square")) == expected


def test_lvis_file_is_federated_and_consistent(toy):
    content = load(toy, "val_unseen_lvis.json")
    frequency = {c["id"]: c["frequency"] for c in content["categories"]}
    names = {c["id"]: c["name"] for c in content["categories"]}
    assert {names[i] for i, f in frequency.items() if f == "r"} == set(HELD_OUT_NAMES)
    assert set(frequency.values()) == {"r", "c", "f"}
    seen = load(toy, "val_seen_lvis.json")["categories"]
    assert {category["name"] for category in seen} == set(SEEN_NAMES)
    positives = {}
    for annotation in content["annotations"]:
        positives.setdefault(annotation["image_id"], set()).add(annotation["category_id"])
    for image in content["images"]:
        assert not positives[image["id"]] & set(image["neg_category_ids"])
        assert set(image["not_exhaustive_category_ids"]) <= positives[image["id"]]
    assert any(image["not_exhaustive_category_ids"] for image in content["images"])


def test_equal_seeds_give_equal_files_and_other_seeds_do_not(toy, tmp_path):
    again = generate(tmp_path / "again", SETTINGS)
    assert digest(again) == digest(toy)
    other = generate(tmp_path / "other", ToySettings(seed=4, train=40, val=16))
    assert digest(other) != digest(toy)


def test_a_larger_set_begins_with_the_images_of_a_smaller_one(toy, tmp_path):
    larger = generate(tmp_path / "larger", ToySettings(seed=3, train=60, val=16))
    small, large = rows(toy, "train_grounding.jsonl"), rows(larger, "train_grounding.jsonl")
    assert large[: len(small)] == small


def test_a_second_run_keeps_a_complete_set_and_replaces_another(tmp_path):
    out = generate(tmp_path / "toy", ToySettings(train=2, val=1))
    path = out / "images" / "train" / "000000.jpg"
    written = path.stat().st_mtime_ns
    generate(out, ToySettings(train=2, val=1))
    assert path.stat().st_mtime_ns == written
    generate(out, ToySettings(train=1, val=1))
    assert [p.name for p in (out / "images" / "train").iterdir()] == ["000000.jpg"]


def test_foreign_pictures_are_left_alone(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "thesis.png").write_text("years of work")
    with pytest.raises(DataError, match="not part of a toy set"):
        generate(tmp_path)
    with pytest.raises(DataError, match="not part of a toy set"):
        main([str(tmp_path)])
    assert [path.name for path in tmp_path.rglob("*")] == ["images", "thesis.png"]


def test_models_of_an_older_set_go_with_it_and_other_files_stay(tmp_path):
    for folder in ("bert", "language_model", "mine"):
        (tmp_path / folder).mkdir()
    generate(tmp_path, ToySettings(train=1, val=1))
    assert (tmp_path / "bert").is_dir()
    generate(tmp_path, ToySettings(train=2, val=1))
    assert (tmp_path / "mine").is_dir()
    assert not (tmp_path / "bert").exists()
    assert not (tmp_path / "language_model").exists()


def test_an_interrupted_set_is_made_again(tmp_path):
    generate(tmp_path, ToySettings(train=2, val=1))
    (tmp_path / "toy.json").write_text('{"unfinished": {}}')
    (tmp_path / "annotations" / "label_map.json").unlink()
    generate(tmp_path, ToySettings(train=2, val=1))
    assert (tmp_path / "annotations" / "label_map.json").is_file()


def test_command_line_writes_the_set(tmp_path):
    out = tmp_path / "toy"
    main([str(out), "--train", "3", "--val", "2", "--seed", "5", "--size", "64"])
    assert len(rows(out, "train_grounding.jsonl")) == 3
    assert len(load(out, "val_seen_coco.json")["images"]) == 2


def test_command_line_writes_the_models_and_keeps_those_that_are_there(tmp_path):
    arguments = [str(tmp_path), "--train", "2", "--val", "1", "--size", "64"]
    main(arguments)
    weights = [tmp_path / name / "model.safetensors" for name in ("bert", "language_model")]
    times = [path.stat().st_mtime_ns for path in weights]
    main(arguments)
    assert [path.stat().st_mtime_ns for path in weights] == times
