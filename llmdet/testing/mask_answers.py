"""What is right in answers with masks, of questions whose truth is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

import numpy as np

from llmdet.datasets.masks import decode_mask
from llmdet.models.outputs.mask import MaskAnswer
from llmdet.models.systems.region_lmm import without_answer
from llmdet.prompts.conversation import Turn
from llmdet.prompts.masks import marked_regions
from llmdet.prompts.objects import ObjectAnswer, ObjectGrammar
from llmdet.testing.kept_training import Pool, sample_of

#: How regions of questions are shown: as boxes, which are object queries where the detector found
#: them; as boxes that no query may stand for; with their masks.
GIVEN_AS = ("as given", "as RoI", "as mask")
_OVERLAP = 0.5  # IoU from which a mask is found


def ask(model: Any, pools: Mapping[str, Pool], given_as: Sequence[str]) -> list[dict[str, Any]]:
    """The questions about the images of each split, each with what is right in its answer.

    Args:
        model: a ``RegionLMM`` whose regions are ``AnyRegion``.
        pools: of each split, rows of :func:`llmdet.datasets.toy.masks.question_rows`.
        given_as: of GIVEN_AS, each of which questions with regions are asked with.
    """
    asked = []
    for split, pool in pools.items():
        for given in given_as:
            rows = [row for row in pool.rows if given == given_as[0] or "<region" in _question(row)]
            for start in range(0, len(rows), 64):
                part = rows[start : start + 64]
                for row, answer in zip(part, _answers(model, pool, part, given), strict=True):
                    about = {"split": split, "given": given, "question": _question(row)}
                    about |= {"task": row["task"], "unseen": row["unseen"], "said": str(answer)}
                    asked.append(about | judge(row, answer))
    return asked


def _answers(model: Any, pool: Pool, rows: Sequence[Mapping[str, Any]], given: str) -> list[Any]:
    samples, opened = [], []
    for row in rows:
        # Masks are what is asked for, and would be seen where they are not to be.
        kept = {} if given == "as mask" else {"regions": [_box(each) for each in row["regions"]]}
        samples.append(sample_of({**row, **kept}))
        opened.append([without_answer(each) for each in samples[-1].grounding.conversations])
    encoder = model.filler.encoders["region"]
    overlap, encoder.overlap = encoder.overlap, 2.0 if given == "as RoI" else encoder.overlap
    answers = model.answer(pool.look(rows), samples, opened)
    encoder.overlap = overlap
    return [answer for (answer,) in answers]


def _box(region: Mapping[str, Any]) -> dict[str, Any]:
    return {"bbox": region["bbox"]}


def _question(row: Mapping[str, Any]) -> str:
    return row["conversations"][0]["value"]


def judge(row: Mapping[str, Any], answer: Any) -> dict[str, Any]:
    """What is right in an answer about the toy set: pixels of masks, words, indices.

    Args:
        row: of :func:`llmdet.datasets.toy.masks.question_rows`.
        answer: of a model with ``ObjectIndex`` and ``Mask`` among its outputs.

    Returns:
        Of a caption, what :func:`match_masks` gives. Else "inside" and "union" in pixels and
        whether the "mask" has an IoU of 0.5, where one is asked for; whether "text" and "index"
        are right, where they are.
    """
    size = row["height"], row["width"]
    true = row["conversations"][1]["value"]
    masks = answer.part(MaskAnswer)
    found = [decode_mask(mask, size) for mask in masks.masks]
    wanted = [
        decode_mask(row["regions"][number]["segmentation"], size)
        for number in marked_regions([Turn("assistant", true, learned=True)])
    ]
    if row["task"] == "caption":
        phrases = [part.split("</p>")[0] for part in true.split("<p>")[1:]]
        return match_masks(found, masks.said.phrases, wanted, phrases)
    right: dict[str, Any] = {}
    if wanted:
        inside, union = 0, int(wanted[0].sum())
        if found:
            inside, union = int((found[0] & wanted[0]).sum()), int((found[0] | wanted[0]).sum())
        right |= {"inside": inside, "union": union, "mask": inside >= _OVERLAP * union}
    if row["task"] == "name":
        right["text"] = str(answer) == true
    if row["task"] in ("find", "relate"):
        named = [(each.phrase, each.indices) for each in answer.part(ObjectAnswer).phrases]
        (expected,) = ObjectGrammar().parse(true).phrases
        right["index"] = [indices for _, indices in named] == [expected.indices]
        right["text"] = [phrase for phrase, _ in named] == [expected.phrase]
    return right


def match_masks(
    found: Sequence[np.ndarray],
    said: Sequence[str],
    wanted: Sequence[np.ndarray],
    true: Sequence[str],
) -> dict[str, Any]:
    """Pairs of masks of a caption and of objects, the best first, as GLaMM's evaluation has them.

    Args:
        found: N masks [h, w] bool of a caption.
        said: N, their phrases.
        wanted: M masks of objects.
        true: M, what they are.

    Returns:
        "ious" of the pairs, how many of IoU 0.5 are "named" rightly, how many are "wanted".
    """
    pairs = sorted(
        (
            (float((mine & theirs).sum() / (mine | theirs).sum()), n, m)
            for n, mine in enumerate(found)
            for m, theirs in enumerate(wanted)
        ),
        reverse=True,
    )
    used: set[tuple[str, int]] = set()
    ious, named = [], 0
    for overlap, n, m in pairs:
        if overlap > 0 and not used & {("found", n), ("wanted", m)}:
            used |= {("found", n), ("wanted", m)}
            ious.append(overlap)
            named += overlap >= _OVERLAP and said[n] == true[m]
    return {"ious": ious, "named": named, "wanted": len(wanted), "found": len(found)}


def shares(asked: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """What a model's answers come to, in 0..1; 0 of what was not asked.

    Args:
        asked: what :func:`judge` gave for each question, with its "task", "split", whether it is
            "unseen", and as which of GIVEN_AS its regions were "given".
    """
    scores: dict[str, float] = {}
    given = [each for each in asked if each["given"] == "as given"]

    def pixels(task: str, unseen: bool, rows: Sequence[Mapping[str, Any]] = given) -> float:
        of = [each for each in rows if each["task"] == task and each["unseen"] == unseen]
        return sum(each["inside"] for each in of) / max(1, sum(each["union"] for each in of))

    captions = [e for e in given if e["task"] == "caption" and e["split"] == "val_seen"]
    objects = max(1, sum(each["wanted"] for each in captions))
    scores["refer seen"], scores["refer unseen"] = pixels("refer", False), pixels("refer", True)
    hits = sum(iou >= 0.5 for each in captions for iou in each["ious"])
    scores["recall"] = hits / objects
    scores["recall with phrase"] = sum(each["named"] for each in captions) / objects
    overlaps = [mean(each["ious"]) if each["ious"] else 0.0 for each in captions]
    scores["mIoU"] = mean(overlaps) if overlaps else 0.0
    scores["index"] = pixels("index", False)
    for kind in GIVEN_AS:
        rows = [each for each in asked if each["given"] == kind]
        for unseen in (False, True):
            label = f"{kind}, {'unseen' if unseen else 'seen'}"
            scores[f"mask by index {label}"] = pixels("index", unseen, rows)
            for column, task, keys in (
                ("name", "name", ("text",)),
                ("index by name", "find", ("index",)),
                ("left, right, above, below", "relate", ("index", "mask")),
            ):
                of = [each for each in rows if each["task"] == task and each["unseen"] == unseen]
                right = [all(each[key] for key in keys) for each in of]
                scores[f"{column} {label}"] = mean(right) if right else 0.0
    return scores
