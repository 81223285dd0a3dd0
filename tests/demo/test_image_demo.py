"""image_demo.py as users start it: a few times as a program, otherwise through its main()."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from llmdet.errors import ConfigError, DataError
from llmdet.prompts.noun_phrases import METHODS
from llmdet.visualization.palette import PALETTES

VAL = Path(__file__).parents[2] / "configs" / "val"
FLAGS = """
--text --texts -c --custom-entities --tokens-positive --noun-phrases --chunked-size -s
--weight --weights --device --batch-size --pred-score-thr --out-dir --show
--no-save-vis --no-save-pred --print-result --palette --cfg-options
"""


@pytest.fixture
def start(demo, tiny, tmp_path, monkeypatch):
    """Run main() with the tiny model in an empty folder; returns the folder."""
    monkeypatch.chdir(tmp_path)

    def run(inputs, *arguments):
        weights = ("--weights", str(tiny.weights), "--device", "cpu")
        demo.main([str(inputs), str(tiny.config), *weights, "--pred-score-thr", "0", *arguments])
        return tmp_path

    return run


def program(root, folder, *arguments):
    command = [sys.executable, str(root / "image_demo.py"), *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


def prediction(folder, name):
    return json.loads((folder / "outputs" / "preds" / f"{name}.json").read_text())


# --- as a program


def test_help_names_every_flag(root, tmp_path):
    result = program(root, tmp_path, "--help")
    assert result.returncode == 0
    assert all(flag in result.stdout for flag in FLAGS.split())


def test_a_line_of_the_readme_runs_as_written(root, tiny, photos, tmp_path):
    result = program(
        root, tmp_path, photos / "astronaut.png", tiny.config, "--weight", tiny.weights,
        "--text", "apple .", "-c", "--pred-score-thr", "0.0", "--print-result",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    saved = prediction(tmp_path, "astronaut")
    assert set(saved["label_names"]) == {"apple"}
    printed = json.loads(result.stdout)
    assert printed == saved
    assert printed["image"] == str(photos / "astronaut.png")
    assert "15 apple" in result.stderr
    assert (tmp_path / "outputs" / "vis" / "astronaut.png").is_file()


def test_a_mistake_ends_with_one_sentence_and_status_2(root, tiny, photos, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    result = program(root, tmp_path, tmp_path, tiny.config, "--text", "dog")
    assert result.returncode == 2
    assert result.stdout == ""
    assert "broken.jpg cannot be read (it is no picture" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "outputs").exists()


# --- the three modes, and what they look at


def test_classes_in_a_folder(start, photos):
    folder = start(photos, "--texts", "dog . red circle", "--custom-entities", "--batch-size", "2")
    for name in ("astronaut", "cat", "coffee"):
        assert set(prediction(folder, name)["label_names"]) <= {"dog", "red circle"}
    pictures = {path.name for path in (folder / "outputs/vis").iterdir()}
    assert pictures == {"astronaut.png", "cat.jpg", "coffee.png"}


def test_several_images_on_the_command_line(demo, tiny, photos, tmp_path, capsys):
    images = [str(photos / "astronaut.png"), str(photos / "cat.jpg")]
    arguments = ("--weights", str(tiny.weights), "--device", "cpu", "--text", "dog", "-c")
    demo.main([*images, str(tiny.config), *arguments, "--out-dir", str(tmp_path)])
    assert [line.split(":")[0] for line in capsys.readouterr().err.splitlines()[-3:-1]] == images


def test_settings_of_the_config_can_be_changed(start, photos):
    options = ("--text", "dog", "-c", "--cfg-options", "model.test_cfg.max_per_img=2")
    assert len(prediction(start(photos / "cat.jpg", *options), "cat")["labels"]) == 2


def test_phrases_of_a_sentence_in_a_listed_image(start, photos, tmp_path):
    (tmp_path / "list.txt").write_text(f"{photos / 'cat.jpg'}\n")
    arguments = ("--text", "There is a dog on the grass.", "--noun-phrases", "rules")
    names = prediction(start(tmp_path / "list.txt", *arguments), "cat")["label_names"]
    assert {name.split()[-1] for name in names} == {"dog", "grass"}


def test_a_referring_expression(start, photos):
    folder = start(photos / "cat.jpg", "--text", "red apple.", "--tokens-positive", "-1")
    assert set(prediction(folder, "cat")["labels"]) == {0}


def test_several_descriptions_are_told_apart_in_json_and_picture(start, photos, capsys):
    texts = ("--text", "the red apple", "--text", "a dog that sits")
    folder = start(photos / "cat.jpg", *texts, "--print-result")
    found = prediction(folder, "cat")
    assert set(zip(found["labels"], found["label_names"], strict=True)) == {
        (0, "the red apple"),
        (1, "a dog that sits"),
    }
    # One alone has boxes of one colour, two have boxes of two.
    both, one = _colours(folder), _colours(start(photos / "cat.jpg", *texts[:2]))
    assert len(both - one) > 0


def _colours(folder):
    (picture,) = (folder / "outputs" / "vis").iterdir()
    return set(map(tuple, np.asarray(Image.open(picture).convert("RGB")).reshape(-1, 3) // 32))


def test_spans_of_a_text(start, photos):
    spans = ("--text", "a cat and a dog", "--tokens-positive", "[[2, 5], [12, 15]]")
    names = prediction(start(photos / "cat.jpg", *spans), "cat")["label_names"]
    assert set(names) == {"cat", "dog"}


def test_the_classes_of_a_data_set_in_chunks(start, photos, capsys):
    folder = start(photos / "cat.jpg", "--text", "$: voc", "-s", "4")
    labels = prediction(folder, "cat")["labels"]
    assert 4 < max(labels) < 20
    assert capsys.readouterr().out == ""


def test_without_text_the_classes_of_the_config(start, photos):
    names = prediction(start(photos / "cat.jpg"), "cat")["label_names"]
    assert set(names) <= {"dog", "red circle"}


@pytest.mark.parametrize("benchmark", sorted(VAL.glob("*.py")), ids=lambda path: path.stem)
def test_every_benchmark_config_runs_on_an_image(demo, benchmark, tiny, photos, tmp_path):
    model = Config.fromfile(tiny.config).model.to_dict()
    config = tmp_path / "tiny.py"
    config.write_text(f"_base_ = {str(benchmark)!r}\nmodel = dict(_delete_=True, **{model!r})\n")
    demo.main([
        str(photos / "cat.jpg"), str(config), "--weights", str(tiny.weights), "--device", "cpu",
        "--text", "dog . cat", "-c", "--pred-score-thr", "0", "--out-dir", str(tmp_path / "out"),
    ])  # fmt: skip
    found = json.loads((tmp_path / "out" / "preds" / "cat.json").read_text())
    assert set(found["label_names"]) == {"dog", "cat"}


# --- results


def test_output_flags_are_obeyed(start, photos):
    classes = ("--text", "dog", "-c")
    folder = start(photos / "cat.jpg", *classes, "--no-save-vis", "--out-dir", "a")
    assert [path.name for path in (folder / "a").iterdir()] == ["preds"]
    start(photos / "cat.jpg", *classes, "--no-save-pred", "--out-dir", "b")
    assert [path.name for path in (folder / "b").iterdir()] == ["vis"]


def test_a_palette_changes_the_colours(start, photos):
    pictures = []
    for palette in ("none", "coco"):
        folder = start(
            photos / "astronaut.png", "--text", "dog", "-c", "--palette", palette,
            "--out-dir", palette,
        )  # fmt: skip
        pictures.append(np.array(Image.open(folder / palette / "vis" / "astronaut.png")))
    assert not np.array_equal(*pictures)


def test_nothing_above_the_threshold_is_said_with_the_best_score(start, photos, tmp_path, capsys):
    start(photos / "cat.jpg", "--text", "dog", "-c", "--pred-score-thr", "0.99")
    best = prediction(tmp_path, "cat")["best_score"]
    said = f"cat.jpg: nothing with a score of 0.99 or more, the best is {best:.2f}"
    assert said in capsys.readouterr().err


def test_show_needs_a_screen(start, photos, monkeypatch):
    import matplotlib.pyplot as plt

    plt.switch_backend("agg")
    with pytest.raises(ConfigError, match="leave out --show"):
        start(photos / "cat.jpg", "--text", "dog", "-c", "--show")


def test_broken_images_of_a_folder_are_named_at_the_end_and_the_others_detected(
    demo, tiny, photos, tmp_path, capsys
):
    whole = (photos / "cat.jpg").read_bytes()
    for name, content in (
        ("a.jpg", whole),
        ("b.jpg", whole[: len(whole) // 2]),  # its head is there
        ("c.jpg", b""),
        ("d.jpg", whole),
    ):
        (tmp_path / name).write_bytes(content)
    Image.new("RGB", (2000, 10)).save(tmp_path / "e.png")
    arguments = ["--weights", str(tiny.weights), "--device", "cpu", "--text", "cat", "-c"]
    arguments += ["--out-dir", str(tmp_path / "out"), "--batch-size", "2"]
    assert demo.main([str(tmp_path), str(tiny.config), *arguments]) == 1
    said = capsys.readouterr().err.splitlines()
    assert said[-4] == "3 of 5 images could not be read:"
    assert "c.jpg cannot be read (the file is empty)" in said[-3]
    assert "b.jpg cannot be read (image file is truncated" in said[-2]
    assert "e.png has 2000 x 10 pixels; scaled to" in said[-1]
    assert {file.stem for file in (tmp_path / "out/preds").iterdir()} == {"a", "d"}
    with pytest.raises(DataError, match=r"b\.jpg cannot be read"):
        demo.main([str(tmp_path / "b.jpg"), str(tiny.config), *arguments])


# --- mistakes are found before the model is built


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("cat.jpg", "--text", "$: pets"), ConfigError, "choose one of .*coco"),
        (("cat.jpg", "--text", "dog", "--tokens-positive", "first"), ConfigError, "write -1"),
        (("cat.jpg", "--text", "dog", "-c", "--tokens-positive", "-1"), ConfigError, "exclude"),
        (("cat.jpg", "--text", ""), ConfigError, "text is empty"),
        (("cat.jpg", "--text", "dog", "--text", ""), ConfigError, "expression is empty"),
        (("cat.jpg", "--text", "dog", "--text", "cat", "-c"), ConfigError, "single text"),
        (("nope.jpg", "--text", "dog"), DataError, "no file or folder"),
        (("https://host/cat.jpg", "--text", "dog"), DataError, "is a URL"),
    ],
)
def test_mistakes_are_found_before_the_model_is_built(
    demo, photos, monkeypatch, arguments, error, message
):
    monkeypatch.chdir(photos)
    image, *rest = arguments
    with pytest.raises(error, match=message):
        demo.main([image, "there_is_no_config.py", *rest])


def test_choices_are_those_of_the_library(demo):
    assert demo.PALETTES == PALETTES
    assert demo.NOUN_PHRASES == METHODS


def test_weights_of_upstream_are_accepted(start, tiny, photos, tmp_path):
    checkpoint = torch.load(tiny.weights, weights_only=True)
    checkpoint["state_dict"]["connector.pos_proj.bias"] = torch.ones(4)
    torch.save(checkpoint, tmp_path / "upstream.pth")
    classes = ("--text", "dog", "-c")
    plain = prediction(start(photos / "cat.jpg", *classes), "cat")
    start(photos / "cat.jpg", *classes, "--weight", str(tmp_path / "upstream.pth"))
    assert prediction(tmp_path, "cat") == plain
