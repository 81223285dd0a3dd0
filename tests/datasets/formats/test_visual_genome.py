"""Visual Genome's descriptions and objects."""

import json

import pytest

from llmdet.datasets.formats import ReadOptions, convert, identity, open_source
from llmdet.datasets.formats.visual_genome import UNNAMED
from llmdet.datasets.ledger import Ledger
from llmdet.errors import DataError

URL = "https://example.org/rak248/VG_100K_2/1.jpg"
IMAGES = [{"image_id": 1, "width": 80, "height": 60, "url": URL, "coco_id": None}]
REGIONS = [
    {
        "id": 1,
        "regions": [
            {"region_id": 5, "image_id": 1, "phrase": "a  clock", "x": 4, "y": 5, "width": 10}
            | {"height": 20},
            {"region_id": 6, "image_id": 1, "phrase": " ", "x": 0, "y": 0, "width": 9}
            | {"height": 9},
            {"region_id": 7, "image_id": 1, "phrase": "green tree", "x": 40, "y": 5, "width": 30}
            | {"height": 30},
        ],
    }
]
OBJECTS = [
    {
        "image_id": 1,
        "objects": [
            {"object_id": 8, "names": ["clock tower", "clock"], "x": 4, "y": 5, "w": 10, "h": 20},
            {"object_id": 9, "names": [], "x": 4, "y": 5, "w": 10, "h": 20},
            {"object_id": 10, "names": ["tree"], "x": 40, "y": 5, "w": 30, "h": 30},
        ],
    }
]


@pytest.fixture
def folder(tmp_path):
    for name, content in (
        ("image_data.json", IMAGES),
        ("region_descriptions.json", REGIONS),
        ("objects.json", OBJECTS),
    ):
        (tmp_path / name).write_text(json.dumps(content))
    return tmp_path


def rows(path, target="grounding"):
    ledger = Ledger()
    out = path.with_suffix(".jsonl")
    convert(path, out, "visual_genome", target, options=ReadOptions(), ledger=ledger)
    return [json.loads(line) for line in out.read_text().splitlines()], ledger


def test_descriptions_stand_in_one_caption_and_each_box_points_to_its_own(folder):
    (row,), ledger = rows(folder / "region_descriptions.json")
    assert (row["filename"], row["width"], row["height"]) == ("VG_100K_2/1.jpg", 80, 60)
    assert row["grounding"]["caption"] == "a clock. green tree"
    assert row["grounding"]["regions"] == [
        {"bbox": [4, 5, 14, 25], "phrase": "a clock", "tokens_positive": [[0, 7]]},
        {"bbox": [40, 5, 70, 35], "phrase": "green tree", "tokens_positive": [[9, 19]]},
    ]
    assert ledger.counts == {UNNAMED: 1}


def test_the_first_name_of_an_object_is_its_class(folder):
    (row,), ledger = rows(folder / "objects.json", "odvg")
    assert row["detection"]["instances"] == [
        {"bbox": [4, 5, 14, 25], "label": 0, "category": "clock tower"},
        {"bbox": [40, 5, 70, 35], "label": 1, "category": "tree"},
    ]
    assert json.loads((folder / "objects_label_map.json").read_text()) == {
        "0": "clock tower",
        "1": "tree",
    }
    assert ledger.counts == {UNNAMED: 1}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("image_data.json", [], "no list of objects, or an empty one"),
        ("image_data.json", [{"image_id": 1}], "image_data.json: entry 0: field 'url' is missing"),
        ("image_data.json", [IMAGES[0] | {"width": 0}], "'width' must be a positive"),
        ("image_data.json", [IMAGES[0] | {"image_id": 2}], "entry 0: image_data.json has no image"),
        ("region_descriptions.json", [{"id": 1}], "neither 'regions' nor 'objects'"),
        ("region_descriptions.json", {"a": 1}, "no list of objects"),
        ("region_descriptions.json", [3], "entry 0 is 3, not an object"),
        ("region_descriptions.json", [{"regions": []}], "field 'image_id' is missing"),
        (
            "region_descriptions.json",
            [{"id": 1, "regions": [{"phrase": "a", "x": None}]}],
            r"entry 0: field 'regions\[0\].x' is missing",
        ),
        (
            "region_descriptions.json",
            [{"id": 1, "regions": [{"phrase": "a", "x": "4"}]}],
            r"field 'regions\[0\].x' must be a number, not '4'",
        ),
    ],
)
def test_faults_are_named_with_file_and_entry(folder, name, content, message):
    (folder / name).write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        rows(folder / "region_descriptions.json")


def test_broken_json_names_the_file(folder):
    path = folder / "region_descriptions.json"
    path.write_text(path.read_text()[:-9])
    with pytest.raises(DataError, match=r"region_descriptions\.json: not valid JSON"):
        rows(path)


@pytest.mark.parametrize(
    ("name", "entries"),
    [
        ("region_descriptions.json", [{"id": 3, "regions": []}, *REGIONS]),
        ("objects.json", [{"image_id": 1, "objects": [{"names": "tree"}]}, *OBJECTS]),
    ],
)
def test_permitted_broken_pictures_are_skipped_and_counted(folder, name, entries):
    path = folder / name
    path.write_text(json.dumps(entries))
    ledger = Ledger(max_bad_rows=1)
    source = open_source(path, "visual_genome", ReadOptions(), ledger)
    assert [sample.filename for sample in source.samples] == ["VG_100K_2/1.jpg"]
    assert ledger.counts["broken record"] == 1


def test_what_decides_the_samples_counts_the_sizes_too(folder):
    path = folder / "region_descriptions.json"
    before = identity(path, "visual_genome", ReadOptions())
    (folder / "image_data.json").write_text(json.dumps([IMAGES[0] | {"width": 81}]))
    assert identity(path, "visual_genome", ReadOptions()) != before
