"""Write the toy set: images, and annotations in every format that LLMDet reads."""

from __future__ import annotations

import json
import logging
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llmdet.datasets.toy.captions import grounding_caption, long_caption
from llmdet.datasets.toy.folders import write_image
from llmdet.datasets.toy.photographs import (
    HELD_OUT_PHOTOGRAPHS,
    TRAINING_PHOTOGRAPHS,
    read_photograph,
)
from llmdet.datasets.toy.scene import Scene, draw_scene, paint_items, sample_items, sample_scene
from llmdet.datasets.toy.vocabulary import (
    ALL_KINDS,
    CATEGORY_IDS,
    CLASS_NAMES,
    HELD_OUT,
    HELD_OUT_NAMES,
    SEEN,
    SEEN_NAMES,
)
from llmdet.errors import DataError

logger = logging.getLogger(__name__)

#: Raised whenever the same settings would give other files, or the set other models, than before.
VERSION = 14
PROMPT = "<image>\nDescribe the image in detail."
#: Those that are drawn, in the order of their streams of random numbers.
SPLITS = ("train", "val_seen", "val_unseen")
_MARKER = "toy.json"
_FOLDERS = ("images", "annotations")
#: What llmdet.datasets.toy.models makes.
_MODEL_FOLDERS = (
    "bert",
    "language_model",
    "region_language_model",
    "retrieval_language_model",
    "mask_language_model",
)
_LISTED_NEGATIVES = 12  # classes per image that LVIS may count as absent
_INEXHAUSTIVE_PROBABILITY = 0.5  # of a class with several objects to lose one in the LVIS file


@dataclass(frozen=True)
class ToySettings:
    """What the toy set is made from; equal settings give equal files."""

    seed: int = 0
    train: int = 2000  # images
    val: int = 200  # images of each validation split
    size: int = 128  # nominal side in pixels
    photographs: bool = True  # behind some scenes; scikit-image brings them


@dataclass(frozen=True)
class Record:
    """One written image."""

    image_id: int
    file_name: str  # below images/
    scene: Scene
    grounding: dict[str, Any]  # the grounding form of the JSONL row, without file name and size

    @property
    def names(self) -> list[str]:
        return [item.kind.name for item in self.scene.items]

    @property
    def boxes(self) -> list[list[float]]:
        return [[round(v, 2) for v in item.box] for item in self.scene.items]

    def row(self, **content: Any) -> dict[str, Any]:
        return {
            "filename": self.file_name,
            "height": self.scene.height,
            "width": self.scene.width,
            **content,
        }


def generate(out: str | Path, settings: ToySettings | None = None) -> Path:
    """Write the toy set below `out`, unless it is there already.

    The layout is::

        images/{train,val_seen,val_unseen}/000000.jpg
        images/photographs/*.jpg               objects on whole photographs
        annotations/{split}_grounding.jsonl    captions, phrases, boxes, conversations
        annotations/{split}_detection.jsonl    boxes, labels of label_map.json, conversations
        annotations/{split}_coco.json          COCO
        annotations/val_*_lvis.json            LVIS (federated)
        annotations/val_unseen_novel_coco.json COCO with the held-out classes alone
        annotations/label_map.json             the classes of training
        annotations/label_map_all.json         the same, then the held-out classes
        annotations/class_split.json           which classes training shows (base) or not (novel)

    Args:
        out: a folder without images/ and annotations/, or one that holds an earlier toy set.
        settings: seed and sizes.

    Returns:
        `out`.

    Raises:
        DataError: the folder holds other images, or a number is too small.
    """
    settings = settings or ToySettings()
    out = Path(out)
    stamp = {"version": VERSION, **asdict(settings)}
    if not _prepare(out, stamp):
        logger.info("toy set is up to date: %s", out)
        return out
    records = {
        split: _write_images(out, split, settings, stream) for stream, split in enumerate(SPLITS)
    }
    if settings.photographs:
        records["photographs"] = _write_photographs(out, settings)
    _write_annotations(out / "annotations", records, settings.seed)
    (out / _MARKER).write_text(json.dumps(stamp))
    for split, written in records.items():
        boxes = sum(len(record.scene.items) for record in written)
        logger.info("%s: %d images, %d boxes", split, len(written), boxes)
    return out


def _prepare(out: Path, stamp: dict[str, int]) -> bool:
    """Empty the folder for a new toy set; False if the wanted one is complete already."""
    if min(stamp["train"], stamp["val"]) < 1 or stamp["size"] < 32:
        raise DataError(
            f"toy set: train={stamp['train']}, val={stamp['val']} and size={stamp['size']} are "
            "too small; train and val need at least 1 image, size at least 32 pixels."
        )
    marker = out / _MARKER
    if marker.is_file():
        if json.loads(marker.read_text()) == stamp:
            return False
        for folder in (*_FOLDERS, *_MODEL_FOLDERS):
            shutil.rmtree(out / folder, ignore_errors=True)
    for folder in _FOLDERS:
        if (out / folder).exists():
            raise DataError(
                f"toy set: {out / folder} exists and is not part of a toy set; name another folder."
            )
    out.mkdir(parents=True, exist_ok=True)
    marker.write_text(json.dumps({"unfinished": stamp}))
    (out / "annotations").mkdir()
    return True


def _write_images(out: Path, split: str, settings: ToySettings, stream: int) -> list[Record]:
    """Draw one split; image i depends on seed, split and i alone."""
    (out / "images" / split).mkdir(parents=True, exist_ok=True)
    records = []
    for index in range(settings.train if split == "train" else settings.val):
        scene, rng = _sample(split, settings, stream, index)
        name = f"{split}/{index:06d}.jpg"
        write_image(out / "images" / name, draw_scene(scene, rng))
        records.append(Record(index + 1, name, scene, _grounding(scene, rng)))
    return records


def _sample(
    split: str, settings: ToySettings, stream: int, index: int
) -> tuple[Scene, np.random.Generator]:
    """The scene of an image, and the source of randomness that is to draw and to describe it."""
    kinds = ALL_KINDS if split == "val_unseen" else SEEN
    photographs = TRAINING_PHOTOGRAPHS if split == "train" else HELD_OUT_PHOTOGRAPHS
    if not settings.photographs:
        photographs = ()
    rng = np.random.default_rng([settings.seed, stream, index])
    required = [HELD_OUT[index % len(HELD_OUT)]] if split == "val_unseen" else []
    weights = _kind_weights(len(kinds))
    return sample_scene(rng, kinds, weights, required, settings.size, photographs), rng


def read_scenes(folder: str | Path, split: str) -> Iterator[Scene]:
    """What was drawn in the images of a split, in their order; masks follow from it.

    Args:
        folder: a toy set, as :func:`generate` wrote it.
        split: one of :data:`SPLITS`.

    Raises:
        DataError: there is no toy set, or one that another version has written.
    """
    marker = Path(folder) / _MARKER
    stamp = json.loads(marker.read_text()) if marker.is_file() else {}
    if stamp.pop("version", None) != VERSION:
        raise DataError(f"toy set: {marker} is missing or of another version; make the set first")
    settings = ToySettings(**stamp)
    for index in range(settings.train if split == "train" else settings.val):
        yield _sample(split, settings, SPLITS.index(split), index)[0]


def _write_photographs(out: Path, settings: ToySettings) -> list[Record]:
    """Draw objects onto whole photographs that lie behind no training image."""
    (out / "images" / "photographs").mkdir(parents=True, exist_ok=True)
    records = []
    for index, photograph in enumerate(HELD_OUT_PHOTOGRAPHS):
        rng = np.random.default_rng([settings.seed, 3, index])
        canvas = read_photograph(photograph).astype(np.float32)
        height, width, _ = canvas.shape
        held_out = [HELD_OUT[i] for i in rng.choice(len(HELD_OUT), 2, replace=False)]
        seen = [SEEN[i] for i in rng.choice(len(SEEN), 3, replace=False)]
        items = sample_items(rng, SEEN, _kind_weights(len(SEEN)), held_out + seen, (width, height))
        scene = Scene(width, height, "photograph", items, photograph)
        name = f"photographs/{Path(photograph).stem}.jpg"
        write_image(out / "images" / name, paint_items(canvas, items, rng))
        records.append(Record(index + 1, name, scene, _grounding(scene, rng)))
    return records


def _kind_weights(count: int) -> np.ndarray:
    """Probabilities of the kinds: a mild long tail, so that frequency groups differ."""
    stride = 7  # coprime to both lengths: neighbours of a colour differ in frequency
    ranks = np.arange(count) * stride % count
    weights = 1 / (1 + 4 * ranks / count)
    return weights / weights.sum()


def _grounding(scene: Scene, rng: np.random.Generator) -> dict[str, Any]:
    caption, spans = grounding_caption(scene, rng)
    regions = []
    for group, span in spans:
        boxes = [[round(v, 2) for v in item.box] for item in group.items]
        regions.append(
            {
                "bbox": boxes[0] if len(boxes) == 1 else boxes,
                "phrase": group.phrase,
                "tokens_positive": [list(span)],
            }
        )
    return {
        "grounding": {"caption": caption, "regions": regions},
        "conversations": [
            {"from": "human", "value": PROMPT},
            {"from": "gpt", "value": long_caption(scene)},
        ],
        "tags": sorted({item.kind.name for item in scene.items}),
    }


def _write_annotations(folder: Path, records: dict[str, list[Record]], seed: int) -> None:
    for split, written in records.items():
        _write_lines(folder / f"{split}_grounding.jsonl", (r.row(**r.grounding) for r in written))
        _write_lines(folder / f"{split}_detection.jsonl", map(_detection_row, written))
        names = CLASS_NAMES if split in ("val_unseen", "photographs") else SEEN_NAMES
        _write_json(folder / f"{split}_coco.json", coco_dict(written, names))
    _write_json(
        folder / "val_unseen_novel_coco.json", coco_dict(records["val_unseen"], HELD_OUT_NAMES)
    )
    _write_json(folder / "label_map.json", {str(i): name for i, name in enumerate(SEEN_NAMES)})
    _write_json(folder / "label_map_all.json", {str(i): name for i, name in enumerate(CLASS_NAMES)})
    _write_json(folder / "class_split.json", {"base": SEEN_NAMES, "novel": HELD_OUT_NAMES})
    categories = lvis_categories(records["train"])
    seen = [category for category in categories if category["name"] in SEEN_NAMES]
    for stream, split in enumerate(("val_seen", "val_unseen")):
        rng = np.random.default_rng([seed, 100, stream])
        listed = seen if split == "val_seen" else categories
        _write_json(folder / f"{split}_lvis.json", lvis_dict(records[split], listed, rng))


def _detection_row(record: Record) -> dict[str, Any]:
    instances = [
        {"bbox": box, "label": CLASS_NAMES.index(name), "category": name}
        for box, name in zip(record.boxes, record.names, strict=True)
    ]
    captions = {key: record.grounding[key] for key in ("conversations", "tags")}
    return record.row(detection={"instances": instances}, **captions)


def coco_dict(records: Sequence[Record], names: Sequence[str]) -> dict[str, Any]:
    """Build a COCO file with the categories `names`; objects of other classes are left out."""
    annotations: list[dict[str, Any]] = []
    for record in records:
        for box, name in zip(record.boxes, record.names, strict=True):
            if name in names:
                annotations.append(_annotation(len(annotations) + 1, record.image_id, box, name))
    return {
        "images": [_image(record) for record in records],
        "annotations": annotations,
        "categories": [{"id": CATEGORY_IDS[name], "name": name} for name in sorted(names)],
    }


def _image(record: Record) -> dict[str, Any]:
    return {
        "id": record.image_id,
        "file_name": record.file_name,
        "width": record.scene.width,
        "height": record.scene.height,
    }


def _annotation(index: int, image_id: int, box: Sequence[float], name: str) -> dict[str, Any]:
    x1, y1, x2, y2 = box
    width, height = round(x2 - x1, 2), round(y2 - y1, 2)
    return {
        "id": index,
        "image_id": image_id,
        "category_id": CATEGORY_IDS[name],
        "bbox": [x1, y1, width, height],
        "area": round(width * height, 2),
        "iscrowd": 0,
    }


def lvis_categories(train: Sequence[Record]) -> list[dict[str, Any]]:
    """List all classes with LVIS frequency groups by their images in training.

    Held-out classes are rare (`r`), so that APr is AP on combinations never seen; the seen
    ones are common (`c`) below the median count and frequent (`f`) from it on.
    """
    images: Counter[str] = Counter()
    instances: Counter[str] = Counter()
    for record in train:
        images.update(set(record.names))
        instances.update(record.names)
    median = float(np.median([images[name] for name in SEEN_NAMES]))
    return [
        {
            "id": CATEGORY_IDS[name],
            "name": name,
            "synonyms": [name],
            "frequency": "r" if name in HELD_OUT_NAMES else "f" if images[name] >= median else "c",
            "image_count": images[name],
            "instance_count": instances[name],
        }
        for name in sorted(CLASS_NAMES, key=CATEGORY_IDS.__getitem__)
    ]


def lvis_dict(
    records: Sequence[Record], categories: list[dict[str, Any]], rng: np.random.Generator
) -> dict[str, Any]:
    """Build a federated LVIS file.

    Some absent classes of an image are listed as negative, the others are unknown there; of
    some classes with several objects one object is left out and the class is listed as not
    exhaustively annotated.

    Args:
        records: the images; all their classes are among `categories`.
        categories: of :func:`lvis_categories`.
        rng: decides what is listed.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for record in records:
        counts = Counter(record.names)
        incomplete = {
            name
            for name, count in sorted(counts.items())
            if count > 1 and rng.random() < _INEXHAUSTIVE_PROBABILITY
        }
        absent = [c["name"] for c in categories if c["name"] not in counts]
        negatives = rng.choice(absent, _LISTED_NEGATIVES, replace=False)
        images.append(
            {
                **_image(record),
                "neg_category_ids": sorted(CATEGORY_IDS[str(name)] for name in negatives),
                "not_exhaustive_category_ids": sorted(CATEGORY_IDS[name] for name in incomplete),
            }
        )
        to_leave_out = set(incomplete)
        for box, name in zip(record.boxes, record.names, strict=True):
            if name in to_leave_out:
                to_leave_out.remove(name)
                continue
            annotations.append(_annotation(len(annotations) + 1, record.image_id, box, name))
    return {"images": images, "annotations": annotations, "categories": categories}


def _write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, separators=(",", ":")) + "\n")


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, separators=(",", ":")), encoding="utf-8")
