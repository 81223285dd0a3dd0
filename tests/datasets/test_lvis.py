"""LVIS json: classes by id, images by address."""

import pytest

from llmdet.datasets.lvis import LVISV1Dataset
from llmdet.datasets.toy import CLASS_NAMES, ToySettings, generate
from llmdet.registry import DATASETS


@pytest.fixture
def lvis_file(write_json):
    image = {"id": 7, "width": 64, "height": 48, "neg_category_ids": [2]}
    address = "http://images.cocodataset.org/val2017/000000397133.jpg"
    return write_json(
        "lvis.json",
        {
            "images": [
                {**image, "coco_url": address, "file_name": "000000397133.jpg"},
                {**image, "id": 8, "file_name": "val2017/8.jpg"},
            ],
            "annotations": [{"id": 1, "image_id": 7, "category_id": 2, "bbox": [1, 1, 5, 5]}],
            "categories": [
                {"id": 2, "name": "fire_hydrant", "frequency": "r"},
                {"id": 1, "name": "bow_(decorative_ribbons)", "frequency": "c"},
            ],
        },
    )


def test_classes_are_ordered_by_id_and_keep_their_spelling(lvis_file):
    dataset = LVISV1Dataset(ann_file=str(lvis_file), data_prefix=dict(img="coco/"))
    assert dataset.metainfo["classes"] == ("bow_(decorative_ribbons)", "fire_hydrant")
    assert dataset[0]["instances"][0]["bbox_label"] == 1


def test_images_are_found_below_the_folder_that_their_address_names(lvis_file):
    dataset = LVISV1Dataset(ann_file=str(lvis_file), data_prefix=dict(img="coco/"))
    assert dataset[0]["img_path"] == "coco/val2017/000000397133.jpg"
    assert dataset[1]["img_path"] == "coco/val2017/8.jpg"


@pytest.mark.usefixtures("scope")
def test_the_toy_set_opens_as_lvis(tmp_path):
    toy = generate(tmp_path / "toy", ToySettings(train=2, val=8))
    dataset = DATASETS.build(
        dict(
            type="LVISV1Dataset",
            data_root=str(toy),
            ann_file="annotations/val_unseen_lvis.json",
            data_prefix=dict(img="images/"),
            pipeline=[dict(type="LoadImageFromFile")],
            test_mode=True,
        )
    )
    assert isinstance(dataset, LVISV1Dataset)
    assert set(dataset.metainfo["classes"]) == set(CLASS_NAMES)
    assert all(item["img"].shape[:2] == (item["height"], item["width"]) for item in dataset)
