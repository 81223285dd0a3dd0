"""COCO json: names from the file, ids with holes, nothing lost without a count."""

import pytest

from llmdet.datasets.coco_dataset import CocoDataset
from llmdet.errors import ConfigError, DataError

CATEGORIES = [{"id": 70, "name": "dog"}, {"id": 3, "name": "cat"}, {"id": 5, "name": "red ball"}]


def coco(*annotations, images=None, categories=CATEGORIES):
    images = images or [
        {"id": 9, "file_name": "b.jpg", "width": 60, "height": 40},
        {"id": 2, "file_name": "a.jpg", "width": 30, "height": 50},
    ]
    numbered = [{"id": i, "area": 1, **a} for i, a in enumerate(annotations, start=1)]
    return {"images": images, "annotations": numbered, "categories": categories}


def box(category, bbox=(1, 2, 10, 20), image=9, **more):
    return {"image_id": image, "category_id": category, "bbox": list(bbox), **more}


@pytest.fixture
def open_coco(write_json):
    def build(content, **settings):
        path = str(write_json("coco.json", content))
        return CocoDataset(ann_file=path, data_prefix=dict(img="pictures/"), **settings)

    return build


def test_classes_are_the_categories_of_the_file_in_its_order(open_coco):
    dataset = open_coco(coco(box(5), box(70, image=2)), return_classes=True)
    assert dataset.metainfo["classes"] == ("dog", "cat", "red ball")
    assert dataset.cat_ids == [70, 3, 5]
    first, second = dataset[0], dataset[1]
    assert first["text"] == ("dog", "cat", "red ball")
    assert first["custom_entities"] is True
    assert (first["img_id"], first["img_path"]) == (9, "pictures/b.jpg")
    expected = {"bbox": [1, 2, 11, 22], "bbox_label": 2, "ignore_flag": 0}
    assert first["instances"] == [expected]
    assert second["instances"][0]["bbox_label"] == 0


def test_labels_follow_the_names_that_are_asked_for_and_not_the_file(open_coco):
    dataset = open_coco(coco(box(5), box(3), box(70)), metainfo=dict(classes=("red ball", "dog")))
    assert dataset.cat_ids == [5, 70]
    assert [i["bbox_label"] for i in dataset[0]["instances"]] == [0, 1]
    assert dataset.dropped.counts == {"box of a class that is not in metainfo.classes": 1}


def test_a_class_that_the_file_lacks_is_named_with_its_nearest_match(open_coco):
    with pytest.raises(ConfigError, match="no category 'red bal'; did you mean 'red ball'"):
        open_coco(coco(), metainfo=dict(classes=("red bal",)))


def test_unusable_boxes_are_counted_and_crowds_are_ignored(open_coco):
    dataset = open_coco(
        coco(
            box(3, (61, 2, 10, 10)),
            box(3, (1, 2, 0.5, 10)),
            box(3, iscrowd=1),
            box(3, ignore=True),
        )
    )
    assert [i["ignore_flag"] for i in dataset[0]["instances"]] == [1, 1]
    assert dataset.dropped.counts == {"box outside the image": 1, "box under 1 pixel": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (coco(box(4)), "annotation id 1: no category has the id 4"),
        (coco(box(3, image=1)), "annotation id 1: no image has the id 1"),
        (coco(box(3, (1, 2, 3))), "annotation id 1: bbox .* is not four numbers"),
        (coco(images=[{"id": 1, "width": 3}]), r"images\[0\].height' is missing"),
        (coco(images=[{"id": 1, "width": 3, "height": 4}]), "image 1: field 'file_name'"),
        (
            coco(images=[{"id": 1, "width": 3, "height": 4, "file_name": "a"}] * 2),
            "the image id 1 appears twice",
        ),
        (
            coco(images=[{"id": 1, "width": 3, "height": "5"}]),
            r"images\[0\].height' must be a positive whole number of pixels, not '5'",
        ),
        (
            coco(images=[{"id": 1, "width": 3, "height": 5, "file_name": 5}]),
            r"images\[0\].file_name' must be a string, not int",
        ),
        (
            coco(images=[{"id": [1]}]),
            r"image 0: field 'id' must be a number or a string, not \[1\]",
        ),
        (coco(box([3])), r"annotation id 1: no category has the id \[3\]"),
        (coco(box(3, image=[9])), r"annotation id 1: no image has the id \[9\]"),
        (coco(categories=[{"id": 1, "name": " "}]), r"categories\[0\].name' is empty"),
        (coco(), r"no box to learn from in 2 image\(s\); is it the file of the training set"),
        (coco(box(3, (1, 1, -2, 3))), r"no box .* \(box with negative size: 1\); is it"),
        (coco(categories=[{"id": 1}]), r"categories\[0\].name' is missing"),
        (coco(categories=[{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]), "'a' appears twice"),
        ({"images": []}, "field 'annotations' is missing"),
        ([], "field 'images' is missing"),
    ],
)
def test_a_faulty_file_is_explained(open_coco, content, message):
    with pytest.raises(DataError, match=rf"coco\.json: {message}|coco\.json: .*{message}"):
        open_coco(content)


def test_a_missing_or_broken_file_is_explained(tmp_path):
    with pytest.raises(DataError, match=r"none\.json.*No such file"):
        CocoDataset(ann_file=str(tmp_path / "none.json"))
    (tmp_path / "broken.json").write_text('{\n"images": [\n')
    with pytest.raises(DataError, match=r"broken\.json.* not valid JSON: .*line 3"):
        CocoDataset(ann_file=str(tmp_path / "broken.json"))


@pytest.mark.parametrize("serialize", [True, False])
def test_filters_apply_while_training_and_not_in_test_mode(open_coco, serialize):
    settings = dict(filter_cfg=dict(filter_empty_gt=True, min_size=35), serialize_data=serialize)
    content = coco(box(3), box(3, image=2))
    dataset = open_coco(content, **settings)
    assert [info["img_id"] for info in dataset] == [9]
    assert dataset.aspect_ratios.tolist() == [1.5]
    assert dataset.dropped.counts == {"image smaller than min_size": 1}
    assert len(open_coco(content, test_mode=True, **settings)) == 2
    assert len(open_coco(coco(box(3)), **settings)) == 1


def test_names_are_not_stored_with_every_image(open_coco):
    many = [{"id": i, "name": f"class number {i}"} for i in range(2000)]
    dataset = open_coco(coco(box(5), categories=many), return_classes=True)
    assert len(dataset[0]["text"]) == 2000
    assert dataset.data_bytes.nbytes < 2000


def test_a_broken_picture_or_one_outside_its_folder_is_named_or_counted(open_coco, scope):
    settings = dict(pipeline=[dict(type="LoadImageFromFile")])
    size = dict(width=60, height=40)
    images = [dict(id=1, file_name="a.jpg", **size), dict(id=2, file_name="../../b.jpg", **size)]
    content = coco(box(3, image=1), images=images)
    for index, message in enumerate(["does not exist", "outside the folder"]):
        with pytest.raises(DataError, match=rf"coco\.json: image {index + 1}: .*{message}"):
            open_coco(content, **settings).prepare_data(index)
    lenient = open_coco(content, **settings, max_bad_rows=2)
    assert [lenient.prepare_data(index) for index in (0, 1, 0)] == [None] * 3
    assert lenient.dropped.counts == {"broken record": 2}
    with pytest.raises(DataError, match="does not exist"):  # results would lack an image
        open_coco(content, **settings, max_bad_rows=2, test_mode=True)[0]


def test_a_box_of_negative_size_is_counted_as_such(open_coco):
    dataset = open_coco(coco(box(3, (9, 9, -5, 4)), box(3, (9, 9, 5, -4)), box(3)))
    assert len(dataset[0]["instances"]) == 1
    assert dataset.dropped.counts == {"box with negative size": 2}
