"""Rows of Real-Data: the boxes of a picture with expressions that do and do not describe them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import orjson

from llmdet.data_engines.real_lod import REFINED
from llmdet.data_engines.real_lod_records import read_records, read_sample
from llmdet.prompts.expressions import clean_expression
from llmdet.utils.whole_files import whole_file

#: Expressions that are held in memory to draw negative ones from.
_POOL = 100_000
_TRIES = 10  # draws for each negative expression that is wanted
_SINGLE, _MULTI = "single", "multi"

#: Class of an expression's object, and the expression.
_Named = tuple[str, str]


def write_real_data(records: Path, out: Path, negatives: int = 50, seed: int = 0) -> int:
    """Write records as rows of Real-Data, one for each picture.

    Negative expressions are those of objects in other pictures, of classes that the picture has
    not; what is true of the picture is never one.

    Args:
        records: of the agent, or for it; those of a picture follow one another.
        out: the JSONL file to write.
        negatives: of each pair, at most.
        seed: draws them.

    Returns:
        The number of rows.
    """
    pool = _draw_pool(records, seed)
    count = 0
    with whole_file(out) as file:
        contents = (record for _, record in read_records(records))
        for picture, group in groupby(contents, key=lambda record: record["image_path"]):
            generator = random.Random(f"{seed}/{picture}")
            row = _row(list(group), pool, negatives, generator)
            file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
            count += 1
    return count


def _expression(record: Mapping[str, Any]) -> str:
    return clean_expression(record.get(REFINED) or record["raw_expression"].strip("'\" "))


def _draw_pool(records: Path, seed: int) -> list[_Named]:
    """A uniform sample of all expressions (reservoir sampling, algorithm R)."""
    generator = random.Random(f"{seed}/pool")
    pool: list[_Named] = []
    for number, (where, record) in enumerate(read_records(records)):
        named = read_sample(record, where).category, _expression(record)
        if number < _POOL:
            pool.append(named)
        elif (place := generator.randrange(number + 1)) < _POOL:
            pool[place] = named
    return pool


def _row(
    records: list[Mapping[str, Any]],
    pool: list[_Named],
    negatives: int,
    generator: random.Random,
) -> dict[str, Any]:
    first = records[0]
    pairs: dict[str, dict[str, dict[str, Any]]] = {}
    classes: set[str] = set()
    for record in records:
        locations = record["object_locations"]
        chosen = locations["chosen_object"]
        entries = chosen if isinstance(chosen, list) else [chosen]
        classes.update(one["category"] for one in (*entries, *locations["other_objects"]))
        boxes = [_corners(one["bbox"]) for one in entries]
        pair = pairs.setdefault(record.get("source", "llm"), {}).setdefault(
            repr(boxes),
            {
                "bboxes": boxes,
                "category": entries[0]["category"],
                "relation": _SINGLE if len(entries) == 1 else _MULTI,
                "positive_expressions": [],
            },
        )
        text = _expression(record)
        if text not in pair["positive_expressions"]:
            pair["positive_expressions"].append(text)
    truths = {_expression(record) for record in records}
    for pair in (pair for of_source in pairs.values() for pair in of_source.values()):
        pair["negative_expressions"] = list(_negatives(pool, classes, truths, negatives, generator))
    return {
        "filename": first["image_path"],
        "height": first["height"],
        "width": first["width"],
        "pairs": {source: list(of_source.values()) for source, of_source in pairs.items()},
    }


def _negatives(
    pool: list[_Named],
    classes: Iterable[str],
    truths: Iterable[str],
    count: int,
    generator: random.Random,
) -> Iterator[str]:
    """Different expressions of other classes, as many as are found in some tries for each."""
    present, taken = set(classes), set(truths)
    for _ in range(_TRIES * count if pool else 0):
        category, text = generator.choice(pool)
        if text not in taken and not present & set(category.split(", ")):
            taken.add(text)
            yield text
            count -= 1
            if not count:
                return


def _corners(box: list[float]) -> list[float]:
    x, y, width, height = box
    return [x, y, x + width, y + height]
