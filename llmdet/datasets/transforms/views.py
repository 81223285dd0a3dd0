"""Views of the decoded image, for models that see it through one or more towers."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.structures import DetDataSample

from llmdet.datasets.sample import read_grounding
from llmdet.datasets.views import ViewSettings, make_view
from llmdet.errors import ConfigError
from llmdet.registry import TRANSFORMS


@TRANSFORMS.register_module()
class MakeViews(BaseTransform):
    """Makes all views of a sample from its one decoded image.

    Regions stay in pixels of the original image: views know where it lies in them.

    Required key: img ([h, w, 3] uint8 BGR, not resized). Optional key: window (x1, y1, x2, y2 in
    pixels), the part of the image that is to be seen. Added key: views (name ->
    :class:`~llmdet.datasets.views.ImageView`).

    Args:
        settings: of each view by the name of its tower; None, as in configs, for those of the
            model that the runner trains.
        mirror_probability: how often left and right change places, in all views together. Keep it
            at 0 where text speaks of left and right.
    """

    def __init__(
        self,
        settings: Mapping[str, ViewSettings] | None = None,
        mirror_probability: float = 0.0,
    ) -> None:
        if not 0 <= mirror_probability <= 1:
            raise ConfigError(f"MakeViews: mirror_probability={mirror_probability} is not in 0..1")
        self.settings = dict(settings or {})
        self.mirror_probability = mirror_probability

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Process one sample; see the class for keys.

        Raises:
            ConfigError: nobody said which views there are, or the image was resized before.
        """
        if not self.settings:
            raise ConfigError(
                "MakeViews knows no view: the runner gives it those of a RegionLMM; elsewhere set "
                "settings=model.view_settings()"
            )
        image: np.ndarray = results["img"]
        if tuple(results.get("ori_shape", image.shape[:2])) != image.shape[:2]:
            raise ConfigError("MakeViews wants the image as it was decoded: leave resizing out")
        mirrored = random.random() < self.mirror_probability
        results["flip"] = mirrored
        results["views"] = {
            name: make_view(image, view, window=results.get("window"), mirrored=mirrored)
            for name, view in self.settings.items()
        }
        return results


@TRANSFORMS.register_module()
class PackViews(BaseTransform):
    """The end of a pipeline for models that see views.

    Required key: views. Added keys: inputs (the views) and data_samples (a ``DetDataSample`` whose
    metainfo holds img_id, img_path, ori_shape, answers_given (whether the conversations end with
    an answer that is read, not learned) and ``grounding``, a
    :class:`~llmdet.datasets.sample.GroundingSample`).
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Pack one sample; see the class for keys."""
        kept = ("img_id", "img_path", "ori_shape", "flip", "answers_given")
        sample = DetDataSample(metainfo={key: results[key] for key in kept if key in results})
        sample.set_metainfo({"grounding": read_grounding(results)})
        return {"inputs": results["views"], "data_samples": sample}
