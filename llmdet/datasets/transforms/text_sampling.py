"""From annotations to what the detector is asked and what the language model should answer."""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet.structures.bbox import get_box_tensor

from llmdet.datasets.captions import clean_phrase, clean_phrase_upstream
from llmdet.datasets.formats.rows import read_label_map
from llmdet.datasets.ledger import SharedLedger
from llmdet.datasets.transforms.detection_text import (
    Vocabulary,
    choose_positives,
    draw_negatives,
    fit_negatives,
    join_names,
)
from llmdet.datasets.transforms.grounding_text import grounding_text
from llmdet.datasets.transforms.tokens import TokenCounter, load_tokenizer
from llmdet.errors import DataError
from llmdet.registry import TRANSFORMS

logger = logging.getLogger(__name__)

CLASS_TOO_LONG = "box of a class that exceeds the token limit"
NEGATIVE_TOO_LONG = "negative class that exceeds the token limit"
PHRASE_CUT = "box of a phrase that exceeds the token limit"
PHRASE_BLANK = "box of a phrase that has no word in the caption"
REGION_BLANK = "region phrase without a word"


@TRANSFORMS.register_module()
class RandomSamplingNegPos(BaseTransform):
    """Write the text prompt of a training sample and choose the regions to be described.

    Grounding form (the sample has `phrases`): the prompt is the caption. Detection form: the
    prompt lists the classes in the image among `num_sample_negative` or fewer random other ones,
    in random order, and the labels become positions in that list. Prompts never exceed
    `max_tokens`; boxes whose class or phrase does not fit are removed, and everything left out is
    counted in `dropped`. Ignored (crowd) boxes are removed too. Random numbers come from
    `random`, `numpy.random` and `torch`, all of which data loader workers seed.

    Required keys: gt_bboxes, gt_bboxes_labels; phrases and text (grounding form) or text (label
    map or list of class names; `label_map_file` where the data set gives none).
    Modified keys: gt_bboxes (a float32 tensor [N, 4] xyxy), the other gt_* arrays, text (str).
    Added keys: tokens_positive (label -> [start, end) spans of text) and region_captions
    (dict(box_index, answers); None without regions).

    Args:
        tokenizer_name: folder or hub id of the text encoder.
        num_sample_negative: most random class names that are drawn for a prompt.
        max_tokens: most tokens of a prompt, special tokens included.
        full_sampling_prob: probability of drawing all `num_sample_negative`.
        label_map_file: json {"0": name, ...}.
        num_region_caption: most regions per image to be described by the language model.
        upstream: reproduce text and random draws of the original program, faults included: names
            with stray blanks, special tokens not counted, the order of a Python set (equal to the
            original's under the same PYTHONHASHSEED), an unused draw, its phrase cleaning. Two
            faults are not: regions are drawn after boxes were removed, and a region of the
            detection form is described by its class, not as "object".

    Raises:
        ConfigError: the tokenizer cannot be loaded.
    """

    def __init__(
        self,
        tokenizer_name: str,
        num_sample_negative: int = 85,
        max_tokens: int = 256,
        full_sampling_prob: float = 0.5,
        label_map_file: str | None = None,
        num_region_caption: int = 0,
        upstream: bool = False,
    ) -> None:
        self.tokenizer = load_tokenizer(tokenizer_name)
        self.num_sample_negative = num_sample_negative
        self.max_tokens = max_tokens
        self.full_sampling_prob = full_sampling_prob
        self.num_region_caption = num_region_caption
        self.upstream = upstream
        self.dropped = SharedLedger(
            CLASS_TOO_LONG, NEGATIVE_TOO_LONG, PHRASE_CUT, PHRASE_BLANK, REGION_BLANK
        )
        self._count_tokens = TokenCounter(self.tokenizer)
        self._vocabulary: Vocabulary | None = None
        if label_map_file:
            self._vocabulary = Vocabulary(read_label_map(Path(label_map_file)), upstream)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Process one sample; see the class for keys."""
        if "phrases" in results:
            phrases = self._write_grounding_text(results)
        else:
            phrases = self._write_detection_text(results)
        results["region_captions"] = self._draw_regions(results, phrases)
        return results

    def _write_grounding_text(self, results: dict[str, Any]) -> Mapping[int, Any]:
        """Returns the phrases of the labels."""
        _keep_boxes(results, _not_ignored(results))
        phrases = results["phrases"]
        labels = results["gt_bboxes_labels"]
        given = {label: phrases[label]["tokens_positive"] for label in np.unique(labels).tolist()}
        prompt = grounding_text(results["text"], given, self.tokenizer, self.max_tokens)
        for cause, lost in (
            (PHRASE_CUT, prompt.beyond_limit),
            (PHRASE_BLANK, prompt.without_token),
        ):
            if lost:
                self.dropped.note(cause, number=int(np.isin(labels, list(lost)).sum()))
        _keep_boxes(results, np.isin(labels, list(prompt.spans)))
        results["text"] = prompt.text
        results["tokens_positive"] = prompt.spans
        return {label: phrases[label]["phrase"] for label in prompt.spans}

    def _write_detection_text(self, results: dict[str, Any]) -> Mapping[int, Any]:
        """Returns the class names of the new labels."""
        names = self._vocabulary_of(results).draw()
        present = np.unique(results["gt_bboxes_labels"]).tolist()
        # Classes shown by ignored boxes alone are neither positive nor negative.
        _keep_boxes(results, _not_ignored(results))
        labels = results["gt_bboxes_labels"]
        budget = self.max_tokens
        if not self.upstream:
            budget -= self._count_tokens.special_tokens
        shown, used = choose_positives(
            np.unique(labels).tolist(), names, self._count_tokens, budget
        )
        keep = np.isin(labels, shown)
        self.dropped.note(CLASS_TOO_LONG, number=int((~keep).sum()))
        negatives = draw_negatives(
            shown if self.upstream else present,
            len(names),
            self.num_sample_negative,
            self.full_sampling_prob,
            self.upstream,
        )
        shown.sort()
        random.shuffle(shown)
        random.shuffle(negatives)
        # The original leaves one token of the limit unused.
        free = budget - used - int(self.upstream)
        fitting = fit_negatives(negatives, names, self._count_tokens, free)
        self.dropped.note(NEGATIVE_TOO_LONG, number=len(negatives) - len(fitting))
        prompt = join_names(shown, fitting, names)
        _keep_boxes(results, keep)
        kept = results["gt_bboxes_labels"].tolist()
        results["gt_bboxes_labels"] = np.array([prompt.positions[i] for i in kept], np.int64)
        results["text"] = prompt.text
        results["tokens_positive"] = prompt.spans
        return {position: names[label] for label, position in prompt.positions.items()}

    def _vocabulary_of(self, results: Mapping[str, Any]) -> Vocabulary:
        given = results.get("text")
        if given is None:
            if self._vocabulary is None:
                raise DataError(
                    f"{results.get('img_path')}: no class names; give the data set or "
                    "RandomSamplingNegPos a label_map_file."
                )
            return self._vocabulary
        if isinstance(given, str):
            raise DataError(
                f"{results.get('img_path')}: the text {given!r} has no phrases to be grounded and "
                "is no list of class names."
            )
        if self._vocabulary is None or self._vocabulary.source is not given:
            self._vocabulary = Vocabulary(given, self.upstream)
        return self._vocabulary

    def _draw_regions(
        self, results: Mapping[str, Any], phrases: Mapping[int, str | Sequence[str]]
    ) -> dict[str, list[Any]] | None:
        """Choose boxes at random, and one phrase for each that has several."""
        if self.num_region_caption < 1:
            return None
        clean = clean_phrase_upstream if self.upstream else clean_phrase
        labels = results["gt_bboxes_labels"]
        chosen, answers = [], []
        for index in torch.randperm(len(labels))[: self.num_region_caption].tolist():
            phrase = phrases[int(labels[index])]
            answer = clean(phrase if isinstance(phrase, str) else random.choice(phrase))
            if not answer:
                self.dropped.note(REGION_BLANK)
                continue
            chosen.append(index)
            answers.append(answer)
        return {"box_index": chosen, "answers": answers} if chosen else None


def _not_ignored(results: Mapping[str, Any]) -> np.ndarray:
    if "gt_ignore_flags" in results:
        return results["gt_ignore_flags"] == 0
    return np.ones(len(results["gt_bboxes_labels"]), dtype=bool)


def _keep_boxes(results: dict[str, Any], keep: np.ndarray) -> None:
    """Keep the boxes of a mask [N] bool in every gt_* array, and make the boxes a tensor."""
    index = torch.from_numpy(keep)
    results["gt_bboxes"] = get_box_tensor(results["gt_bboxes"])[index]
    for key in ("gt_bboxes_labels", "gt_ignore_flags", "gt_masks"):
        if key in results:
            results[key] = results[key][keep]


@TRANSFORMS.register_module()
class RandomSamplingNegPos2(RandomSamplingNegPos):
    """:class:`RandomSamplingNegPos` under the name and with the arguments of the original LLMDet.

    The language model's text is tokenised by the model, so `tokenizer_name2` (or `lmm_path`) and
    `lmm_max_token_length` are ignored with a warning.
    """

    def __init__(
        self,
        tokenizer_name: str,
        tokenizer_name2: str | None = None,
        lmm_path: str | None = None,
        lmm_max_token_length: int | None = None,
        **kwargs: Any,
    ) -> None:
        ignored = {
            "tokenizer_name2": tokenizer_name2,
            "lmm_path": lmm_path,
            "lmm_max_token_length": lmm_max_token_length,
        }
        given = [name for name, value in ignored.items() if value is not None]
        if given:
            logger.warning(
                "RandomSamplingNegPos2 ignores %s: set tokenizer and length of the language "
                "model in model.lmm.",
                " and ".join(given),
            )
        super().__init__(tokenizer_name, **kwargs)
