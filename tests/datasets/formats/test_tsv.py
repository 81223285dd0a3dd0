"""Expressions of Rexverse-2M, HumanRef-CoT and HumanRef."""

import base64
import io
import json

import pytest
from mmengine.registry import DefaultScope
from PIL import Image

from llmdet.cli import convert_data
from llmdet.datasets.formats import ReadOptions, open_source
from llmdet.datasets.formats.tsv import ABSENT, pictures_of
from llmdet.datasets.ledger import Ledger
from llmdet.datasets.rows import read_row
from llmdet.errors import DataError
from llmdet.prompts.objects import ABSENT as ABSENT_ANSWER
from llmdet.prompts.objects import ObjectGrammar
from llmdet.registry import DATASETS
from llmdet.utils.config import load_config

BOXES = [[1, 2, 10, 20], [20, 2, 8, 16], [30, 5, 5, 5]]  # x, y, width, height
CORNERS = [[1, 2, 11, 22], [20, 2, 28, 18], [30, 5, 35, 10]]


def write_pictures(path, sizes=((40, 30), (60, 50))):
    """A TSV file of pictures; returns the first byte of every line."""
    starts, content = [], b""
    for number, size in enumerate(sizes):
        stream = io.BytesIO()
        Image.new("RGB", size).save(stream, "JPEG")
        starts.append(len(content))
        content += b"%d\t%s\n" % (number, base64.b64encode(stream.getvalue()))
    path.write_bytes(content)
    return starts


def annotation(start, region_map, **more):
    return f"{start}\t{json.dumps({'gt_boxes': BOXES, 'region_map': region_map, **more})}\n"


@pytest.fixture
def cot(tmp_path):
    starts = write_pictures(tmp_path / "humanref_cot.images.tsv")
    path = tmp_path / "humanref_cot.annotations.tsv"
    path.write_text(
        annotation(starts[0], {"two men": [0, 2]}, think="First ...")
        + annotation(starts[1], {"a woman": [1], "a child": []})
    )
    return path, starts


def samples_of(path, form="humanref_cot", ledger=None, **options):
    return list(open_source(path, form, ReadOptions(**options), ledger or Ledger()).samples)


def test_every_text_is_a_sample_with_the_boxes_that_it_means(cot):
    path, starts = cot
    men, woman, child = samples_of(path)
    assert men.filename == f"humanref_cot.images.tsv/{starts[0]}"
    assert (men.width, men.height, men.caption) == (40, 30, "two men")
    assert [instance.bbox for instance in men.instances] == [CORNERS[0], CORNERS[2]]
    assert men.instances[0].spans == [[0, 7]]
    assert men.fields == {"proposals": [CORNERS[1]]}
    assert men.extra == {"original_id": starts[0], "think": "First ...", "id": 1}
    assert woman.filename == child.filename == f"humanref_cot.images.tsv/{starts[1]}"
    assert child.extra[ABSENT]
    assert not child.instances
    assert len(child.fields["proposals"]) == 3


def test_training_reads_the_rows_that_are_written_of_them(cot, tmp_path):
    path, _ = cot
    out = tmp_path / "rows.jsonl"
    convert_data.main([str(path), str(out), "--from", "humanref_cot", "--to", "grounding"])
    men = read_row(json.loads(out.read_text().splitlines()[0]), "row")
    assert [phrase.boxes for phrase in men.phrases] == [[CORNERS[0], CORNERS[2]]]
    assert men.proposals.tolist() == [CORNERS[1]]
    assert convert_data.main([str(out), "--check", "--images", str(tmp_path)]) == 0


def test_a_model_of_object_indices_trains_on_people_where_their_pictures_lie(cot, tmp_path, root):
    path, _ = cot
    arguments = [str(path), str(tmp_path / "humanref_cot.jsonl"), "--from", "humanref_cot"]
    task = ["--to", "objects", "--task", "refer", "--one-wording"]
    assert convert_data.main([*arguments, *task]) == 0
    part = load_config(root / "configs/rexseek/stage4_humanref.py").stage_four[0]
    part.pipeline = [
        step for step in part.pipeline if step.type in ("LoadImageFromFile", "MixCandidates")
    ]
    with DefaultScope.overwrite_default_scope("llmdet"):
        dataset = DATASETS.build({**part, "data_root": str(tmp_path)})
    men, second = (dataset[number] for number in range(2))
    assert men["img"].shape == (30, 40, 3)
    (conversation,) = men["conversations"]
    (named,) = ObjectGrammar().parse(conversation.turns[1].text, 3).phrases
    boxes = men["regions"].boxes[list(named.indices)].tolist()
    assert sorted(boxes) == [CORNERS[0], CORNERS[2]]
    assert conversation.turns[0].text.startswith("<image>\n<obj0><region:0><obj1><region:1>")
    answers = [turn.text for turn in second["conversations"][0].turns[1::2]]
    assert ABSENT_ANSWER in answers
    assert len(answers) == 2


def test_files_of_pictures_are_found_by_the_publishers_names(tmp_path):
    whole = tmp_path / "0_500000_image.tsv"
    write_pictures(tmp_path / "0_500000_image_part_0.tsv")
    annotations = tmp_path / "0_500000_referring.annotations.tsv"
    assert pictures_of(annotations) == whole
    one_sentence = tmp_path / "0_500000_one_sentence.annotation.tsv"
    assert pictures_of(one_sentence) == whole
    elsewhere = tmp_path / "other" / "0_500000_referring.annotations.tsv"
    assert pictures_of(elsewhere, tmp_path) == whole
    assert pictures_of(elsewhere, whole) == whole
    with pytest.raises(DataError, match=r"name their \.tsv with --images"):
        pictures_of(elsewhere)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("0 {}\n", r"tsv:1 is no annotation"),
        ("0\t{not json}\n", r"tsv:1: the second column is no JSON"),
        (annotation(0, {"a man": [3]}), r"tsv:1: field 'region_map.a man' names boxes \[3\]"),
        (annotation(0, {" ": [1]}), r"tsv:1: field 'region_map. ' is a text without a word"),
        (annotation(5, {"a man": [0]}), r"tsv:1: .*byte 5: no line begins there"),
        (f"0\t{json.dumps({'gt_boxes': [[1, 2]], 'region_map': {}})}\n", r"gt_boxes\[0\]"),
    ],
)
def test_a_broken_line_is_named_and_may_be_skipped(cot, line, problem):
    path, starts = cot
    path.write_text(line + annotation(starts[1], {"a woman": [1]}))
    with pytest.raises(DataError, match=problem):
        samples_of(path)
    ledger = Ledger(max_bad_rows=1)
    assert [sample.caption for sample in samples_of(path, ledger=ledger)] == ["a woman"]
    assert ledger.counts["broken record"] == 1


def record(**changed):
    return {
        "id": 7,
        "image_name": "p.jpg",
        "referring": "two men shaking hands",
        "domain": "interaction",
        "sub_domain": "500_inner_interaction_data_with_mask",
        "candidate_boxes": CORNERS,
        "answer_boxes": CORNERS[:2],
        **changed,
    }


def test_humanrefs_expressions_keep_their_ids_and_other_people(tmp_path):
    path = tmp_path / "annotations.jsonl"
    lines = [record(), record(id=8, answer_boxes=[], domain="rejection", width=40, height=30)]
    path.write_text("\n".join(map(json.dumps, lines)))
    Image.new("RGB", (70, 60)).save(tmp_path / "p.jpg")
    both, nobody = samples_of(path, "humanref", images=tmp_path)
    assert (both.width, both.height, both.extra["id"]) == (70, 60, 7)
    assert [instance.bbox for instance in both.instances] == CORNERS[:2]
    assert both.fields == {"proposals": CORNERS[2:]}
    assert (nobody.width, nobody.instances, nobody.extra[ABSENT]) == (40, [], True)
    path.write_text(json.dumps(record(answer_boxes=[[1, 2]])))
    with pytest.raises(DataError, match=r"annotations.jsonl:1: field 'answer_boxes"):
        samples_of(path, "humanref")
