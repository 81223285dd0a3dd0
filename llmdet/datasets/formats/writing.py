"""Write samples as JSONL rows (grounding or detection form) or as a COCO document, streaming."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from llmdet.datasets.formats.coco_samples import xywh
from llmdet.datasets.formats.rows import label_map_path, numbered_categories, source_path
from llmdet.datasets.formats.samples import Instance, Sample, Source
from llmdet.datasets.ledger import Ledger
from llmdet.errors import DataError
from llmdet.utils.whole_files import whole_file

CLASS_SEPARATOR = ". "


def write_grounding(source: Source, out: Path, ledger: Ledger) -> int:
    """Write grounding rows; a sample without a sentence gets the names of its classes as one.

    Returns:
        The number of rows.
    """
    return _write_jsonl(source, out, grounding_row, ledger)


def write_odvg(source: Source, out: Path, ledger: Ledger) -> int:
    """Write detection rows and their label map; text-grounded sources give grounding rows.

    Raises:
        DataError: Two classes share a name, so that the label map would not tell them apart.
    """
    if source.categories is None:
        return write_grounding(source, out, ledger)
    mapping = label_map(source.categories, out)
    count = _write_jsonl(source, out, detection_row, ledger)
    with whole_file(label_map_path(out)) as file:
        file.write(mapping)
    return count


def label_map(categories: list[dict[str, Any]], out: Path) -> bytes:
    """The label map of a detection file, as JSON.

    Raises:
        DataError: Two classes share a name.
    """
    names: dict[str, Any] = {}
    for category in categories:
        first = names.setdefault(str(category["name"]), category["id"])
        if first != category["id"]:
            raise DataError(
                f"{out}: the categories {first!r} and {category['id']!r} are both called "
                f"{category['name']!r}. Rename one."
            )
    return orjson.dumps({str(label): name for label, name in enumerate(names)})


def _write_jsonl(source: Source, out: Path, make_row: Any, ledger: Ledger) -> int:
    count = 0
    with whole_file(out) as rows, whole_file(source_path(out)) as origins:
        _write_line(origins, {"header": source.header, "categories": source.categories})
        for sample in source.samples:
            kept = [instance for instance in sample.instances if not instance.ignored]
            left_out = [instance for instance in sample.instances if instance.ignored]
            for _ in left_out:
                ledger.note("crowd or difficult object left out of the row", sample.where)
            if sample.width is None or sample.height is None:
                ledger.note("image without width and height", sample.where)
            row, order = make_row(sample, kept)
            _write_line(rows, row)
            _write_line(origins, _origin(sample, order, left_out, source.categories))
            count += 1
    return count


def _write_line(file: BinaryIO, value: Any) -> None:
    file.write(orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE))


def _origin(
    sample: Sample,
    kept: list[Instance],
    left_out: list[Instance],
    categories: list[dict[str, Any]] | None,
) -> dict[str, Any]:
    def label_id(instance: Instance) -> dict[str, Any]:
        if categories is None or instance.label is None:
            return {}
        return {"label_id": categories[instance.label]["id"]}

    return {
        "filename": sample.filename,
        "image": sample.extra,
        "annotations": [instance.extra | label_id(instance) for instance in kept],
        "ignored": [
            {
                "bbox": instance.bbox,
                "phrase": instance.phrase,
                "spans": instance.spans,
                "extra": instance.extra,
            }
            | label_id(instance)
            for instance in left_out
        ],
    }


def grounding_row(sample: Sample, kept: list[Instance]) -> tuple[dict[str, Any], list[Instance]]:
    """The grounding form, and the instances in the order of its boxes.

    Boxes with the same words become one region, but for those with masks.
    """
    caption = sample.caption
    if caption is None:
        caption = name_the_classes(kept)
    groups: dict[bytes, list[Instance]] = {}
    for instance in kept:
        key = orjson.dumps([instance.spans, instance.phrase, instance.mask])
        groups.setdefault(key, []).append(instance)
    regions = []
    for group in groups.values():
        boxes = [instance.bbox for instance in group]
        regions.append(
            {
                "bbox": boxes[0] if len(boxes) == 1 else boxes,
                "phrase": group[0].phrase,
                "tokens_positive": group[0].spans,
            }
            | _segmentation(group[0])
        )
    order = [instance for group in groups.values() for instance in group]
    return _row(sample, {"grounding": {"caption": caption, "regions": regions}}), order


def name_the_classes(instances: list[Instance]) -> str:
    """Join the names of the classes present and point every box to its class in that text."""
    caption = ""
    spans: dict[int | None, list[int]] = {}
    for instance in instances:
        if instance.label not in spans:
            name = readable_name(str(instance.phrase))
            caption += (CLASS_SEPARATOR if caption else "") + name
            spans[instance.label] = [len(caption) - len(name), len(caption)]
        start, end = spans[instance.label]
        instance.spans, instance.phrase = [[start, end]], caption[start:end]
    return caption


def readable_name(name: str) -> str:
    """A class name as words: no underscores, no explanation in brackets (``bow_(weapon)``)."""
    words, depth = "", 0
    for character in name.replace("_", " "):
        depth += character == "("
        words += "" if depth else character
        depth -= character == ")" and depth > 0
    return " ".join(words.split()) or name


def detection_row(sample: Sample, kept: list[Instance]) -> tuple[dict[str, Any], list[Instance]]:
    """The detection form, and the instances in its order."""
    instances = [
        {"bbox": instance.bbox, "label": instance.label, "category": instance.phrase}
        | _segmentation(instance)
        for instance in kept
    ]
    return _row(sample, {"detection": {"instances": instances}}), kept


def _segmentation(instance: Instance) -> dict[str, Any]:
    return {} if instance.mask is None else {"segmentation": instance.mask}


def _row(sample: Sample, form: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {"filename": sample.filename}
    if sample.width is not None and sample.height is not None:
        row |= {"height": sample.height, "width": sample.width}
    return row | form | sample.fields


def write_coco(source: Source, out: Path, ledger: Ledger) -> int:
    """Write one COCO document; free phrases become categories in the order they are met.

    Ids and other fields of a COCO source are restored, otherwise ids count from 1.

    Returns:
        The number of images.
    """
    writer = _CocoWriter(source)
    with whole_file(out) as file, tempfile.TemporaryFile(dir=out.parent) as annotations:
        header = {key: value for key, value in source.header.items() if key != "categories"}
        file.write(orjson.dumps(header)[:-1] + (b"," if header else b"") + b'"images":[')
        for sample in source.samples:
            file.write(b",\n" if writer.images else b"\n")
            file.write(orjson.dumps(writer.image(sample)))
            for instance in sample.instances:
                annotations.write(b",\n" if writer.annotations else b"\n")
                annotations.write(orjson.dumps(writer.annotation(instance, sample)))
        file.write(b'],\n"annotations":[')
        annotations.seek(0)
        shutil.copyfileobj(annotations, file)
        file.write(b'],\n"categories":' + orjson.dumps(writer.categories()) + b"}\n")
    if writer.phrases:
        ledger.note(f"{len(writer.phrases)} categories made from phrases", str(out))
    return writer.images


class _CocoWriter:
    """Gives ids where the source has none and counts what was written."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.images = 0
        self.annotations = 0
        self.image_id: Any = None
        self.phrases: dict[str, int] = {}
        self.restores_ids = source.categories is None and "categories" in source.header

    def image(self, sample: Sample) -> dict[str, Any]:
        self.images += 1
        self.image_id = sample.extra.get("id", self.images)
        image = {"id": self.image_id, "file_name": sample.filename}
        if sample.width is not None and sample.height is not None:
            image |= {"width": sample.width, "height": sample.height}
        if sample.caption is not None and self.source.categories is None:
            image["caption"] = sample.caption
        image |= sample.fields | sample.extra
        if image["file_name"] is None:
            del image["file_name"]
        return image

    def annotation(self, instance: Instance, sample: Sample) -> dict[str, Any]:
        self.annotations += 1
        box = xywh(instance.bbox)
        annotation: dict[str, Any] = {"image_id": self.image_id, "bbox": box}
        annotation |= _segmentation(instance)
        if "id" not in instance.extra:
            annotation |= {
                "id": self.annotations,
                "area": box[2] * box[3],
                "iscrowd": int(instance.ignored),
            }
        if sample.caption is not None and self.source.categories is None:
            annotation["tokens_positive"] = instance.spans
        if not self.restores_ids:
            annotation["category_id"] = self._category_id(instance)
        return annotation | instance.extra

    def _category_id(self, instance: Instance) -> Any:
        if self.source.categories is not None:
            if instance.label is None:
                raise DataError(f"the phrase {instance.phrase!r} belongs to no category")
            return self.source.categories[instance.label]["id"]
        phrase = instance.phrase
        name = phrase if isinstance(phrase, str) else " ".join(phrase)
        return self.phrases.setdefault(name, len(self.phrases) + 1)

    def categories(self) -> list[dict[str, Any]]:
        if self.source.categories is not None:
            return self.source.categories
        return self.source.header.get("categories") or numbered_categories(list(self.phrases))
