"""llmdet label, and the training that reads what it wrote."""

import json

import numpy as np
import pytest

from llmdet.apis.web.visit import Visit
from llmdet.cli import label as program
from llmdet.datasets.toy.models import tiny_bert
from llmdet.errors import ConfigError
from llmdet.labelling.corrections import Corrections
from llmdet.testing.programs import load_program


@pytest.fixture(scope="module")
def arguments(tmp_path_factory, tiny, photos):
    folder = tmp_path_factory.mktemp("label")
    (folder / "classes.txt").write_text("dog: 0.01\nred circle\n")
    (folder / "broken.jpg").write_bytes(b"no picture")
    model = ("--config", tiny.config, "--weights", tiny.weights, "--device", "cpu")
    search = ("--classes", folder / "classes.txt", "--threshold", 0.02, "--nms", 0.5)
    return [photos, folder / "broken.jpg", *model, *search]


def label(capsys, *arguments):
    code = program.main(list(map(str, arguments)))
    return code, capsys.readouterr()


def test_labels_of_the_command_train_a_detector(arguments, root, tmp_path, capsys, monkeypatch):
    out = tmp_path / "labels"
    code, told = label(capsys, *arguments, out, "--to", "coco", "--val", 0.34, "--tile", 400)
    assert code == 1  # one picture is damaged
    assert "3 pictures: " in told.out
    assert "broken.jpg cannot be read" in told.out
    assert "3/4" in told.err or "4/4" in told.err
    document = json.loads((out / "instances_train.json").read_text())
    assert len(document["images"]) == 2
    assert len(document["annotations"]) > 2
    before = (out / "instances_train.json").stat().st_mtime_ns
    served = []
    monkeypatch.setattr(program, "review", lambda *given: served.append(given))
    again = (*arguments, out, "--to", "coco", "--val", 0.34, "--tile", 400)
    code, told = label(capsys, *again, "--review", "--doubt", 0.9)
    assert code == 1
    assert "is labelled already" in told.out
    ((detector, job, journal),) = served
    assert len(Corrections(job, journal).review().boxes) > 2
    doubtful = (out / "review.txt").read_text().splitlines()
    examples = program.examples_of(job)
    assert [str(example.image) for example in examples] == doubtful
    visit = Visit.of(detector, examples[0].image)
    visit.find(examples[0].task, examples[0].words)
    assert visit.rows(np.arange(1))[0][0] in ("dog", "red circle")
    assert (out / "instances_train.json").stat().st_mtime_ns == before
    with pytest.raises(ConfigError, match=r"begun with tiles .* \(now None\)"):
        label(capsys, *arguments, out, "--to", "coco", "--val", 0.34)

    bert = tiny_bert(tmp_path / "bert")
    options = (
        f"data_root={out}/",
        f"lang_model_name={bert}",
        "train_cfg.max_iters=2",
        "train_cfg.val_interval=2",
        *(f"{split}_dataloader.num_workers=0" for split in ("train", "val", "test")),
        *(f"{split}_dataloader.persistent_workers=False" for split in ("train", "val", "test")),
        "train_dataloader.batch_size=1",
    )
    work_dir = tmp_path / "work"
    train = load_program(root / "tools" / "train.py")
    config = root / "configs" / "finetune" / "coco_json.py"
    train.main([str(config), "--work-dir", str(work_dir), "--cfg-options", *options])
    assert (work_dir / "iter_2.pth").is_file()
    (scalars,) = work_dir.glob("*/vis_data/scalars.json")
    logged = [json.loads(line) for line in scalars.read_text().splitlines()]
    assert any("coco/bbox_mAP" in line for line in logged)


def test_mistakes_show_before_the_model_is_built(arguments, tmp_path, capsys):
    with pytest.raises(ConfigError, match="coco has no place for captions of image"):
        label(capsys, *arguments, tmp_path / "out", "--to", "coco", "--captions", "image")
    assert not (tmp_path / "out").exists()
