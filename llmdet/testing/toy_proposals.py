"""A detector of proposals for the toy set, which begins as a detector of words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmdet.testing.toy_trainings import ROOT

#: Of detectors of proposals, which see images as they are and enlarged; the second begins behind
#: the first.
SMALL, LARGE = "configs/upn/toy_candidates.py", "configs/upn/toy_candidates_large.py"
#: Best boxes of an image whose recall is measured.
LIMITS = (10, 100)
_OVERLAP = 0.3  # of candidates, above which the best stays
_LEAST = 0.15  # of the best score of an image, below which boxes are no candidates


@dataclass(frozen=True)
class Proposer:
    """A trained detector of proposals."""

    detector: Any

    @classmethod
    def load(cls, config: str, weights: Path) -> Proposer:
        """Of a training of :data:`SMALL` or :data:`LARGE`."""
        from llmdet.apis import Detector

        return cls(Detector.from_pretrained(ROOT / config, weights, device="cpu"))

    def best(self, folder: Path, files: Sequence[str], most: int) -> dict[str, list[list[float]]]:
        """File -> its candidates, xyxy in pixels and a score: the best boxes, at most so many."""
        import numpy as np

        stream = self._found(folder, files, overlap=_OVERLAP)
        kept = {}
        for file, found in zip(files, stream, strict=True):
            near = found.scores >= _LEAST * found.scores.max(initial=0)
            kept[file] = np.column_stack([found.boxes, found.scores])[near][:most].tolist()
        return kept

    def recall(self, folder: Path) -> dict[str, float]:
        """Recall of the objects of a set in COCO's form, in percent.

        Returns:
            ``AR@LIMIT``, the average over IoU 0.5 to 0.95, and ``R@LIMIT`` at IoU 0.5.
        """
        import numpy as np

        from llmdet.evaluation.detections import DetectionTable
        from llmdet.evaluation.ground_truth import parse_coco
        from llmdet.evaluation.proposal_recall import proposal_recall
        from llmdet.utils.files import read_json

        content = read_json(folder / "instances_val.json")
        truth = parse_coco(content)
        found = self._found(folder / "images", [i["file_name"] for i in content["images"]], 1.0)
        ids = [image["id"] for image in content["images"]]
        images = np.repeat(ids, [len(each) for each in found])
        boxes, points = (
            np.concatenate([getattr(f, k) for f in found]) for k in ("boxes", "scores")
        )
        table = DetectionTable(images, np.zeros_like(images), boxes, points)
        average = proposal_recall(truth, table, LIMITS)
        lenient = proposal_recall(truth, table, LIMITS, np.array([0.5]))
        names = [f"AR@{limit}" for limit in LIMITS]
        return {name: 100 * average[name] for name in names} | {
            name[1:]: 100 * lenient[name] for name in names
        }

    def _found(self, folder: Path, files: Sequence[str], overlap: float) -> list[Any]:
        paths = [folder / file for file in files]
        return self.detector.predict(
            paths, granularity="fine", threshold=0, nms=overlap, batch_size=16
        )


def shared_weights(settings: Any, weights: Path, out: Path) -> Path:
    """Write a checkpoint of a model: the tensors of another one that fit it, random ones else.

    Args:
        settings: of the model.
        weights: of the other one.
        out: file to write.
    """
    import torch

    from llmdet.checkpoint.files import read_checkpoint
    from llmdet.registry import MODELS

    begun = MODELS.build(settings).state_dict()
    trained = read_checkpoint(weights).state_dict
    fitting = {
        name: trained[name]
        for name, value in begun.items()
        if name in trained and trained[name].shape == value.shape
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"meta": {}, "state_dict": begun | fitting}, out)
    return out
