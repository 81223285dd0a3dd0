"""RefCOCO's own files, whose pickles are read as data and never executed."""

import json
import pickle

import pytest

from llmdet.datasets.formats import ReadOptions, open_source
from llmdet.datasets.formats.refer import read_plain_pickle
from llmdet.datasets.ledger import Ledger
from llmdet.errors import DataError

INSTANCES = {
    "images": [
        {"id": 3, "file_name": "COCO_train2014_3.jpg", "width": 80, "height": 60},
        {"id": 4, "file_name": "COCO_train2014_4.jpg", "width": 80, "height": 60},
    ],
    "annotations": [
        {"id": 7, "image_id": 3, "category_id": 1, "bbox": [1, 2, 30, 40], "segmentation": [[1]]},
        {"id": 8, "image_id": 4, "category_id": 1, "bbox": [5, 5, 10, 10]},
    ],
    "categories": [{"id": 1, "name": "person"}],
}
REFS = [
    {
        "ref_id": 0,
        "ann_id": 7,
        "image_id": 3,
        "split": "train",
        "sentences": [{"sent": "man in café"}, {"sent": "left man "}],
    },
    {"ref_id": 1, "ann_id": 8, "image_id": 4, "split": "val", "sentences": [{"sent": "a child"}]},
]


@pytest.fixture
def refs(tmp_path):
    (tmp_path / "instances.json").write_text(json.dumps(INSTANCES))
    path = tmp_path / "refs(umd).p"
    path.write_bytes(pickle.dumps(REFS, protocol=2))
    return path


def samples(path, **options):
    return list(open_source(path, "refer", ReadOptions(**options), Ledger()).samples)


@pytest.mark.parametrize("suffix", [".p", ".json"])
def test_each_expression_is_a_sample_with_the_box_that_it_means(refs, suffix):
    refs.with_suffix(".json").write_text(json.dumps(REFS))
    read = samples(refs.with_suffix(suffix))
    assert [(s.filename, s.caption) for s in read] == [
        ("COCO_train2014_3.jpg", "man in café"),
        ("COCO_train2014_3.jpg", "left man"),
        ("COCO_train2014_4.jpg", "a child"),
    ]
    (instance,) = read[1].instances
    assert (instance.bbox, instance.phrase, instance.spans) == (
        [1, 2, 31, 42],
        "left man",
        [[0, 8]],
    )
    assert instance.extra == {"original_id": 7, "segmentation": [[1]]}


def test_one_split_is_read_alone_and_others_are_named(refs):
    assert [sample.caption for sample in samples(refs, split="val")] == ["a child"]
    with pytest.raises(DataError, match=r"no expression is of the split 'testA', but \['train'"):
        samples(refs, split="testA")


class Evil:
    def __reduce__(self):
        return print, ("executed",)


def test_a_pickle_that_wants_to_call_something_is_refused_before_it_does(refs, capsys):
    refs.write_bytes(pickle.dumps([Evil()]))
    with pytest.raises(DataError, match=r"no pickle of plain data \(it asks for builtins\.print"):
        samples(refs)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("content", [b"", b"not a pickle", pickle.dumps(REFS)[:-20]])
def test_broken_pickles_are_named(refs, content):
    refs.write_bytes(content)
    with pytest.raises(DataError, match="no pickle of plain data"):
        read_plain_pickle(refs)


def test_texts_of_pythons_older_version_are_read(refs):
    refs.write_bytes(b"(lp0\n(dp1\nS'split'\np2\nS'train'\np3\nsa.")  # protocol 0 of Python 2
    assert read_plain_pickle(refs) == [{"split": "train"}]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ann_id": 9}, r"entry 0: field 'ann_id' names the annotation 9, which .*instances.json"),
        ({"split": None}, "entry 0: field 'split' is missing"),
        ({"sentences": [{}]}, r"field 'sentences\[0\].sent' is missing"),
    ],
)
def test_faults_are_named_with_file_and_entry(refs, change, message):
    refs.write_bytes(pickle.dumps([REFS[0] | change]))
    with pytest.raises(DataError, match=message):
        samples(refs)


def test_the_objects_must_lie_beside(refs):
    (refs.parent / "instances.json").unlink()
    with pytest.raises(DataError, match=r"instances\.json"):
        samples(refs)
