"""Every format that the documentation names gives conversations of the tasks that it can."""

import json

import pytest

from llmdet.cli import convert_data
from llmdet.datasets.rows import read_row
from llmdet.prompts.region_tasks import read_choice

DOG, CAT = [1, 2, 31, 42], [50, 5, 70, 35]


def coco(image, names=("dog", "cat"), **fields):
    return {
        "images": [{"id": 1, "width": 80, "height": 60} | image],
        "annotations": [
            {"id": n, "image_id": 1, "category_id": n, "bbox": [x1, y1, x2 - x1, y2 - y1]} | fields
            for n, (x1, y1, x2, y2) in enumerate((DOG, CAT), start=1)
        ],
        "categories": [{"id": n, "name": name} for n, name in enumerate(names, start=1)],
    }


def mdetr():
    """An image of one name for each sentence, as MDETR's files have them."""
    document = coco({"file_name": "COCO_train2014_1.jpg"})
    document["images"] = [
        document["images"][0] | {"id": n, "caption": text}
        for n, text in enumerate(("left dog", "right cat"), start=1)
    ]
    for annotation in document["annotations"]:
        annotation |= {"image_id": annotation["id"], "tokens_positive": [[0, 4]]}
    return document


def genome(key, words, sides):
    entries = [
        {"x": x1, "y": y1, sides[0]: x2 - x1, sides[1]: y2 - y1, f"{key}_id": n} | words[n]
        for n, (x1, y1, x2, y2) in enumerate((DOG, CAT))
    ]
    return [{"image_id": 1, f"{key}s": entries}]


IMAGE_DATA = [
    {"image_id": 1, "width": 80, "height": 60, "url": "https://example.org/VG_100K/1.jpg"},
]
LVIS_IMAGE = {"coco_url": "http://images.cocodataset.org/train2017/000000000007.jpg"}
FILES = {
    "coco": ("coco", coco({"file_name": "1.jpg"}), "1.jpg"),
    "lvis": ("lvis", coco(LVIS_IMAGE, ("dog", "cat_(pet)")), "train2017/000000000007.jpg"),
    "v3det": ("v3det", coco({"file_name": "images/n1/1.jpg"}), "images/n1/1.jpg"),
    "refcoco": ("refcoco", mdetr(), "COCO_train2014_1.jpg"),
    "descriptions": (
        "visual_genome",
        genome("region", [{"phrase": "left dog"}, {"phrase": "right cat"}], ("width", "height")),
        "VG_100K/1.jpg",
    ),
    "objects": (
        "visual_genome",
        genome("object", [{"names": ["dog"]}, {"names": ["cat"]}], ("w", "h")),
        "VG_100K/1.jpg",
    ),
}


@pytest.mark.parametrize(
    ("file", "task", "answers"),
    [
        *((file, "classify", ["dog", "cat"]) for file in ("coco", "lvis", "v3det", "objects")),
        *((file, "choose", ["dog", "cat"]) for file in ("coco", "objects")),
        *(
            (file, task, ["left dog", "right cat"])
            for file in ("refcoco", "descriptions")
            for task in ("caption", "refer", "choose")
        ),
    ],
)
def test_a_tiny_file_of_each_format_becomes_what_it_says(file, task, answers, tmp_path):
    form, document, name = FILES[file]
    path, out = tmp_path / "in.json", tmp_path / "rows.jsonl"
    path.write_text(json.dumps(document))
    (tmp_path / "image_data.json").write_text(json.dumps(IMAGE_DATA))
    command = [str(path), str(out), "--from", form, "--to", "regions", "--task", task]
    convert_data.main([*command, *(["--none-share", "0"] if task == "choose" else [])])
    (row,) = (json.loads(line) for line in out.read_text().splitlines())
    assert (row["filename"], row["width"], row["height"]) == (name, 80, 60)
    read = read_row(row, "row")
    slots = iter([slot.index for slot in read.conversation.slots[1:]])
    said = {}
    for asked, told in zip(
        read.conversation.turns[::2], read.conversation.turns[1::2], strict=True
    ):
        marked = [next(slots) for _ in range(asked.text.count("<region"))]
        if task == "choose":
            right = marked[read_choice(told.text) - 1]
            text = asked.text.split('"')[1]
        else:
            (right,), text = marked, told.text
        said[text] = read.regions.boxes[right].tolist()
    assert said == dict(zip(answers, (DOG, CAT), strict=True))


def test_sentences_of_a_picture_are_put_together_and_take_classes_from_another_file(tmp_path):
    path, objects, out = (tmp_path / name for name in ("refs.json", "objects.json", "rows.jsonl"))
    path.write_text(json.dumps(mdetr()))
    objects.write_text(json.dumps(coco({"file_name": "COCO_train2014_1.jpg"})))
    command = [str(path), str(out), "--from", "refcoco", "--to", "regions", "--task", "classify"]
    convert_data.main([*command, "--objects", str(objects), "--vocabulary", "COCO-80"])
    row = json.loads(out.read_text())
    assert sorted(turn["value"] for turn in row["conversations"][1::2]) == ["cat", "dog"]
    assert row["conversations"][0]["value"].endswith("from COCO-80 categories.")
