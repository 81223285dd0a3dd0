"""Metrics of masks that were said, as functions of two paths, as those of ``runners``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmdet.evaluation import caption, gcg, res
from llmdet.evaluation.completeness import check_complete
from llmdet.evaluation.loading import Source, load_gcg, load_res
from llmdet.evaluation.phrase_similarity import encode_phrases
from llmdet.evaluation.res_rows import load_row_masks, read_row_masks
from llmdet.utils.files import read_json

Values = dict[str, Any]


def run_gcg(
    gt: Path,
    pred: Source,
    *,
    embeddings: Path | None = None,
    text_encoder: str | None = None,
    captions: bool = True,
    partial: bool = False,
) -> Values:
    """GLaMM's grounded conversation generation: mask AP, mIoU, recall, captions.

    ``strict`` are mIoU with masks that have no partner as 0, and recall that goes on behind a
    pair that fails. Options: ``text_encoder=bert-base-uncased`` (a folder, or a name of the hub)
    compares phrases, or ``embeddings=FILE`` with a vector per phrase; without either there is no
    recall; ``captions=false`` leaves out the caption metrics, which need Java.
    """
    truth, predictions = gcg.read_gcg(gt), load_gcg(pred)
    if isinstance(pred, Path):
        others = "the others count as saying nothing"
        check_complete(pred, predictions, truth.phrases, partial=partial, others=others)
    for image in truth.phrases:
        predictions.setdefault(image, gcg.GCGPrediction("", [], []))
    values: Values = {
        "mask_AP": gcg.mask_ap(truth, predictions),
        "mIoU": gcg.mask_miou(truth, predictions),
    }
    strict: Values = {"mIoU": gcg.mask_miou(truth, predictions, unpaired="zero")}
    if captions:
        texts = {image: predictions[image].caption for image in truth.phrases}
        values["caption"] = caption.caption_scores(truth.captions, texts)
    similarity = _similarity(truth, predictions, embeddings, text_encoder)
    if similarity is not None:
        values |= gcg.mask_recall(truth, predictions, similarity)
        found = gcg.mask_recall(truth, predictions, similarity, recall="continue")
        strict["mask_recall"] = found["mask_recall"]
    return {**values, "strict": strict}


def run_res(
    gt: Path, pred: Source | None = None, *, empty: res.Empty = "one", partial: bool = False
) -> Values:
    """Referring segmentation gIoU and cIoU.

    GT is JSON of images with masks of expressions, which holds both masks where there is no
    ``--pred``; or JSONL of conversations whose answers have masks, and predictions are
    rows by question: all masks of an answer are one, an answer without any is empty.
    Options: ``empty=zero`` counts an empty prediction where nothing answers as 0 (mmdet).
    """
    if pred is None or not gt.name.removesuffix(".gz").endswith(".jsonl"):
        return dict(res.res_scores(load_res(read_json(gt), pred), empty=empty))
    questions = read_row_masks(gt)
    said = load_row_masks(pred)
    if isinstance(pred, Path):
        others = "the others count as answers without a mask"
        wanted = [question.id for question in questions]
        check_complete(pred, said, wanted, partial=partial, what="questions", others=others)
    images = [question.compared(said.get(question.id, ())) for question in questions]
    silent = sum(question.has_target and not said.get(question.id) for question in questions)
    return {**res.res_scores(images, empty=empty), "without_mask": silent / len(questions)}


def _similarity(
    truth: gcg.GCGTruth,
    predictions: Mapping[int, gcg.GCGPrediction],
    embeddings: Path | None,
    text_encoder: str | None,
) -> gcg.Similarity | None:
    if embeddings is not None:
        return gcg.embedding_similarity(read_json(embeddings))
    if text_encoder is None:
        return None
    said = {phrase for each in predictions.values() for phrase in each.phrases}
    wanted = {phrase for phrases in truth.phrases.values() for phrase in phrases}
    return gcg.embedding_similarity(encode_phrases(sorted(said | wanted), text_encoder))
