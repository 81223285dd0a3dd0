"""Pictures of what the detector found, while it is validated or tested (``--show-dir``)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mmcv
from mmdet.structures import DetDataSample
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from mmengine.visualization import Visualizer

from llmdet.datasets.storage.reading import read_content
from llmdet.registry import HOOKS
from llmdet.visualization.descriptions import describe_first
from llmdet.visualization.pictures import save_picture, show_picture
from llmdet.visualization.visualizer import draw_sample


@HOOKS.register_module(name=["DetVisualizationHook", "GroundingVisualizationHook"])
class DetectionVisualizationHook(Hook):
    """Draw detections, on every rank its own; takes the place of mmdet's two hooks.

    Args:
        draw: Whether to draw at all. In a test that is every image: ``tools/test.py`` draws with
            ``--show`` and ``--show-dir`` alone.
        interval: While validating, the first image of every such iteration is drawn; None
            spreads ``pictures`` evenly over the images.
        pictures: How many of them at most in one validation.
        captions: Whether the language model describes them and their boxes, where the model has
            one; the words stand below the picture.
        score_thr: Detections below this score are left out.
        show: Open a window for each picture.
        wait_time: Seconds that a window stays; 0 waits until it is closed.
        test_out_dir: Folder of the test's pictures; a relative one lies under the run's folder.
            None hands them to the visualizer's backends.
        backend_args: How mmengine reads the images, where they are not local files.
    """

    def __init__(
        self,
        draw: bool = False,
        interval: int | None = None,
        score_thr: float = 0.3,
        show: bool = False,
        wait_time: float = 0.0,
        test_out_dir: str | None = None,
        backend_args: dict[str, Any] | None = None,
        captions: bool = False,
        pictures: int = 16,
    ) -> None:
        self.draw = draw
        self.interval = interval
        self.score_thr = score_thr
        self.show = show
        self.wait_time = wait_time
        self.test_out_dir = test_out_dir
        self.backend_args = backend_args
        self.captions = captions
        self.pictures = pictures
        self._drawn = 0  # in this validation
        self._test_index = 0
        self._used: set[Path] = set()

    def before_val(self, runner: Runner) -> None:
        """Begin to count."""
        self._drawn = 0

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Sequence[DetDataSample] | None = None,
    ) -> None:
        """Draw the first image of every ``interval``-th iteration, under a name of its own.

        Backends have the same image at the step of each validation then.
        """
        if not self.draw or not outputs or batch_idx % self._interval_of(runner):
            return
        if self._drawn < self.pictures:
            self._drawn += 1
            sample = outputs[0]
            if self.captions:
                sample = sample.clone()
                sample.pred_instances = _shown(sample, self.score_thr)
                describe_first(runner.model, data_batch, sample)
            self._add(sample, f"val_{Path(sample.img_path).stem}", runner.iter, None)

    def _interval_of(self, runner: Runner) -> int:
        if self.interval is not None:
            return self.interval
        return max(1, len(runner.val_dataloader) // max(1, self.pictures))

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Sequence[DetDataSample] | None = None,
    ) -> None:
        """Draw every image of the test."""
        if not self.draw:
            return
        for sample in outputs or ():
            self._test_index += 1
            out_file = None
            if self.test_out_dir is not None:
                folder = Path(runner.work_dir, runner.timestamp, self.test_out_dir)
                out_file = self._free_name(folder, Path(sample.img_path))
            self._add(sample, "test_img", self._test_index, out_file)

    def _free_name(self, folder: Path, image: Path) -> Path:
        """Keep the picture of an equally named image in another folder."""
        path = folder / image.name
        if path in self._used:
            path = folder / f"{image.stem}_{self._test_index}{image.suffix}"
        self._used.add(path)
        return path

    def _add(self, sample: DetDataSample, name: str, step: int, out_file: Path | None) -> None:
        content = read_content(sample.img_path, self.backend_args)
        image = mmcv.imfrombytes(content, channel_order="rgb")
        visualizer = Visualizer.get_current_instance()
        classes = (visualizer.dataset_meta or {}).get("classes")
        palette = getattr(visualizer, "palette", "none")
        # Not by add_datasample, which in a distributed test draws the first rank's images alone.
        picture = draw_sample(image, sample, classes, palette, score_thr=self.score_thr)
        if self.show and is_main_process():
            show_picture(picture, Path(sample.img_path).name, self.wait_time)
        if out_file is not None:
            save_picture(picture, out_file)
        elif not self.show:
            visualizer.add_image(name, picture, step)


def _shown(sample: DetDataSample, score_thr: float) -> InstanceData:
    return sample.pred_instances[sample.pred_instances.scores >= score_thr]
