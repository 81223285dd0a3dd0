import pytest

from llmdet.data_engines.pictures import PictureSet
from llmdet.errors import ConfigError, DataError
from llmdet.labelling.settings import (
    LabelSettings,
    OutputSettings,
    decided_by,
    read_classes,
)


def test_classes_may_have_thresholds_and_comments(tmp_path):
    file = tmp_path / "classes.txt"
    file.write_text("# of a street\nstop sign: 0.4\n\nratio 4:3\ndog\ntime: late\n", "utf-8")
    names, thresholds = read_classes(file)
    assert names == ("stop sign", "ratio 4:3", "dog", "time: late")
    assert thresholds == {"stop sign": 0.4}
    settings = LabelSettings(names, 0.25, thresholds)
    assert [settings.limit(name) for name in names] == [0.4, 0.25, 0.25, 0.25]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n# nothing\n", "names no class"),
        ("dog\ncat\ndog: 0.3\n", r":3: the class 'dog' is there already"),
        ("dog: 40\n", r":1: 'dog: 40' is no 'name: threshold'"),
        ("dog: -0.1\n", r":1: .* from 0 to 1"),
    ],
)
def test_mistakes_in_the_list_are_named(tmp_path, text, message):
    file = tmp_path / "classes.txt"
    file.write_text(text, "utf-8")
    with pytest.raises(DataError, match=message):
        read_classes(file)


def test_a_split_depends_on_names_and_seed_alone():
    names = [f"{number}.jpg" for number in range(50)]
    output = OutputSettings("coco", val=0.2, seed=3)
    chosen = output.validation(names)
    assert len(chosen) == 10
    assert output.validation(names[::-1]) == chosen
    assert OutputSettings("coco", val=0.2, seed=4).validation(names) != chosen
    assert OutputSettings("coco", val=0).validation(names) == frozenset()
    assert len(OutputSettings("coco", val=0.01).validation(names[:2])) == 1
    assert len(OutputSettings("coco", val=0.99).validation(names[:2])) == 1


def test_pictures_are_named_below_the_folder_that_they_share(tmp_path):
    paths = [tmp_path / "a" / "x.jpg", tmp_path / "b" / "c" / "x.png", tmp_path / "a" / "x.jpg"]
    pictures = PictureSet.of(paths)
    assert (pictures.folder, pictures.filenames) == (tmp_path, ("a/x.jpg", "b/c/x.png"))
    pictures.check_stems()
    with pytest.raises(DataError, match=r"x\.jpg and x\.png would share a label file"):
        PictureSet.of([tmp_path / "x.jpg", tmp_path / "x.png"]).check_stems()


def test_captions_need_a_format_that_holds_them():
    settings = LabelSettings(("dog",), captions=frozenset({"image", "regions"}))
    OutputSettings("grounding").check(settings)
    with pytest.raises(ConfigError, match="odvg has no place for captions of regions"):
        OutputSettings("odvg").check(settings)
    with pytest.raises(ConfigError, match="coco has no place for captions of image"):
        OutputSettings("coco").check(settings)
    for wrong in ({"target": "csv"}, {"target": "coco", "val": 1.0}):
        with pytest.raises(ConfigError):
            OutputSettings(**wrong)


def test_all_that_decides_labels_is_compared(tmp_path):
    from mmengine.config import Config

    config, weights = Config({"model": {"type": "A"}}), tmp_path / "w.pth"
    weights.write_bytes(b"weights")
    pictures = PictureSet.of([tmp_path / "a.jpg"])
    settings, output = LabelSettings(("dog",)), OutputSettings("coco")
    first = decided_by(config, weights, pictures, settings, output)
    assert decided_by(config, weights, pictures, settings, output) == first
    doubtful = LabelSettings(("dog",), doubt=0.3)
    assert decided_by(config, weights, pictures, doubtful, output) == first
    weights.write_bytes(b"others!")
    second = decided_by(config, weights, pictures, settings, output)
    assert [key for key in first if first[key] != second[key]] == ["weights"]
    others = PictureSet.of([tmp_path / "b.jpg"])
    assert decided_by(config, weights, others, settings, output)["pictures"] != first["pictures"]
