import json

import cv2
import numpy as np
import pytest
from PIL import Image

from llmdet import Results
from llmdet.errors import ConfigError, DataError
from llmdet.prompts import Expression, Spans
from llmdet.visualization.drawing import draw_detections

NAMES = ["red circle", "dog", "tree"]
#: Single images and batches, sessions and predict: the same up to the order of additions.
EQUAL = 1e-5


def assert_same(first, second):
    """Boxes are compared in parts of the image's longer side."""
    assert first.names == second.names
    np.testing.assert_array_equal(first.labels, second.labels)
    np.testing.assert_allclose(first.scores, second.scores, atol=EQUAL, rtol=0)
    side = max(first.width, first.height)
    np.testing.assert_allclose(first.boxes / side, second.boxes / side, atol=EQUAL, rtol=0)


@pytest.fixture(scope="module")
def found(detector, photos):
    """All that the tiny detector finds in one photograph."""
    return detector.predict(photos / "astronaut.png", NAMES, threshold=0)


# --- what comes out


def test_boxes_lie_in_the_original_image_and_are_named_and_sorted(found, photos):
    assert isinstance(found, Results)
    assert found.image == str(photos / "astronaut.png")
    assert (found.width, found.height) == (512, 512)
    assert len(found) == 15
    assert found.boxes.shape == (15, 4)
    assert found.boxes.min() >= 0
    assert 96 < found.boxes.max() <= 512  # beyond the size at which the model sees the image
    assert found.scores.tolist() == sorted(found.scores, reverse=True)
    assert found.names == [NAMES[label] for label in found.labels]
    assert found.classes == tuple(NAMES)


def test_scores_below_the_threshold_are_cut_and_the_best_is_known(detector, photos, found):
    image = photos / "astronaut.png"
    cut = detector.predict(image, NAMES, threshold=float(found.scores[3]))
    assert_same(cut, found[:4])
    nothing = detector.predict(image, NAMES, threshold=0.99)
    assert len(nothing) == 0
    assert nothing.best_score == found.scores[0]


def test_classes_may_have_thresholds_of_their_own(detector, photos, found):
    image = photos / "astronaut.png"
    cut = detector.predict(image, NAMES, threshold=0.99, per_class_thresholds={"dog": 0.0})
    assert_same(cut, found[found.labels == 1])
    with pytest.raises(ConfigError, match=r"has 'dgo', which is not looked for; .*'dog'"):
        detector.predict(image, NAMES, per_class_thresholds={"dgo": 0.5})


def test_look_alikes_take_their_boxes_with_them(detector, photos, found):
    image = photos / "astronaut.png"
    best = found.labels[0]
    others = [name for label, name in enumerate(NAMES) if label != best]
    alone = detector.predict(image, others, threshold=0)
    claimed = detector.predict(image, others, negatives=[NAMES[best]], threshold=0)
    assert 0 < len(claimed) < len(alone)
    assert set(claimed.names) <= set(others)
    assert claimed.classes == tuple(others)
    # The best box of all is of the look-alike, and no other name has it any more.
    assert not (claimed.boxes == found.boxes[0]).all(axis=1).any()


def test_overlapping_boxes_of_any_classes_can_be_reduced_to_the_best(detector, photos, found):
    pairs = {tuple(box) for box in found.boxes.tolist()}
    assert len(pairs) < len(found)  # one box, several names
    alone = detector.predict(photos / "astronaut.png", NAMES, threshold=0, nms=0.5)
    assert len({tuple(box) for box in alone.boxes.tolist()}) == len(alone) <= len(pairs)
    assert alone[0] == found[0]


def test_without_words_whatever_is_an_object_is_found(detector, photos):
    found = detector.predict(photos / "astronaut.png", threshold=0)
    assert set(found.names) == {"object"}
    assert set(found.labels) == {0}
    assert found.scores.tolist() == sorted(found.scores, reverse=True)
    session = detector.set_image(photos / "astronaut.png")
    assert_same(session.predict(threshold=0), found)
    features = detector.model.forward_prompts(session._image.pyramid, ["object. "])
    best = features.proposals.logits.detach().sigmoid().amax()
    assert found.scores[0] == pytest.approx(best.item())  # the first stage's score


# --- what goes in


def test_arrays_pil_images_and_files_give_the_same(detector, photos, found):
    bgr = cv2.imread(str(photos / "astronaut.png"))
    rgb = np.ascontiguousarray(bgr[..., ::-1])
    before = rgb.copy()
    with Image.open(photos / "astronaut.png") as image:
        as_image = detector.predict(image, NAMES, threshold=0)
    assert_same(as_image, found)
    assert_same(detector.predict(rgb, NAMES, threshold=0), found)
    assert_same(detector.predict(bgr, NAMES, threshold=0, channels="bgr"), found)
    assert np.array_equal(rgb, before)
    assert as_image.image is None
    assert (as_image.width, as_image.height) == (512, 512)


def test_lists_folders_and_streams_are_answered_in_kind(detector, photos):
    paths = sorted(photos.iterdir())
    folder = detector.predict(photos, NAMES)
    assert [result.image for result in folder] == list(map(str, paths))
    mixed = detector.predict([paths[0], np.asarray(Image.open(paths[1]))], NAMES)
    assert [type(result) for result in mixed] == [Results] * 2
    assert isinstance(detector.predict([paths[0]], NAMES), list)
    assert isinstance(detector.predict(str(paths[0]), NAMES), Results)


def test_a_stream_is_read_one_batch_at_a_time(detector, photos):
    taken = []

    def frames():
        for path in sorted(photos.iterdir()):
            taken.append(path)
            yield path

    stream = detector.predict(frames(), NAMES, batch_size=2)
    assert taken == []
    assert next(stream).image == str(taken[0])
    assert len(taken) == 2
    assert len(list(stream)) == 2


def test_grey_and_transparent_pictures_are_read_as_colour(detector, photos, tmp_path):
    for mode in ("L", "RGBA", "P"):
        Image.open(photos / "coffee.png").convert(mode).save(tmp_path / f"{mode}.png")
    assert all(len(found) for found in detector.predict(tmp_path, NAMES, threshold=0))


@pytest.mark.parametrize("suffix", ["gif", "avif", "jp2"])
def test_pictures_of_less_common_formats_are_read(detector, photos, tmp_path, suffix):
    with Image.open(photos / "coffee.png") as image:
        image.convert("RGB").save(tmp_path / f"a.{suffix}")
    (found,) = detector.predict(tmp_path, NAMES, threshold=0)
    assert len(found)
    assert (found.width, found.height) == (150, 200)


def test_a_photo_taken_upright_is_detected_and_drawn_upright(detector, photos, tmp_path):
    turned = Image.open(photos / "coffee.png").transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned clockwise by 90 degrees
    turned.save(tmp_path / "upright.png", exif=exif)
    found = detector.predict(tmp_path / "upright.png", NAMES, threshold=0)
    width, height = found.plot().size
    assert height > width
    assert_same(found, detector.predict(photos / "coffee.png", NAMES, threshold=0))


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_damaged_image_is_named_and_costs_the_others_nothing(detector, photos, tmp_path, suffix):
    source = photos / ("coffee.png" if suffix == "png" else "cat.jpg")
    damaged = tmp_path / f"damaged.{suffix}"
    damaged.write_bytes(source.read_bytes()[:1500])
    with pytest.raises(DataError, match=rf"damaged\.{suffix} cannot be read"):
        detector.predict(damaged, NAMES)
    images = [source, damaged, source]
    first, broken, last = detector.predict(images, NAMES, batch_size=3, return_errors=True)
    assert f"damaged.{suffix} cannot be read" in str(broken)
    assert_same(first, last)


# --- prompts


def test_a_batch_gives_what_single_images_give(detector, photos):
    prompts = [
        ["dog", "red circle", "yellow star"],
        Expression("the dog under the red tree"),
        Spans("a dog on the grass", (((2, 5),), ((13, 18),))),
    ]
    together = detector.predict(photos, prompts=prompts, batch_size=3, threshold=0)
    paths = sorted(photos.iterdir())
    for path, prompt, expected in zip(paths, prompts, together, strict=True):
        (alone,) = detector.predict([path], prompts=[prompt], threshold=0)
        assert_same(alone, expected)


def test_any_batch_size_gives_the_same(detector, photos):
    one, two = (detector.predict(photos, NAMES, batch_size=size, threshold=0) for size in (1, 2))
    for first, second in zip(one, two, strict=True):
        assert_same(first, second)


def test_a_text_of_classes_gives_what_a_list_of_classes_gives(detector, photos, found):
    written = detector.predict(photos / "astronaut.png", "red circle . dog. tree", threshold=0)
    assert written.to_dict() == found.to_dict()


def test_an_expression_is_one_thing_and_spans_and_sentences_are_several(detector, photos):
    session = detector.set_image(photos / "cat.jpg")
    assert set(session.predict(expression="red tree.", threshold=0).names) == {"red tree"}
    spans = ("a dog and a red tree", [[2, 5], [12, 20]])
    assert set(session.predict(spans=spans, threshold=0).names) == {"dog", "red tree"}
    sentence = session.predict(text="There is a dog on the grass.", threshold=0)
    assert {name.split()[-1] for name in sentence.names} == {"dog", "grass"}


def test_several_descriptions_are_each_found_as_if_asked_alone(detector, photos):
    session = detector.set_image(photos / "cat.jpg")
    texts = ["the red tree on the left", "a dog", "the red tree on the left"]
    together = session.predict(expression=texts, threshold=0)
    assert together.classes == tuple(texts)
    assert together.scores.tolist() == sorted(together.scores.tolist(), reverse=True)
    most = detector.model.test_cfg.max_per_img
    alone = [session.predict(expression=text, threshold=0) for text in texts]
    scores = np.concatenate([found.scores for found in alone])
    np.testing.assert_allclose(together.scores, np.sort(scores)[::-1][:most], rtol=1e-5)
    for label, found in enumerate(alone):
        kept = together[together.labels == label]
        assert set(kept.names) <= {texts[label]}
        np.testing.assert_allclose(kept.boxes, found.boxes[: len(kept)], rtol=1e-4, atol=1e-3)
    with pytest.raises(ConfigError, match="expression is empty"):
        session.predict(expression=["a dog", " "])
    with pytest.raises(ConfigError, match=r"expression is \[\]: give a text, or a list"):
        session.predict(expression=[])


def test_classes_may_be_said_in_several_ways(detector, photos):
    session = detector.set_image(photos / "astronaut.png")
    plain = session.predict(NAMES, threshold=0)
    assert_same(session.predict(NAMES, templates=["{}"], threshold=0), plain)
    ways = {"templates": ["a small {}", "{}"], "synonyms": {"dog": ["puppy"]}}
    several = session.predict(NAMES, **ways, threshold=0)
    assert set(several.names) <= set(NAMES)
    assert several.scores[0] != plain.scores[0]
    with pytest.raises(ConfigError, match="no class that is looked for"):
        session.predict(["dog"], synonyms={"cat": ["kitten"]})


def test_a_session_runs_the_backbone_once_for_many_prompts(detector, photos, monkeypatch, found):
    runs = []
    extract = detector.model.extract_feat
    monkeypatch.setattr(
        detector.model, "extract_feat", lambda images: runs.append(len(images)) or extract(images)
    )
    session = detector.set_image(photos / "astronaut.png")
    assert_same(session.predict(NAMES, threshold=0), found)
    for name in NAMES:
        session.predict([name])
    session.predict(expression="the dog")
    assert runs == [1]
    with pytest.raises(ConfigError, match="unknown key 'batch_size'"):
        session.predict(NAMES, batch_size=2)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"prompts": ["dog", "cat"]}, "prompts has 2 entries for 3 images"),
        ({"prompts": ["dog"] * 3, "classes": ["dog"]}, "prompts and classes exclude each other"),
        ({"classes": ["dog"], "text": "a dog"}, "exclude each other"),
        ({"classes": ["dog"], "batch_size": 0}, "batch_size is 0"),
        ({"classes": ["dog"], "threshold": 1.5}, "threshold is 1.5"),
        ({"classes": ["dog"], "nms": -1}, "nms is -1"),
        ({"text": "a dog", "negatives": ["cat"]}, "belong to class names"),
        ({"classes": ["dog"], "captions": True}, "build the detector with captions=True"),
    ],
)
def test_arguments_that_contradict_each_other_are_refused(detector, photos, arguments, sentence):
    with pytest.raises(ConfigError, match=sentence):
        detector.predict(photos, **arguments)


def test_a_stream_with_too_few_prompts_is_refused(detector, photos):
    stream = detector.predict(iter(sorted(photos.iterdir())), prompts=iter(["a dog"]))
    assert isinstance(next(stream), Results)
    with pytest.raises(ConfigError, match="1 prompts or boxes and more images"):
        next(stream)


def test_nothing_to_look_at_is_refused(detector):
    with pytest.raises(DataError, match="list of images is empty"):
        detector.predict([], NAMES)
    with pytest.raises(DataError, match="not a int"):
        detector.predict(3, NAMES)
    with pytest.raises(ConfigError, match="set_image takes one image"):
        detector.set_image(["a.png"])


# --- pictures


def test_the_picture_shows_what_was_found(found, photos, tmp_path):
    image = np.array(Image.open(photos / "astronaut.png"))
    drawn = (found.boxes, found.labels.tolist(), found.names, found.scores)
    expected = draw_detections(image, *drawn, classes=found.classes).picture
    assert np.array_equal(np.asarray(found.plot()), expected)
    found.save(tmp_path / "new" / "found.png")
    assert np.array_equal(np.array(Image.open(tmp_path / "new" / "found.png")), expected)
    found.save(tmp_path / "found.json")
    assert json.loads((tmp_path / "found.json").read_text()) == found.to_dict()
