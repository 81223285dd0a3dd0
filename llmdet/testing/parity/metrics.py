"""Our numbers beside those of official tools, for fixture folders with an ``expected.json``.

Each key of ``expected.json`` is one run of an official tool; the tables below say which of our
metrics and options it corresponds to.
"""

import dataclasses
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from llmdet.errors import DataError
from llmdet.evaluation.suite import flatten, option_types, run_metric
from llmdet.utils.files import read_json

TOLERANCE = 1e-6
THREE_DECIMALS = 0.5e-3 + 1e-9  # of numbers that the official tool rounds
FOUR_DECIMALS = 0.5e-4 + 1e-9
FLOAT32_SUMS = 1e-5  # GLaMM's referring segmentation adds up in float32
PERCENT = 100.0

NOT_COMPARED = {
    "other_tools_for_information": "other tools",
    "mmdet_merged": "mmdet crashes",
    "full_partition_by_nbox": "the official script counts boxes in D3's pickle, which holds "
    "boxes of other groups that the JSON lacks",
}


@dataclasses.dataclass(frozen=True)
class Run:
    """One of our runs that an official value is compared with."""

    metric: str
    gt: str
    pred: str | None = "preds"
    options: tuple[str, ...] = ()
    names: Mapping[str, str] = dataclasses.field(default_factory=dict)  # theirs -> ours
    tolerance: float = TOLERANCE
    scale: float = 1.0  # theirs / ours
    rounded: frozenset[str] = frozenset()  # names that the tool gives with three decimals


@dataclasses.dataclass(frozen=True)
class Row:
    """One compared number."""

    case: str
    key: str
    name: str
    ours: float | None
    expected: float
    tolerance: float

    @property
    def difference(self) -> float:
        """Absolute difference; infinite if we have no such number."""
        return float("inf") if self.ours is None else abs(self.ours - self.expected)

    @property
    def equal(self) -> bool:
        """Within tolerance."""
        return self.difference <= self.tolerance


MMDET_NAMES = {
    "mAP": "AP",
    "mAP_50": "AP50",
    "mAP_75": "AP75",
    "mAP_s": "APs",
    "mAP_m": "APm",
    "mAP_l": "APl",
}
MMDET_COCO = {f"metrics.bbox_{theirs}": ours for theirs, ours in MMDET_NAMES.items()}
OV_COCO = {f"bbox_{theirs}": ours for theirs, ours in MMDET_NAMES.items()}
MMDET_RECALL = {
    **{f"Recall@{k}": f"Recall@{k}_all" for k in (1, 5, 10)},
    "Upper_bound": "Upper_bound_all",
}
SKLEARN = {
    "mean_per_class_accuracy_present_classes": "mean_per_class_accuracy",
    "macro_f1_all_classes": "macro_f1",
}
TORCHMETRICS = {"micro_top1": "top1", "micro_top5": "top5"}
LLAVA = {
    "Accuracy": "accuracy",
    "Precision": "precision",
    "Recall": "recall",
    "F1 score": "f1",
    "Yes ratio": "yes_ratio",
}

COUNTED = ("annotation_id0=counted",)
CLASSWISE = ("classwise=true",)
RANKS = "lvis_fixed_ap_mmdet_ranks"  # followed by the number of emulated processes

RUNS: dict[str, Run] = {
    "coco_bbox": Run("coco", "gt", options=CLASSWISE),
    "coco_bbox_maxdets_100_300_1000": Run("coco", "gt", options=("limits=mmdet",)),
    "coco_bbox_ids_shifted_by_one": Run("coco", "gt", options=COUNTED),
    "published_by_cocoapi": Run("coco", "gt", tolerance=THREE_DECIMALS),
    "mmdet_CocoMetric": Run(
        "coco", "gt", options=("limits=mmdet",), names=MMDET_COCO, tolerance=THREE_DECIMALS
    ),
    "ovcoco": Run(
        "coco", "gt", options=("limits=mmdet",), names=OV_COCO, rounded=frozenset(OV_COCO)
    ),
    "lvis_ap": Run("lvis", "gt", options=CLASSWISE),
    "lvis_ap_uncapped_untruncated": Run("lvis", "gt", options=("max_dets=-1",)),
    "lvis_fixed_ap": Run("lvis-fixed-ap", "gt", options=CLASSWISE),
    "lvis_fixed_ap_mmdet": Run("lvis-fixed-ap", "gt"),
    "lvis_fixed_ap_mdetr": Run("lvis-fixed-ap", "gt"),
    "refexp_iou_sorted": Run("refexp", "gt_mdetr_style"),
    "mmdet_as_given": Run("refexp", "gt_mdetr_style", options=("order=file",)),
    "mdetr_giou": Run("refexp", "gt_mdetr_style", options=("criterion=giou",)),
    "grefcoco_official_giou": Run("grefcoco", "gt_mdetr_style"),
    "mmdet": Run("grefcoco", "gt_mdetr_style", options=("criterion=iou", "targets=first")),
    "mmdet_all_targets_iou": Run("grefcoco", "gt_mdetr_style", options=("criterion=iou",)),
    "any_box": Run("flickr30k", "gt_simple"),
    "merged_boxes": Run("flickr30k", "gt_simple", options=("boxes=merged",)),
    "mmdet_any_box": Run("flickr30k", "gt_simple", names=MMDET_RECALL),
    "nms_ap": Run("ovdeval", "gt"),
    "nms_ap_ids_shifted_by_one": Run("ovdeval", "gt", options=COUNTED),
    "plain_coco_ap": Run("ovdeval", "gt", options=("nms=false",)),
    "humanref": Run("humanref", "annotations", "predictions"),
    "readme_formula_variant": Run(
        "humanref", "annotations", "predictions", options=("density=persons",)
    ),
    "sklearn": Run("region-classification", "gt", names=SKLEARN),
    "torchmetrics": Run("region-classification", "gt", names=TORCHMETRICS),
    "osprey_semantic_iou": Run("region-classification", "gt", "preds_text"),
    "coco_caption": Run("caption", "gt_coco_captions"),
    "gcg": Run("gcg", ".", "predictions"),
    "glamm": Run("res", "data", None, tolerance=FLOAT32_SUMS),
    "mmdet_RefSegMetric": Run(
        "res",
        "data",
        None,
        options=("empty=zero",),
        names={"mIoU": "gIoU"},
        tolerance=FLOAT32_SUMS * PERCENT,
        scale=PERCENT,
    ),
    "pope": Run("pope", "questions", "answers"),
    "llava": Run("pope", "questions", "answers", names=LLAVA),
}
for _split in ("full", "pres", "abs"):
    _gt = f"d3_{_split}_annotations"
    RUNS[_split] = Run("d3", _gt)
    RUNS[f"{_split}_mmdet"] = Run("d3", _gt, names=MMDET_NAMES, tolerance=THREE_DECIMALS)
    RUNS[f"{_split}_ids_shifted_by_one"] = Run("d3", _gt, options=COUNTED)


def compare_case(folder: str | Path) -> Iterator[Row]:
    """Compare every number of a fixture folder.

    Raises:
        DataError: the folder has no ``expected.json`` or lacks a file that a run needs.
    """
    folder = Path(folder)
    expected = read_json(folder / "expected.json")["expected"]
    with tempfile.TemporaryDirectory() as scratch:
        for key, entry in expected.items():
            if key in NOT_COMPARED:
                continue
            run = _run_of(folder, key, entry)
            yield from _compare(folder, key, entry, run, Path(scratch))


def skipped_keys(folder: str | Path) -> dict[str, str]:
    """Keys of a fixture folder that are not compared, with the reason."""
    expected = read_json(Path(folder) / "expected.json")["expected"]
    return {key: NOT_COMPARED[key] for key in expected if key in NOT_COMPARED}


def _run_of(folder: Path, key: str, entry: Mapping[str, Any]) -> Run:
    if key in RUNS:
        return RUNS[key]
    if key.startswith(RANKS):
        return Run("lvis-fixed-ap", "gt")
    if isinstance(entry.get("metrics"), list):
        named = f"preds_{key}"
        return Run("omnilabel", "gt", named if list(folder.glob(f"{named}.*")) else "preds")
    raise DataError(f"{folder}: no metric is known for the key {key!r} of expected.json")


def _compare(
    folder: Path, key: str, entry: Mapping[str, Any], run: Run, scratch: Path
) -> Iterator[Row]:
    gt = folder if run.gt == "." else _find(folder, run.gt)
    pred = None if run.pred is None else _find(folder, run.pred)
    if pred is not None and key.startswith(RANKS):
        pred = _by_rank(pred, int(key.removeprefix(RANKS)), scratch)
    options = [*run.options, *_extra_options(folder, key, entry, scratch)]
    if "partial" in option_types(run.metric):  # the official programs accept what lacks images
        options.append("partial=true")
    report = run_metric(run.metric, gt, pred, options)
    ours = flatten(report.values)
    names = _class_names(gt) if "per_category_AP" in entry else {}
    for name, value in _expected_values(entry, names).items():
        wanted = run.names.get(name, name)
        tolerance = THREE_DECIMALS if name in run.rounded else run.tolerance
        if wanted.endswith("_4dec"):
            wanted, tolerance = wanted.removesuffix("_4dec"), FOUR_DECIMALS
        found = ours.get(wanted)
        scaled = None if found is None else found * run.scale
        yield Row(str(folder), key, name, scaled, value, tolerance)


def _class_names(gt: Path) -> dict[str, str]:
    """Name of each category by its id, as official programs write it."""
    return {str(item["id"]): item["name"] for item in read_json(gt)["categories"]}


def _expected_values(entry: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, float]:
    metrics = entry["metrics"]
    if isinstance(metrics, list):
        values = {}
        for item in metrics:
            values[f"{item['metric']} {item['description']} {item['iou']}"] = item["value"]
            values[f"boxes.{item['description']}"] = item["numgt"]
        return values
    values = flatten(metrics)
    for category, ap in entry.get("per_category_AP", {}).items():
        values[f"per_category.{names[category]}"] = ap
    return values


def _extra_options(
    folder: Path, key: str, entry: Mapping[str, Any], scratch: Path
) -> Iterator[str]:
    if "topk" in entry:
        yield f"topk={entry['topk']}"
    if key == "ovcoco":
        split = scratch / "class_split.json"
        split.write_text(
            json.dumps({"base": entry["base_classes"], "novel": entry["novel_classes"]})
        )
        yield f"class_split={split}"
    if key == "gcg":
        yield f"embeddings={_find(folder, 'phrase_embeddings')}"


def _by_rank(pred: Path, ranks: int, scratch: Path) -> Path:
    """The predictions in the order in which ``ranks`` processes hand them over."""
    with np.load(pred, allow_pickle=False) as archive:
        columns = {name: archive[name] for name in archive.files}
    images = columns["image_id"].tolist()
    rank = {image: index % ranks for index, image in enumerate(dict.fromkeys(images))}
    order = np.argsort([rank[image] for image in images], kind="stable")
    path = scratch / f"ranks{ranks}.npz"
    np.savez(path, **{name: column[order] for name, column in columns.items()})
    return path


def _find(folder: Path, stem: str) -> Path:
    stems = (stem, "dets_coco_results") if stem == "preds" else (stem,)
    for name in stems:
        files = sorted(folder.glob(f"{name}.*"))
        if len(files) == 1:
            return files[0]
    raise DataError(f"{folder} must hold one file {stem}.*")
