"""One reader of COCO files: whole for training and metrics, image by image for converters."""

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmdet.datasets import json_stream
from llmdet.datasets.coco_file import CocoFile, CocoStream
from llmdet.errors import DataError

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(1 - 2**63, 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.dictionaries(st.text(min_size=3), VALUES, max_size=3)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    images=st.lists(FIELDS, min_size=1, max_size=4),
    annotations=st.lists(st.tuples(FIELDS, st.integers(0, 5)), max_size=6),
    other=FIELDS,
    order=st.permutations(["images", "annotations", "categories", "info"]),
    indent=st.sampled_from([None, 1]),
    ascii_only=st.booleans(),
)
def test_a_stream_gives_every_image_its_annotations_as_the_whole_document_does(
    tmp_path: Path, images, annotations, other, order, indent, ascii_only
) -> None:
    document = {
        "images": [{**image, "id": number} for number, image in enumerate(images)],
        "annotations": [{**item, "image_id": owner} for item, owner in annotations],
        "categories": [{"id": 1, "name": "é"}],
        "info": other,
    }
    path = tmp_path / "a.json"
    text = json.dumps({key: document[key] for key in order}, indent=indent, ensure_ascii=ascii_only)
    path.write_text(text, "utf-8")
    stream = CocoStream(path)
    assert stream.header == {key: document[key] for key in ("categories", "info")}
    assert len(stream) == len(images)
    for position, image, owned in stream:
        assert image == document["images"][position]
        assert owned == [a for a in document["annotations"] if a["image_id"] == image["id"]]
    assert stream.orphans == {owner for _, owner in annotations if owner >= len(images)}


def test_blocks_may_end_anywhere(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(json_stream, "_BLOCK_BYTES", 3)
    images = [{"id": 1, "name": "naïve ☕"}, {"id": 2, "width": 1.5e-7}]
    path = tmp_path / "a.json"
    text = json.dumps({"images": images, "annotations": []}, ensure_ascii=False)
    path.write_text("\ufeff" + text, "utf-8")
    assert [image for _, image, _ in CocoStream(path)] == images


@pytest.mark.parametrize(
    "text",
    [
        '{"images": [{"id": 1}\n{"id": 2}]}',
        '{"images": [\n\n{"id": nope}]}',
        '{"images": [{"id": 1}',
        '{"images":\n[{"id": "unterminated}]}',
        '{"images": []}\n{"images": []}',
        "",
    ],
)
def test_broken_json_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"a\.json: not valid JSON \("):
        CocoStream(path)
    with pytest.raises(DataError, match=r"a\.json is not valid JSON"):
        CocoFile.read(path)


def test_missing_and_compressed_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.json: cannot be opened \(No such file"):
        CocoStream(tmp_path / "a.json")
    content = {"images": [], "annotations": [], "categories": []}
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(json.dumps(content).encode()))
    with pytest.raises(DataError, match=r"gzip-compressed.*gunzip -k"):
        CocoStream(tmp_path / "a.json.gz")
    assert CocoFile.read(tmp_path / "a.json.gz").images == []


@pytest.mark.parametrize("content", [[1, 2], "text", 3])
def test_a_document_that_is_no_object_is_refused(tmp_path: Path, content) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="a COCO file is one JSON object"):
        CocoStream(path)
    with pytest.raises(DataError, match="field 'images' is missing; a COCO json holds a list"):
        CocoFile.read(path)


@pytest.mark.parametrize("value", ["1", 1.5, None])
def test_ids_of_metrics_are_whole_numbers(value) -> None:
    content = {"images": [{"id": 1}, {"id": 2}], "annotations": [], "categories": []}
    file = CocoFile.parse(content)
    content["images"][1]["id"] = value
    with pytest.raises(DataError, match=r"images\[1\]: field 'id' must be a whole number, not"):
        file.numbers("images", "id")


@pytest.mark.parametrize(
    "box", [[1, 2, 3], [1, 2, 3, "4"], [1, 2, 3, True], [1, 2, 3, float("inf")], None, "1234"]
)
def test_a_box_is_four_finite_numbers(box) -> None:
    content = {
        "images": [{"id": 1}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [{"id": 7, "image_id": 1, "category_id": 1, "bbox": box}],
    }
    with pytest.raises(DataError, match=r"annotation id 7: bbox .* is not four numbers"):
        CocoFile.parse(content)
