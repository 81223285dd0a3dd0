import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.structures import InstanceData
from PIL import Image

from llmdet.errors import ConfigError, DataError
from llmdet.registry import VISUALIZERS
from llmdet.visualization.drawing import draw_detections
from llmdet.visualization.visualizer import DetLocalVisualizer, draw_sample, label_names

IMAGE = np.full((80, 120, 3), 90, dtype=np.uint8)


def sample(**metainfo):
    data = DetDataSample(metainfo=metainfo)
    data.pred_instances = InstanceData(
        bboxes=torch.tensor([[10.0, 30, 60, 70], [5, 20, 40, 60]]),
        scores=torch.tensor([0.9, 0.2]),
        labels=torch.tensor([1, 0]),
        label_names=["dog", "cat"],
    )
    return data


@pytest.fixture
def visualizer():
    return DetLocalVisualizer()


def test_configs_that_name_mmdets_visualizer_get_ours():
    config = {"type": "DetLocalVisualizer", "vis_backends": [], "name": "of a config"}
    assert isinstance(VISUALIZERS.build(config), DetLocalVisualizer)


def test_predictions_above_the_threshold_are_drawn_like_in_the_demo(visualizer, tmp_path):
    out_file = tmp_path / "new" / "picture.png"
    visualizer.add_datasample("image", IMAGE, sample(), pred_score_thr=0.3, out_file=out_file)
    expected = draw_detections(IMAGE, np.array([[10.0, 30, 60, 70]]), [1], ["dog"], [0.9]).picture
    assert np.array_equal(np.array(Image.open(out_file)), expected)


def test_ground_truth_stands_left_of_predictions(visualizer, tmp_path):
    data = sample(text=("cat", "dog"))
    data.gt_instances = InstanceData(
        bboxes=HorizontalBoxes(torch.tensor([[10.0, 30, 60, 70]])), labels=torch.tensor([1])
    )
    visualizer.add_datasample("image", IMAGE, data, out_file=tmp_path / "both.png")
    picture = np.array(Image.open(tmp_path / "both.png"))
    truth = draw_detections(
        IMAGE, np.array([[10.0, 30, 60, 70]]), [1], ["dog"], classes=["cat", "dog"]
    ).picture
    height, width = truth.shape[:2]
    assert picture.shape == (height, 2 * width, 3)
    assert np.array_equal(picture[:, :width], truth)


def test_panels_of_unequal_height_stand_side_by_side(visualizer, tmp_path):
    data = sample()
    data.pred_instances.captions = ["a dog on a lawn", "a cat"]
    data.set_field("A garden.", "image_description", dtype=str)
    described = draw_sample(IMAGE, data)
    data.gt_instances = InstanceData(
        bboxes=HorizontalBoxes(torch.zeros(0, 4)), labels=torch.tensor([], dtype=torch.int64)
    )
    both = draw_sample(IMAGE, data)
    assert both.shape == (len(described), 2 * described.shape[1], 3)


def test_a_sample_without_anything_is_the_image(visualizer, tmp_path):
    visualizer.add_datasample("image", IMAGE, None, out_file=tmp_path / "plain.png")
    assert np.array_equal(np.array(Image.open(tmp_path / "plain.png")), IMAGE)


def test_without_a_file_the_picture_goes_to_the_backends(tmp_path):
    visualizer = DetLocalVisualizer(
        vis_backends=[{"type": "LocalVisBackend"}], save_dir=str(tmp_path)
    )
    visualizer.add_datasample("val_img", IMAGE, sample(), step=7)
    assert (tmp_path / "vis_data" / "vis_image" / "val_img_7.png").is_file()


@pytest.mark.parametrize(
    ("metainfo", "expected"),
    [
        ({"text": ("cat", "dog")}, ["cat", "dog"]),
        ({"text": "a cat on a mat", "tokens_positive": [[[0, 5]], [[9, 14]]]}, ["a cat", "a mat"]),
        ({"text": "cat. dog.", "tokens_positive": {1: [[5, 8]], 0: [[0, 3]]}}, ["cat", "dog"]),
        ({"text": "red hat and shoe", "tokens_positive": [[[0, 3], [12, 16]]]}, ["red / shoe"]),
        ({"text": "the left dog", "tokens_positive": -1}, ["the left dog"]),
        ({}, ["person", "car"]),
    ],
)
def test_labels_are_named_by_the_prompt_before_the_data_set(metainfo, expected):
    assert label_names(DetDataSample(metainfo=metainfo), ["person", "car"]) == expected


def test_a_window_without_a_screen_is_refused(visualizer, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")
    import matplotlib.pyplot as plt

    plt.switch_backend("agg")
    with pytest.raises(ConfigError, match="leave out --show"):
        visualizer.add_datasample("image", IMAGE, sample(), show=True)


def test_a_file_that_is_no_image_format_is_refused(visualizer, tmp_path):
    with pytest.raises(DataError, match=r"picture\.xyz cannot be written"):
        visualizer.add_datasample("image", IMAGE, out_file=tmp_path / "picture.xyz")
