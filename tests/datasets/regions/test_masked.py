"""Rows whose answers have masks: what every format gives, and what odd texts become."""

import json
import pickle
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from llmdet.cli import convert_data
from llmdet.datasets.formats.samples import Instance, Sample, Source
from llmdet.datasets.ledger import Ledger
from llmdet.datasets.masks import decode_mask, encode_mask
from llmdet.datasets.regions import RegionSettings
from llmdet.datasets.regions.masked import (
    EMPTY_MASK,
    NO_MASK,
    NO_PHRASE,
    OVERLAP,
    mask_rows,
)
from llmdet.datasets.rows import read_row
from llmdet.errors import ConfigError, DataError
from llmdet.prompts.mask_tasks import MASK_TASKS, NO_TARGET
from llmdet.prompts.masks import MaskGrammar, marked_regions

HEIGHT, WIDTH = 12, 16
GRAMMAR = MaskGrammar()


def rectangle(x1, y1, x2, y2):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y1:y2, x1:x2] = True
    return mask


LEFT, RIGHT, ALL = rectangle(0, 0, 4, 4), rectangle(8, 2, 14, 9), rectangle(0, 0, 16, 12)
EMPTY = rectangle(0, 0, 0, 0)


def polygon(x1, y1, x2, y2):
    return [x1, y1, x2, y1, x2, y2, x1, y2]


def rows_of(path, form, task, *options):
    out = path.with_name("rows.jsonl")
    arguments = [str(path), str(out), "--from", form, "--to", "regions", "--task", task]
    convert_data.main([*arguments, "--overwrite", *map(str, options)])
    return [json.loads(line) for line in out.read_text().splitlines()]


def learned(values):
    """Question, answer and its masks, for each question of a row."""
    row = read_row(values, "row")
    turns = row.conversation.turns
    found = []
    for asked, said in zip(turns[::2], turns[1::2], strict=True):
        masks = [decode_mask(row.regions.masks[n], (HEIGHT, WIDTH)) for n in marked_regions([said])]
        found.append((asked.text.removeprefix("<image>\n"), said.text, masks))
    return found


def same(masks, expected):
    return len(masks) == len(expected) and all(map(np.array_equal, masks, expected))


@pytest.fixture
def write(tmp_path):
    def write(content, name="annotations.json"):
        path = tmp_path / name
        path.write_text(json.dumps(content))
        return path

    return write


def grandf(caption, **groundings):
    return {
        "file_name": "a.jpg",
        "caption": caption,
        "groundings": {
            name: {"token_positives": span, "rle_masks": [encode_mask(mask) for mask in masks]}
            for name, (span, masks) in groundings.items()
        },
    }


def test_the_human_and_the_psg_form_give_phrases_in_their_order_with_joined_masks(write, capsys):
    entry = grandf(
        '"A brown dog lies on a mat."',
        mat=([21, 26], [LEFT, RIGHT]),
        dog=([1, 12], [RIGHT]),
        brown=([3, 12], [LEFT]),
        lost=([22, 60], [LEFT]),
        unseen=([13, 17], [EMPTY]),
    )
    (row,) = rows_of(write([entry]), "grandf", "gcg", "--folder", "coco/")
    assert (row["filename"], row["height"], row["width"]) == ("coco/a.jpg", HEIGHT, WIDTH)
    ((question, answer, masks),) = learned(row)
    assert question in MASK_TASKS["gcg"].wordings
    assert GRAMMAR(answer) == "<p> A brown dog </p> [SEG] lies on <p> a mat </p> [SEG]."
    assert same(masks, [RIGHT, LEFT | RIGHT])
    report = capsys.readouterr().out
    for cause in (OVERLAP, "phrase whose place is not in", "phrase whose mask has no pixel"):
        assert f"1  {cause}" in report


def test_refcocogs_form_is_looked_up_in_whole_words_of_any_case(write, tmp_path, capsys):
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "r.png")
    refs = [
        ("a Tall tree", [8, 2, 14, 9]),
        ("A MAN", [0, 0, 4, 4]),
        ("a man", [8, 2, 14, 9]),
        ("tree", [0, 0, 1, 1]),
        ("a saucer", [0, 0, 4, 4]),
    ]
    entry = {
        "img_file_name": "r.png",
        "caption": "A mane, a man and a man near a tall tree.",
        "refs": [{"sentence": text, "segmentation": [polygon(*box)]} for text, box in refs],
    }
    for content in ([{"r.jpg": entry}], {"r.jpg": entry}):
        (row,) = rows_of(write(content), "refcocog_gcg", "gcg", "--images", tmp_path)
        ((_, answer, masks),) = learned(row)
        assert GRAMMAR(answer) == (
            "A mane, <p> a man </p> [SEG] and <p> a man </p> [SEG] near <p> a tall tree </p> [SEG]."
        )
        assert same(masks, [LEFT, RIGHT, RIGHT])
    report = capsys.readouterr().out
    assert "1  phrase that the caption does not say" in report
    assert f"1  {OVERLAP}" in report
    (row,) = rows_of(write([{"r.jpg": entry}]), "refcocog_gcg", "segment", "--images", tmp_path)
    assert same(learned(row)[1][2], [LEFT | RIGHT])  # "a man", of which there are two


def test_flickrs_form_is_mdetrs_with_masks_of_sam(write):
    def annotation(number, spans, mask, **more):
        box = {"bbox": [0, 0, 4, 4], "tokens_positive": spans, "sam_mask": encode_mask(mask)}
        return {"id": number, "image_id": 1, "category_id": 1} | box | more

    content = {
        "images": [
            {"id": 1, "file_name": "f.jpg", "width": WIDTH, "height": HEIGHT}
            | {"caption": "Two boys and a ball ."}
        ],
        "annotations": [
            annotation(1, [[13, 19]], ALL),
            annotation(2, [[0, 8]], LEFT),
            annotation(3, [[0, 8]], RIGHT),
            annotation(4, [[0, 3]], RIGHT, ignore=True),
        ],
        "categories": [{"id": 1, "name": "object"}],
    }
    ((_, answer, masks),) = learned(rows_of(write(content), "flickr30k", "gcg")[0])
    assert GRAMMAR(answer) == "<p> Two boys </p> [SEG] and <p> a ball </p> [SEG] ."
    assert same(masks, [LEFT | RIGHT, ALL])


REFS_INSTANCES = {
    "images": [{"id": 3, "file_name": "3.jpg", "width": WIDTH, "height": HEIGHT}],
    "annotations": [
        {"id": 7, "image_id": 3, "category_id": 1, "bbox": [0, 0, 4, 4]}
        | {"segmentation": [polygon(0, 0, 4, 4)]},
        {"id": 8, "image_id": 3, "category_id": 1, "bbox": [8, 2, 6, 7]}
        | {"segmentation": encode_mask(RIGHT)},
    ],
    "categories": [{"id": 1, "name": "person"}],
}


def reference(annotation, *sentences):
    said = [{"sent": sentence} for sentence in sentences]
    return {"ann_id": annotation, "image_id": 3, "split": "val", "sentences": said}


def test_every_expression_is_asked_also_where_two_objects_share_their_words(write, tmp_path):
    write(REFS_INSTANCES, "instances.json")
    path = tmp_path / "refs(unc).p"
    refs = [reference(7, "the man", "left  one"), reference(8, "the man")]
    path.write_bytes(pickle.dumps(refs, protocol=2))
    rows = rows_of(path, "refer", "segment", "--one-wording", "--turns", 2)
    asked = [each for row in rows for each in learned(row)]
    question = MASK_TASKS["segment"].wordings[0]
    texts = ("the man", "left one", "the man")
    assert [q for q, _, _ in asked] == [question.format(text=text) for text in texts]
    assert [a for _, a, _ in asked] == ["It is <mask:0>.", "It is <mask:1>.", "It is <mask:0>."]
    assert all(map(same, (masks for _, _, masks in asked), ([LEFT], [LEFT], [RIGHT])))
    assert [len(row["conversations"]) for row in rows] == [4, 2]


def test_expressions_of_several_objects_and_of_none(write):
    write(REFS_INSTANCES, "instances.json")
    path = write([reference([7, 8], "both"), reference([-1], "a dog")], "grefs(unc).json")
    several, none = learned(rows_of(path, "refer", "segment")[0])
    assert same(several[2], [LEFT | RIGHT])
    assert none[1:] == (NO_TARGET, [])


@pytest.fixture
def coco(write):
    box = {"bbox": [0, 0, 4, 4], "iscrowd": 0}
    masks = (1, encode_mask(LEFT)), (1, encode_mask(RIGHT)), (2, [polygon(0, 0, 16, 12)]), (3, None)
    return write(
        {
            "images": [{"id": 1, "file_name": "1.jpg", "width": WIDTH, "height": HEIGHT}],
            "annotations": [
                {"id": n, "image_id": 1, "category_id": category, **box, "segmentation": mask}
                for n, (category, mask) in enumerate(masks)
            ],
            "categories": [{"id": n, "name": f"kind_{n}"} for n in (1, 2, 3)],
        }
    )


def test_a_class_is_all_its_objects_and_one_without_mask_is_not_asked_for(coco, capsys):
    (row,) = rows_of(coco, "coco", "segment")
    found = learned(row)
    assert all(map(same, (masks for _, _, masks in found), ([LEFT | RIGHT], [ALL])))
    assert f"1  {NO_MASK}" in capsys.readouterr().out
    drawn = [rows_of(coco, "coco", "segment", "--per-image", 1, "--seed", n)[0] for n in range(8)]
    assert len({row["conversations"][0]["value"] for row in drawn}) > 1
    assert all(len(row["regions"]) == 1 for row in drawn)
    with pytest.raises(ConfigError, match="use per_image instead of per_class"):
        rows_of(coco, "coco", "segment", "--per-class", 1)
    with pytest.raises(ConfigError, match="no --objects"):
        rows_of(coco, "coco", "segment", "--objects", coco)


def test_label_maps_give_a_mask_for_each_class(tmp_path, capsys):
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[LEFT], labels[RIGHT], labels[11] = 1, 2, 255
    (tmp_path / "maps/train").mkdir(parents=True)
    Image.fromarray(labels).save(tmp_path / "maps/train/1.png")
    (tmp_path / "names.txt").write_text("-\nwall\ntree\n")
    (tmp_path / "names.json").write_text('{"1": "wall", "2": "tree"}')
    for names in ("names.txt", "names.json"):
        options = ["--classes", tmp_path / names]
        (row,) = rows_of(tmp_path / "maps", "label_maps", "segment", *options)
        assert row["filename"] == "train/1.jpg"
        wall, tree = learned(row)
        assert "wall" in wall[0]
        assert same(wall[2], [LEFT])
        assert same(tree[2], [RIGHT])
    assert "2  pixels of a label without a name" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="needs --classes"):
        rows_of(tmp_path / "maps", "label_maps", "segment")


def test_panoptic_segments_are_found_by_the_colour_of_their_id(write, tmp_path):
    ids = np.zeros((HEIGHT, WIDTH), np.int64)
    ids[LEFT], ids[RIGHT] = 5, 3 + 256 * 7 + 65536 * 2
    (tmp_path / "annotations").mkdir()
    colours = np.stack([ids & 255, ids >> 8 & 255, ids >> 16], -1).astype(np.uint8)
    Image.fromarray(colours).save(tmp_path / "annotations/1.png")
    segments = [{"id": 5, "category_id": 9}, {"id": int(ids.max()), "category_id": 4, "iscrowd": 1}]
    path = write(
        {
            "images": [{"id": 1, "file_name": "1.jpg", "width": WIDTH, "height": HEIGHT}],
            "annotations": [{"image_id": 1, "file_name": "1.png", "segments_info": segments}],
            "categories": [{"id": 4, "name": "person"}, {"id": 9, "name": "grass"}],
        }
    )
    grass, person = learned(rows_of(path, "panoptic", "segment")[0])
    assert "grass" in grass[0]
    assert same(grass[2], [LEFT])
    assert same(person[2], [RIGHT])


GRAND = {
    "sa_1.jpg": {
        "objects": [
            {"id": 1, "bbox": [0, 0, 4, 4], "labels": ["dog"], "attributes": ["a brown dog"]}
            | {"segmentation": encode_mask(LEFT)},
        ],
        "floating_objects": [
            {"id": 2, "bbox": [8, 2, 14, 9], "labels": ["dog"], "segmentation": encode_mask(RIGHT)}
        ],
        "short_captions": [
            {
                "caption": "Two dogs play.",
                "details": [{"phrase": "Two dogs", "tokens_positive": [0, 8], "ids": [1, 2]}],
            }
        ],
        "dense_caption": {
            "caption": "A brown dog sits beside a tree.",
            "details": [
                {"phrase": "a tree", "tokens_positive": [24, 30], "bbox": [0, 0, 1, 1]},
                {"phrase": "A brown dog", "tokens_positive": [[0, 11]], "id": 1},
                {"phrase": "beside", "tokens_positive": [40, 46], "id": 1},
            ],
        },
    }
}


def test_grands_captions_have_the_masks_of_its_objects(write, tmp_path, capsys):
    (tmp_path / "grand").mkdir()
    write(GRAND, "grand/sa_1.json")
    lines = tmp_path / "grand.jsonl"
    lines.write_text(json.dumps(GRAND["sa_1.jpg"] | {"file_name": "sa_1.jpg"}) + "\n")
    for path in (tmp_path / "grand", lines):
        short, dense = rows_of(path, "grand", "gcg")
        assert short["filename"] == dense["filename"] == "sa_1.jpg"
        ((_, answer, masks),) = learned(short)
        assert GRAMMAR(answer) == "<p> Two dogs </p> [SEG] play."
        assert same(masks, [LEFT | RIGHT])
        ((_, answer, masks),) = learned(dense)
        assert GRAMMAR(answer) == "<p> A brown dog </p> [SEG] sits beside a tree."
        assert same(masks, [LEFT])
        assert "1  phrase whose place is not in the caption" in capsys.readouterr().out
        brown, dogs = learned(rows_of(path, "grand_objects", "segment", "--one-wording")[0])
        assert "a brown dog" in brown[0]
        assert same(brown[2], [LEFT])
        assert "dog in this image" in dogs[0]
        assert same(dogs[2], [LEFT | RIGHT])
    said = [row["conversations"][1]["value"] for row in rows_of(lines, "grand", "describe")]
    assert said == ["Two dogs play.", "A brown dog sits beside a tree."]


def test_files_without_anything_to_ask_about_say_so(write, tmp_path):
    (tmp_path / "grand").mkdir()
    write({"sa_1.jpg": {"objects": []}}, "grand/sa_1.json")
    for form, words in (
        ("grand", "1  picture without a caption"),
        ("grand_objects", "without obj"),
    ):
        with pytest.raises(DataError, match=words):
            rows_of(tmp_path / "grand", form, "segment")
    empty = tmp_path / "empty.jsonl"
    empty.write_text('{"filename": "a.jpg", "height": 9, "width": 9, "regions": []}\n')
    with pytest.raises(DataError, match="hold nothing that this task asks about"):
        rows_of(empty, "odvg", "segment")


def test_captions_of_coco_become_an_answer_each(write):
    annotations = [
        {"id": n, "image_id": 1, "caption": text} for n, text in enumerate(("A dog.", "One\ndog"))
    ]
    path = write({"images": [{"id": 1, "file_name": "1.jpg"}], "annotations": annotations})
    rows = rows_of(path, "coco_captions", "describe")
    assert [row["conversations"][1]["value"] for row in rows] == ["A dog.", "One dog"]
    for row in rows:
        read_row(row, "row")


def sample_of(caption, spans):
    """A sample whose phrase number n has row n of the picture as its mask."""
    sample = Sample("a.jpg", WIDTH, HEIGHT, [], "here", caption)
    for number, span in enumerate(spans):
        mask = encode_mask(rectangle(0, number, WIDTH, number + 1))
        sample.instances.append(Instance([0, 0, 1, 1], "?", None, [list(span)], mask=mask))
    return sample


words = st.lists(st.sampled_from(["man", "é", "🐶", "a", ".", ",", '"', "\n", "  ", "<", "&", "]"]))
places = st.lists(st.tuples(st.integers(0, 20), st.integers(1, 9)), max_size=HEIGHT)


@settings(max_examples=80, deadline=None)
@given(words.map(" ".join), places)
def test_whatever_the_text_each_phrase_has_its_mask_and_no_word_is_lost(caption, places):
    spans = [(begin, begin + length) for begin, length in places]
    ledger = Ledger()
    source = Source(iter([sample_of(caption, spans)]), None)
    rows = list(mask_rows(source, RegionSettings("gcg"), ledger))
    usable = {s for s in spans if s[1] <= len(caption) and caption[slice(*s)].strip()}
    if not rows:
        assert not usable
        assert NO_PHRASE in ledger.counts or not caption.strip()
        return
    row = read_row(rows[0], "row")
    answer = row.conversation.turns[1].text
    marks = marked_regions(row.conversation.turns)
    assert marks == tuple(range(len(row.regions)))  # in the order of the text
    said = GRAMMAR.parse(GRAMMAR(answer))
    assert "".join(said.caption.split()) == "".join(caption.split())
    kept = []  # what the masks of the row say that they are of
    for mask in row.regions.masks:
        lines = np.flatnonzero(decode_mask(mask, (HEIGHT, WIDTH)).any(1)).tolist()
        (span,) = {spans[line] for line in lines}
        assert lines == [n for n, each in enumerate(spans) if each == span]  # all of a phrase
        kept.append(span)
    assert kept == sorted(kept)
    assert all(first[1] <= second[0] for first, second in pairwise(kept))
    assert [" ".join(p.split()) for p in said.phrases] == [
        " ".join(caption[slice(*span)].split()) for span in kept
    ]
    assert ledger.counts.get(OVERLAP, 0) == len(set(spans)) - len(kept)


def test_what_cannot_be_asked_is_counted_and_the_rest_is_asked():
    broken = sample_of("a dog", [(0, 5)])
    broken.instances[0].mask = encode_mask(np.ones((3, 3), bool))
    empty = sample_of("a cat", [(0, 5)])
    empty.instances[0].mask = encode_mask(EMPTY)
    marked = sample_of("a [SEG] token", [(0, 1)])
    sizeless = sample_of("a cow", [(0, 5)])
    sizeless.width = None
    ledger = Ledger()
    samples = [broken, empty, marked, sizeless, sample_of("a hen", [(0, 5)])]
    rows = list(mask_rows(Source(iter(samples), None), RegionSettings("gcg"), ledger))
    assert [row["conversations"][1]["value"] for row in rows] == ["<p>a hen</p><mask:0>"]
    assert ledger.counts == Counter(
        {
            NO_MASK: 1,
            EMPTY_MASK: 1,
            NO_PHRASE: 2,
            "text that holds a mark": 1,
            "picture without width and height (--images gives them)": 1,
        }
    )
