import json
import subprocess
import sys
from pathlib import Path

import pytest

from llmdet.cli import convert_data
from llmdet.datasets.formats import FOLDER_WRITERS, READERS, WRITERS
from llmdet.datasets.retrieval.settings import TASKS as RETRIEVAL_TASKS
from llmdet.errors import ConfigError, DataError
from llmdet.prompts.mask_tasks import MASK_TASKS
from llmdet.prompts.region_tasks import TASKS

TOOL = Path(__file__).parents[2] / "tools" / "convert" / "data.py"
COCO = {
    "images": [{"id": 1, "file_name": "a.jpg", "width": 40, "height": 20}],
    "annotations": [{"id": 5, "image_id": 1, "category_id": 3, "bbox": [1, 2, 9, 9]}],
    "categories": [{"id": 3, "name": "dog"}],
}


def run(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, str(TOOL), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(COCO))
    return path


def test_a_conversion_writes_rows_and_says_how_many(coco: Path, tmp_path: Path) -> None:
    result = run(coco, tmp_path / "rows.jsonl", "--from", "coco", "--to", "odvg")
    assert result.returncode == 0, result.stderr
    assert "rows.jsonl: 1 images" in result.stdout
    row = json.loads((tmp_path / "rows.jsonl").read_text())
    assert row["detection"]["instances"][0]["category"] == "dog"


def test_what_exists_is_not_replaced_unasked(coco: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    arguments = [str(coco), str(out), "--from", "coco", "--to", "odvg"]
    convert_data.main(arguments)
    out.write_text("corrected by hand")
    with pytest.raises(ConfigError, match=r"rows\.jsonl exists: .* --overwrite"):
        convert_data.main(arguments)
    assert out.read_text() == "corrected by hand"
    convert_data.main([*arguments, "--overwrite"])
    assert "dog" in out.read_text()
    folder = [str(coco), str(tmp_path / "voc"), "--from", "coco", "--to", "voc"]
    convert_data.main(folder)
    convert_data.main([*folder, "--split", "val"])
    with pytest.raises(ConfigError, match=r"val\.txt exists"):
        convert_data.main([*folder, "--split", "val"])


def test_a_split_of_a_folder_is_read_alone(coco: Path, tmp_path: Path) -> None:
    folder = tmp_path / "voc"
    convert_data.main([str(coco), str(folder), "--from", "coco", "--to", "voc"])
    (folder / "ImageSets" / "Main" / "val.txt").write_text("")
    back = [str(folder), str(tmp_path / "back.json"), "--from", "voc", "--to", "coco"]
    with pytest.raises(DataError, match=r"there are no \.xml files"):
        convert_data.main([*back, "--split", "val"])
    convert_data.main([*back, "--split", "train"])
    document = json.loads((tmp_path / "back.json").read_text())
    assert document["annotations"][0]["bbox"] == [1, 2, 9, 9]


def test_a_users_mistake_ends_with_a_sentence_not_a_traceback(coco: Path, tmp_path: Path) -> None:
    coco.write_text(json.dumps(COCO | {"categories": [{"id": 4, "name": "cat"}]}))
    result = run(coco, tmp_path / "rows.jsonl", "--from", "coco", "--to", "odvg")
    assert result.returncode == 2
    assert "annotation id 5: no category has the id 3" in result.stderr
    assert "Traceback" not in result.stderr


def test_check_reports_and_its_exit_code_tells_whether_all_is_well(coco: Path) -> None:
    result = run(coco, "--check")
    assert result.returncode == 0, result.stderr
    assert "instances.json: ready" in result.stdout
    coco.write_text(json.dumps(COCO | {"annotations": COCO["annotations"] * 2}))
    result = run(coco, "--check")
    assert result.returncode == 1
    assert "error: annotation id used twice: 1" in result.stdout
    assert "must be fixed" in result.stdout


def test_the_program_offers_every_format_and_task():
    assert set(convert_data.SOURCES) == set(READERS)
    assert set(convert_data.TARGETS) == {*WRITERS, *FOLDER_WRITERS, "regions", "objects"}
    assert set(convert_data.TASKS) == {*TASKS, *MASK_TASKS}
    assert set(convert_data.OBJECT_TASKS) == set(RETRIEVAL_TASKS)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--to", "objects"], "--to objects needs --task: detect, many"),
        (["--to", "objects", "--task", "choose"], "of --to objects there are detect, many"),
        (["--to", "objects", "--task", "name", "--masks"], "--masks is for --to regions"),
        (["--to", "regions", "--absent", "0.5"], "--absent is for --to objects"),
        (["--to", "regions", "--task", "segment", "--masks"], "--masks is for --task classify, "),
        (["--to", "regions", "--task", "refer", "--candidates", "2"], "is for --task choose"),
        (["--to", "regions", "--seed", "1"], "--seed is for --task classify, caption, "),
        (["--to", "regions", "--task", "gcg", "--turns", "2"], "--turns is for --task classify, "),
        (["--to", "odvg", "--picture-folders", "a"], "--picture-folders is for --check"),
    ],
)
def test_options_of_another_target_or_task_are_refused(options, problem, capsys):
    with pytest.raises(SystemExit):
        convert_data.main(["in.json", "out.jsonl", "--from", "coco", *options])
    assert problem in capsys.readouterr().err


@pytest.mark.parametrize("target", ["odvg", "grounding", "coco", "yolo", "voc"])
@pytest.mark.parametrize(
    "option",
    [
        ["--folder", "train2017/"],
        ["--seed", "0"],  # as by default, and yet without an effect
        ["--turns", "10"],
        ["--per-image", "1"],
        ["--candidates", "9"],
        ["--objects", "instances.json"],
        ["--objects-from", "coco"],
        ["--one-wording"],
    ],
)
def test_options_of_conversations_are_refused_where_none_are_written(option, target, capsys):
    with pytest.raises(SystemExit):
        convert_data.main(["in.json", "out", "--from", "coco", "--to", target, *option])
    problem = f"{option[0]} is for --to regions and --to objects"
    assert problem in capsys.readouterr().err


def test_conversations_about_objects_hold_a_detectors_boxes(coco, tmp_path, capsys):
    out, found = tmp_path / "rows.jsonl", tmp_path / "found.json"
    found.write_text(json.dumps([{"image_id": 1, "bbox": [30, 5, 5, 6], "score": 0.5}]))
    arguments = [str(coco), str(out), "--from", "coco", "--to", "objects", "--task", "count"]
    more = ["--proposals", str(found), "--absent", "0", "--one-wording", "--folder", "train/"]
    assert convert_data.main([*arguments, *more]) == 0
    assert f"{out}: 1 rows" in capsys.readouterr().out
    row = json.loads(out.read_text())
    assert (row["filename"], row["task"]) == ("train/a.jpg", "count")
    assert {"bbox": [30, 5, 35, 11]} in row["regions"]
    assert len(row["regions"]) == len(COCO["annotations"]) + 1
    answer = row["conversations"][1]["value"]
    place = row["regions"].index({"bbox": [1, 2, 10, 11]})
    assert answer.startswith("The number is ")
    assert f"<obj{place}>" in "".join(turn["value"] for turn in row["conversations"][1::2])


def test_missing_arguments_are_explained() -> None:
    result = run("in.json")
    assert result.returncode == 2
    assert "give OUTPUT, --from and --to, or --check" in result.stderr


REFS = [
    {"ann_id": 5, "image_id": 1, "split": "train", "sentences": [{"sent": "left dog"}]},
    {"ann_id": 6, "image_id": 1, "split": "val", "sentences": [{"sent": "right dog"}]},
]


def test_conversations_about_regions_are_written_and_losses_reported(coco, tmp_path, capsys):
    annotations = [*COCO["annotations"], COCO["annotations"][0] | {"id": 6, "bbox": [20, 2, 9, 9]}]
    (tmp_path / "instances.json").write_text(json.dumps(COCO | {"annotations": annotations}))
    refs, out = tmp_path / "refs(umd).json", tmp_path / "out" / "rows.jsonl"
    refs.write_text(json.dumps(REFS))
    arguments = [str(refs), str(out), "--from", "refer", "--to", "regions", "--split", "train"]
    task = ["--task", "choose", "--none-share", "0", "--folder", "train2014/"]
    assert convert_data.main([*arguments, *task]) == 0
    assert f"{out}: 1 rows" in capsys.readouterr().out
    row = json.loads(out.read_text())
    assert row["filename"] == "train2014/a.jpg"
    assert sorted(region["bbox"] for region in row["regions"]) == [[1, 2, 10, 11], [20, 2, 29, 11]]
    right = row["regions"].index({"bbox": [1, 2, 10, 11]}) + 1
    assert row["conversations"][1]["value"] == f"Region [{right}]."
    (tmp_path / "instances.json").write_text(json.dumps(COCO))  # nothing else to choose
    with pytest.raises(DataError, match="no row is left to write"):
        convert_data.main([*arguments, *task, "--overwrite"])
    assert json.loads(out.read_text()) == row
    convert_data.main([*arguments, "--task", "classify", "--overwrite"])
    assert json.loads(out.read_text())["conversations"][1]["value"] == "dog"


def test_llavas_list_becomes_rows_of_the_same_conversations(tmp_path, capsys):
    talk = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A cat."}]
    path, out = tmp_path / "llava.json", tmp_path / "llava.jsonl"
    path.write_text(json.dumps([{"id": 1, "image": "a.jpg", "conversations": talk}, {"id": 2}]))
    convert_data.main([str(path), str(out), "--from", "llava", "--to", "regions"])
    assert json.loads(out.read_text()) == {"filename": "a.jpg", "conversations": talk}
    assert "1  conversation without a picture" in capsys.readouterr().out


def test_a_task_is_refused_where_no_regions_are_written(coco, tmp_path, capsys):
    arguments = [str(coco), str(tmp_path / "rows.jsonl"), "--from", "coco", "--to", "odvg"]
    with pytest.raises(SystemExit):
        convert_data.main([*arguments, "--task", "classify"])
    assert "--task is for --to regions" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="would overwrite the input"):
        convert_data.main(
            [str(coco), str(coco), "--from", "coco", "--to", "regions", "--overwrite"]
        )
