"""From annotations to the prompt of the detector and the answers of the language model."""

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
    draw_negatives,
    fit_labels,
    shuffled,
)
from llmdet.datasets.transforms.grounding_text import grounding_text
from llmdet.errors import DataError, naming
from llmdet.prompts.conversation import Conversation, ask_of_region
from llmdet.prompts.tokenizers import MAX_TOKENS, load_tokenizer
from llmdet.prompts.tokens import PromptTokenizer, check_labels
from llmdet.prompts.types import Classes
from llmdet.prompts.writing import write_classes, write_prompt
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
    map or list of class names; `label_map_file` where the data set gives none). A sample with
    phrases and no text is an image with a conversation alone: it gets no prompt.
    Modified keys: gt_bboxes (a float32 tensor [N, 4] xyxy), the other gt_* arrays, text (str).
    Added keys: prompt and tokenized (:mod:`llmdet.prompts.types`), tokens_positive (mmdet's form of
    them: label -> [start, end) spans of text). conversations get those about regions, each of
    which is a box of gt_bboxes by its number.

    Args:
        tokenizer_name: folder or hub id of the text encoder; a run takes it from the model, see
            :func:`~llmdet.datasets.text_encoder.share_text_encoder`.
        num_sample_negative: most random class names that are drawn for a prompt.
        max_tokens: most tokens of a prompt, special tokens included; taken from the model too.
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
        max_tokens: int = MAX_TOKENS,
        full_sampling_prob: float = 0.5,
        label_map_file: str | None = None,
        num_region_caption: int = 0,
        upstream: bool = False,
    ) -> None:
        self.tokenizer = PromptTokenizer(
            load_tokenizer(tokenizer_name, role="tokenizer_name"), max_tokens
        )
        self.num_sample_negative = num_sample_negative
        self.full_sampling_prob = full_sampling_prob
        self.num_region_caption = num_region_caption
        self.upstream = upstream
        self.dropped = SharedLedger(
            CLASS_TOO_LONG, NEGATIVE_TOO_LONG, PHRASE_CUT, PHRASE_BLANK, REGION_BLANK
        )
        self._vocabulary: Vocabulary | None = None
        if label_map_file:
            self._vocabulary = Vocabulary(read_label_map(Path(label_map_file)), upstream)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Process one sample; see the class for keys.

        Raises:
            DataError: a box has a label without words; names the image.
        """
        with naming(results.get("img_path")):
            if "expressions" in results:
                raise DataError(
                    "the row has the field 'pairs': its expressions are sampled by the transform "
                    "SampleExpressions, in the place of RandomSamplingNegPos."
                )
            if "phrases" in results and results.get("text") is None:  # a conversation alone
                _keep_boxes(results, _not_ignored(results))
                return results
            if "phrases" in results:
                phrases = self._write_grounding_text(results)
            else:
                phrases = self._write_detection_text(results)
            if not self.upstream:  # its texts may exceed the limit
                self._tokenize(results)
        drawn = self._draw_regions(results, phrases)
        results["conversations"] = (*(results.get("conversations") or ()), *drawn)
        return results

    def _tokenize(self, results: dict[str, Any]) -> None:
        (written,) = write_prompt(results["prompt"], self.tokenizer.count, self.tokenizer.room)
        tokenized = self.tokenizer.tokenize(written)
        check_labels(results["gt_bboxes_labels"].tolist(), tokenized)
        results["tokenized"] = (tokenized,)

    def _write_grounding_text(self, results: dict[str, Any]) -> Mapping[int, Any]:
        """Returns the phrases of the labels."""
        _keep_boxes(results, _not_ignored(results))
        phrases = results["phrases"]
        labels = results["gt_bboxes_labels"]
        given = {label: phrases[label]["tokens_positive"] for label in np.unique(labels).tolist()}
        caption = results["text"].lower().strip() if self.upstream else results["text"]
        made = grounding_text(caption, given, self.tokenizer)
        for cause, lost in ((PHRASE_CUT, made.beyond_limit), (PHRASE_BLANK, made.without_token)):
            if lost:
                self.dropped.note(cause, number=int(np.isin(labels, list(lost)).sum()))
        _keep_boxes(results, np.isin(labels, list(made.spans)))
        results.update(prompt=made.prompt, text=made.text, tokens_positive=made.spans)
        return {label: phrases[label]["phrase"] for label in made.spans}

    def _write_detection_text(self, results: dict[str, Any]) -> Mapping[int, Any]:
        """Returns the class names of the new labels."""
        known = self._vocabulary_of(results).draw()
        present = np.unique(results["gt_bboxes_labels"]).tolist()
        # Classes shown by ignored boxes alone are neither positive nor negative.
        _keep_boxes(results, _not_ignored(results))
        labels = results["gt_bboxes_labels"]
        positives, negatives = self._draw_classes(np.unique(labels).tolist(), present, known)
        keep = np.isin(labels, positives)
        self.dropped.note(CLASS_TOO_LONG, number=int((~keep).sum()))
        order = [*negatives, *positives]
        random.shuffle(order)
        position = {label: place for place, label in enumerate(order)}
        _keep_boxes(results, keep)
        kept = results["gt_bboxes_labels"].tolist()
        results["gt_bboxes_labels"] = np.array([position[label] for label in kept], np.int64)
        classes = known.select(order)
        written = write_classes(classes)
        places = sorted(position[label] for label in positives)
        spans = {place: [list(span) for span in written.spans[place]] for place in places}
        results.update(prompt=classes, text=written.text, tokens_positive=spans)
        return {position[label]: known.names[label] for label in positives}

    def _draw_classes(
        self, shown: Sequence[int], present: Sequence[int], known: Classes
    ) -> tuple[list[int], list[int]]:
        """Classes of the image and other ones that fit into a prompt together."""
        # The original counts no special token and leaves one token of the limit unused.
        room = self.tokenizer.max_tokens if self.upstream else self.tokenizer.room
        positives, used = fit_labels(shuffled(shown), known, self.tokenizer, room)
        negatives = draw_negatives(
            positives if self.upstream else present,
            len(known.names),
            self.num_sample_negative,
            self.full_sampling_prob,
            self.upstream,
        )
        positives = shuffled(positives)
        random.shuffle(negatives)
        free = room - used - int(self.upstream)
        fitting, _ = fit_labels(negatives, known, self.tokenizer, free)
        self.dropped.note(NEGATIVE_TOO_LONG, number=len(negatives) - len(fitting))
        return positives, fitting

    def _vocabulary_of(self, results: Mapping[str, Any]) -> Vocabulary:
        given = results.get("text")
        if given is None:
            if self._vocabulary is None:
                raise DataError(
                    "no class names; give the data set or RandomSamplingNegPos a label_map_file."
                )
            return self._vocabulary
        if isinstance(given, str):
            raise DataError(
                f"the text {given!r} has no phrases to be grounded and is no list of class names."
            )
        source = None if self._vocabulary is None else self._vocabulary.source
        if self._vocabulary is None or (source is not given and source != given):
            self._vocabulary = Vocabulary(given, self.upstream)
        return self._vocabulary

    def _draw_regions(
        self, results: Mapping[str, Any], phrases: Mapping[int, str | Sequence[str]]
    ) -> list[Conversation]:
        """Choose boxes at random, and one phrase for each that has several."""
        if self.num_region_caption < 1:
            return []
        clean = clean_phrase_upstream if self.upstream else clean_phrase
        labels = results["gt_bboxes_labels"]
        conversations = []
        for index in torch.randperm(len(labels))[: self.num_region_caption].tolist():
            phrase = phrases[int(labels[index])]
            answer = clean(phrase if isinstance(phrase, str) else random.choice(phrase))
            if not answer:
                self.dropped.note(REGION_BLANK)
                continue
            conversations.append(ask_of_region(index, answer))
        return conversations


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

    The language model's text is tokenised by :class:`TokenizeConversations` as the model says, so
    `tokenizer_name2` (or `lmm_path`) and `lmm_max_token_length` are ignored with a warning.
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
