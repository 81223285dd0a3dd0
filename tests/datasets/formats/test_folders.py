"""Formats with one file per image, and Open Images' table."""

import json
from pathlib import Path

import pytest
from PIL import Image

from llmdet.datasets.formats import ReadOptions, convert, guess_format, open_source, written_file
from llmdet.datasets.formats.folders import write_voc, write_yolo
from llmdet.datasets.formats.samples import Instance, Sample, Source
from llmdet.datasets.ledger import Ledger
from llmdet.errors import ConfigError, DataError


def run(path: Path, tmp_path: Path, source: str, *, max_bad_rows: int = 0, **options):
    out = tmp_path / "out.jsonl"
    ledger = Ledger(max_bad_rows)
    convert(path, out, source, "odvg", options=ReadOptions(**options), ledger=ledger)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    label_map = json.loads((tmp_path / "out_label_map.json").read_text())
    return rows, label_map, ledger


def picture(path: Path, size=(40, 20), orientation: int | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    Image.new("RGB", size).save(path, exif=exif)


# ------------------------------------------------------------------------------- VOC

VOC_OBJECT = """<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>
<xmin>{x1}</xmin><ymin>2</ymin><xmax>30.5</xmax><ymax>18</ymax></bndbox></object>"""


def voc_xml(*objects: str, size: str = "<size><width>40</width><height>20</height></size>") -> str:
    return f"<annotation><filename>p.jpg</filename>{size}{''.join(objects)}</annotation>"


def voc_object(name: str, difficult: int = 0, x1: str = "1") -> str:
    return VOC_OBJECT.format(name=name, difficult=difficult, x1=x1)


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    root = tmp_path / "VOC"
    (root / "Annotations").mkdir(parents=True)
    (root / "ImageSets" / "Main").mkdir(parents=True)
    first = voc_xml(voc_object("dog"), voc_object("cat", difficult=1))
    (root / "Annotations" / "a.xml").write_text(first)
    (root / "Annotations" / "b.xml").write_text(voc_xml(voc_object("ant")))
    (root / "ImageSets" / "Main" / "val.txt").write_text("b\n\n")
    return root


def test_voc_classes_are_sorted_and_difficult_objects_counted(voc: Path, tmp_path: Path) -> None:
    rows, label_map, ledger = run(voc, tmp_path, "voc")
    assert label_map == {"0": "ant", "1": "cat", "2": "dog"}
    assert rows[0] == {
        "filename": "p.jpg",
        "height": 20,
        "width": 40,
        "detection": {
            "instances": [{"bbox": [1.0, 2.0, 30.5, 18.0], "label": 2, "category": "dog"}]
        },
    }
    assert ledger.counts == {"crowd or difficult object left out of the row": 1}


def test_difficult_voc_objects_become_crowds_in_coco(voc: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    convert(voc, out, "voc", "coco", options=ReadOptions(), ledger=Ledger())
    document = json.loads(out.read_text())
    assert [(item["iscrowd"], item["category_id"]) for item in document["annotations"]] == [
        (0, 3),
        (1, 2),
        (0, 1),
    ]
    assert document["annotations"][0]["bbox"] == [1.0, 2.0, 29.5, 16.0]
    assert document["annotations"][0]["area"] == 29.5 * 16


def test_a_voc_split_takes_only_its_files(voc: Path, tmp_path: Path) -> None:
    rows, label_map, _ = run(voc, tmp_path, "voc", split="val")
    assert len(rows) == 1
    assert label_map == {"0": "ant"}


def test_voc_sizes_are_read_from_pictures_when_the_xml_lacks_them(tmp_path: Path) -> None:
    (tmp_path / "x.xml").write_text(voc_xml(voc_object("dog"), size=""))
    with pytest.raises(DataError, match=r"x\.xml: field 'size' is missing"):
        run(tmp_path, tmp_path, "voc")
    picture(tmp_path / "images" / "p.jpg", (33, 11))
    rows, _, _ = run(tmp_path, tmp_path, "voc", images=tmp_path / "images")
    assert (rows[0]["width"], rows[0]["height"]) == (33, 11)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (voc_xml(voc_object("dog", x1="one")), r"bad\.xml: field 'xmin' is 'one', not a number"),
        (voc_xml("<object><name>dog</name></object>"), r"field 'bndbox' of 'dog' is missing"),
        (voc_xml("<object></object>"), r"field 'name' of <object> is missing"),
        ("<annotation>\n<filename>", r"bad\.xml:2: not valid XML"),
    ],
)
def test_broken_voc_files_name_file_and_field(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "bad.xml").write_text(text)
    with pytest.raises(DataError, match=message):
        run(tmp_path, tmp_path, "voc")


def test_permitted_broken_voc_files_are_skipped_and_counted(voc: Path, tmp_path: Path) -> None:
    (voc / "Annotations" / "bad.xml").write_text("<annotation>")
    rows, _, ledger = run(voc, tmp_path, "voc", max_bad_rows=1)
    assert len(rows) == 2
    assert ledger.counts["broken record"] == 1
    assert "bad.xml" in ledger.report()


# ------------------------------------------------------------------------------ YOLO


@pytest.fixture
def yolo(tmp_path: Path) -> Path:
    root = tmp_path / "yolo"
    picture(root / "images" / "train" / "a.jpg")
    picture(root / "images" / "train" / "deep" / "b.png")
    (root / "labels" / "train").mkdir(parents=True)
    (root / "labels" / "train" / "a.txt").write_text(
        "1 0.5 0.5 0.5 0.2\n\n0 0.1 0.2 0.3 0.2 0.3 0.8\n"
    )
    (root / "data.yaml").write_text("names: {0: cat, 1: dog}\ntrain: images/train\n")
    return root


@pytest.mark.parametrize("entry", ["", "data.yaml"])
def test_yolo_fractions_become_pixels_and_polygons_their_hull(yolo, tmp_path, entry) -> None:
    rows, label_map, ledger = run(yolo / entry, tmp_path, "yolo")
    assert label_map == {"0": "cat", "1": "dog"}
    first, second = rows
    assert (first["filename"], first["width"], first["height"]) == ("a.jpg", 40, 20)
    box, hull = first["detection"]["instances"]
    assert box["bbox"] == pytest.approx([10, 8, 30, 12])
    assert (box["label"], box["category"]) == (1, "dog")
    assert hull["bbox"] == pytest.approx([4, 4, 12, 16])
    assert second["filename"] == "deep/b.png"
    assert second["detection"]["instances"] == []
    assert ledger.counts == {"picture without a label file, taken as negative": 1}


def test_yolo_names_come_from_classes_txt_where_there_is_no_yaml(yolo, tmp_path) -> None:
    (yolo / "data.yaml").unlink()
    with pytest.raises(DataError, match=r"neither data\.yaml nor classes\.txt"):
        run(yolo, tmp_path, "yolo")
    (yolo / "classes.txt").write_text("tiger\nwolf\n")
    _, label_map, _ = run(yolo, tmp_path, "yolo")
    assert label_map == {"0": "tiger", "1": "wolf"}


def test_yolo_exports_with_split_folders_beside_the_yaml_are_found(tmp_path: Path) -> None:
    picture(tmp_path / "r" / "valid" / "images" / "a.jpg")
    (tmp_path / "r" / "valid" / "labels").mkdir()
    (tmp_path / "r" / "valid" / "labels" / "a.txt").write_text("0 0.5 0.5 1 1")
    (tmp_path / "r" / "data.yaml").write_text("names: [x]\nval: ../valid/images\n")
    rows, _, _ = run(tmp_path / "r", tmp_path, "yolo", split="val")
    assert rows[0]["detection"]["instances"][0]["bbox"] == [0, 0, 40, 20]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.1", r"a\.txt:2: .* is not 'class cx cy w h'"),
        ("x 0.5 0.5 0.1 0.1", r"a\.txt:2"),
        ("0 0.5 nan 0.1 0.1", r"a\.txt:2"),
        ("7 0.5 0.5 0.1 0.1", r"a\.txt:2: class 7 is not among the 2 classes"),
        ("-1 0.5 0.5 0.1 0.1", r"a\.txt:2: class -1"),
    ],
)
def test_broken_yolo_lines_are_named(yolo: Path, tmp_path: Path, line: str, message: str) -> None:
    (yolo / "labels" / "train" / "a.txt").write_text(f"0 0.5 0.5 0.1 0.1\n{line}\n")
    with pytest.raises(DataError, match=message):
        run(yolo, tmp_path, "yolo")


def test_sizes_are_those_after_the_exif_rotation(yolo: Path, tmp_path: Path) -> None:
    picture(yolo / "images" / "train" / "a.jpg", (40, 20), orientation=6)
    rows, _, _ = run(yolo, tmp_path, "yolo")
    assert (rows[0]["width"], rows[0]["height"]) == (20, 40)


# ----------------------------------------------------------------------- Open Images

HEADER = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsGroupOf\n"


@pytest.fixture
def openimages(tmp_path: Path) -> Path:
    (tmp_path / "class-descriptions-boxable.csv").write_text('/m/1,Dog\n/m/2,"Coffee, cup"\n')
    for name in ("aa", "bb"):
        picture(tmp_path / "images" / f"{name}.jpg")
    path = tmp_path / "boxes.csv"
    path.write_text(
        HEADER + "aa,v,/m/2,1,0.25,0.5,0.1,0.9,0,0\n"
        "aa,v,/m/1,1,0,1,0,1,0,1\n"
        "bb,v,/m/1,1,0,1,0,1,0,0\n"
    )
    return path


def test_open_images_boxes_become_pixels_and_groups_are_left_out(openimages, tmp_path) -> None:
    rows, label_map, ledger = run(openimages, tmp_path, "openimages", images=tmp_path / "images")
    assert label_map == {"0": "Dog", "1": "Coffee, cup"}
    (instance,) = rows[0]["detection"]["instances"]
    assert instance["bbox"] == pytest.approx([10, 2, 20, 18])
    assert instance["category"] == "Coffee, cup"
    assert rows[1]["filename"] == "bb.jpg"
    assert ledger.counts == {"crowd or difficult object left out of the row": 1}


def test_open_images_needs_the_pictures(openimages: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--images"):
        run(openimages, tmp_path, "openimages")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "ImageID,XMin\n",
            r"csv:1: the column\(s\) LabelName, XMax, YMin, YMax are missing",
        ),
        (HEADER + "aa,v,/m/9,1,0,1,0,1,0,0\n", r"boxes\.csv:2: the class '/m/9' has no name"),
        (HEADER + "aa,v,/m/1,1,?,1,0,1,0,0\n", r"boxes\.csv:2: XMin, XMax, YMin, YMax"),
        (
            HEADER + "cc,v,/m/1,1,0,1,0,1,0,0\n",
            r"csv:2: the picture .*cc\.jpg does not exist",
        ),
        (
            HEADER + "".join(f"{i},v,/m/1,1,0,1,0,1,0,0\n" for i in ("aa", "bb", "aa")),
            r"boxes\.csv:4: boxes of the image aa appear in two places",
        ),
    ],
)
def test_broken_open_images_lines_are_named(openimages, tmp_path, text, message) -> None:
    openimages.write_text(text)
    with pytest.raises(DataError, match=message):
        run(openimages, tmp_path, "openimages", images=tmp_path / "images")


# --- written


def labelled(*names: str) -> Source:
    """Pictures of 97 x 61 pixels with two boxes each, the second difficult."""
    samples = [
        Sample(
            name,
            97,
            61,
            [
                Instance([0.0, 0.5, 96.37, 61.0], "déjà vu: <a>", 1),
                Instance([10.0, 20.0, 30.0, 40.0], "dog", 0, ignored=True),
            ],
            name,
        )
        for name in names
    ]
    return Source(
        iter(samples), len(samples), [{"id": 7, "name": "dog"}, {"id": 9, "name": "déjà vu: <a>"}]
    )


@pytest.mark.parametrize("target", ["yolo", "voc"])
def test_what_is_written_reads_back_equal(tmp_path: Path, target: str) -> None:
    names = ["a.jpg", "sub/my photo.png"]
    for name in names:
        picture(tmp_path / ("images" if target == "yolo" else "JPEGImages") / name, (97, 61))
    writer = {"yolo": write_yolo, "voc": write_voc}[target]
    ledger = Ledger()
    assert writer(labelled(names[0]), tmp_path, ledger) == 1
    assert writer(labelled(names[1]), tmp_path, ledger, "val") == 1
    assert guess_format(tmp_path) == target
    classes = tmp_path / "classes.txt" if target == "voc" else None
    for split, name in zip(("train", "val"), names, strict=True):
        source = open_source(tmp_path, None, ReadOptions(split=split, classes=classes), Ledger())
        (sample,) = source.samples
        assert (sample.filename, sample.width, sample.height) == (name, 97, 61)
        assert [category["name"] for category in source.categories] == ["dog", "déjà vu: <a>"]
        whole, *difficult = sample.instances
        assert (whole.label, whole.phrase) == (1, "déjà vu: <a>")
        exact = {"yolo": 1e-6, "voc": 0}[target]
        assert whole.bbox == pytest.approx([0.0, 0.5, 96.37, 61.0], abs=exact)
        assert [box.ignored for box in difficult] == ([True] if target == "voc" else [])
    assert sum(ledger.counts.values()) == (2 if target == "yolo" else 0)


@pytest.mark.parametrize("writer", [write_yolo, write_voc])
def test_pictures_that_would_share_a_label_file_are_named(tmp_path: Path, writer) -> None:
    with pytest.raises(DataError, match=r"sub/a\.jpg and sub/a\.png would share a label file"):
        writer(labelled("a.jpg", "sub/a.jpg", "sub/a.png"), tmp_path, Ledger())


def test_a_yolo_list_names_pictures_of_its_folder_alone(tmp_path: Path) -> None:
    write_yolo(labelled("a.jpg"), tmp_path, Ledger())
    (tmp_path / "train.txt").write_text("./images/../../secret.jpg\n")
    with pytest.raises(DataError, match=r"train\.txt:1: .* is not in .*images"):
        open_source(tmp_path, None, ReadOptions(), Ledger())


def test_converted_folders_have_a_link_to_their_pictures(tmp_path: Path) -> None:
    images = tmp_path / "pictures"
    picture(images / "a.jpg", (97, 61))
    write_voc(labelled("a.jpg"), tmp_path / "voc", Ledger())
    for split in ("train", "val"):
        (tmp_path / "voc/ImageSets/Main/val.txt").write_text("a\n")
        options = ReadOptions(images=images, split=split)
        out, ledger = tmp_path / "yolo", Ledger()
        assert convert(tmp_path / "voc", out, "voc", "yolo", options=options, ledger=ledger) == 1
        assert written_file(out, "yolo", split) == out / f"{split}.txt"
        assert written_file(out, "yolo", split).exists()
    (sample,) = open_source(out, None, ReadOptions(split="val"), Ledger()).samples
    assert (sample.width, len(sample.instances)) == (97, 1)
    other = ReadOptions(images=tmp_path, split="test")
    (tmp_path / "voc/ImageSets/Main/test.txt").write_text("a\n")
    with pytest.raises(DataError, match="cannot be made a link"):
        convert(tmp_path / "voc", out, "voc", "yolo", options=other, ledger=Ledger())


@pytest.mark.parametrize("writer", [write_yolo, write_voc])
@pytest.mark.parametrize("name", ["/a.jpg", "../../a.jpg", "sub/../../a.jpg"])
def test_no_label_file_is_written_outside_of_the_folder(tmp_path: Path, writer, name) -> None:
    with pytest.raises(DataError, match="would lie outside of the folder"):
        writer(labelled(name), tmp_path / "out", Ledger())
    assert not list(tmp_path.rglob("a.*"))
