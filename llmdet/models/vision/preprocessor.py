"""From the views that workers made to what towers read, on the model's device."""

from __future__ import annotations

from typing import Any

from mmengine.model import BaseDataPreprocessor

from llmdet.registry import MODELS

from .views import collate_views


@MODELS.register_module()
class ViewPreprocessor(BaseDataPreprocessor):
    """Stacks and normalises the views of a batch, which hold their own settings."""

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """Collated data of ``PackViews`` as arguments of the model.

        Args:
            data: inputs (name -> B ``ImageView``) and data_samples.
            training: whether the model trains; nothing depends on it.
        """
        views = {name: collate_views(each, self.device) for name, each in data["inputs"].items()}
        return {"inputs": views, "data_samples": list(data["data_samples"])}
