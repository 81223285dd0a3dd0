"""From boxes with expressions to the prompt of the detector."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet.structures.bbox import get_box_tensor

from llmdet.datasets.expressions import ExpressionPair
from llmdet.datasets.ledger import SharedLedger
from llmdet.datasets.transforms.expression_text import (
    DrawnPairs,
    draw_negative_expressions,
    draw_pairs,
    fit_expressions,
    label_boxes,
    read_choices,
)
from llmdet.errors import ConfigError, DataError, naming
from llmdet.prompts.expressions import clean_expression, mirror_expression
from llmdet.prompts.tokenizers import MAX_TOKENS, load_tokenizer
from llmdet.prompts.tokens import PromptTokenizer, check_labels
from llmdet.prompts.types import Classes, Spans
from llmdet.prompts.writing import write_classes, write_prompt
from llmdet.registry import TRANSFORMS

EXPRESSION_TOO_LONG = "expression that exceeds the token limit"
NEGATIVE_PASSED_OVER = "negative expression that exceeds the token limit"
NOTHING_TO_SAY = "image without an expression"

#: How often each source describes an image. Source: Real-LOD's training configuration.
SHARES = {"category": 0.5, "vlm_short": 0.2, "llm": 0.2, "vlm_long": 0.1}


@TRANSFORMS.register_module()
class SampleExpressions(BaseTransform):
    """Write the text prompt of a training sample whose boxes are described by expressions.

    One source of expressions is drawn for an image out of those that it has. Each pair of this
    source that still has a box gives `num_positive` expressions or fewer, and the negative
    expressions of these pairs fill the prompt up, in random order among them. Prompts never
    exceed `max_tokens`: an expression that does not fit is passed over and the next one is tried;
    what is passed over is counted in `dropped`. A box that several expressions describe has one
    label, which stands for all of them. Random numbers come from `random`, which the training
    loop seeds for each sample.

    Required keys: expressions (tuple of ``ExpressionPair``), gt_bboxes, and gt_bboxes_labels,
    which are numbers of pairs. flip and flip_direction are read where they are.
    Modified keys: gt_bboxes (a float32 tensor [N, 4] xyxy), the other gt_* arrays.
    Added keys: text (str), prompt and tokenized (:mod:`llmdet.prompts.types`), tokens_positive
    (label -> [start, end) spans of text).

    Args:
        tokenizer_name: folder or hub id of the text encoder; a run takes it from the model, see
            :func:`~llmdet.datasets.text_encoder.share_text_encoder`.
        shares: how often a source is drawn, "category" being the names of the classes. Behind its
            name "/single" or "/multi" takes only expressions of one box, or of several.
        num_positive: most expressions that are drawn of each pair.
        num_negative: most negative expressions of a prompt.
        max_tokens: most tokens of a prompt, special tokens included; taken from the model too.
        mirror_words: left and right change places in the expressions of a picture that was
            flipped.

    Raises:
        ConfigError: the tokenizer cannot be loaded, or a setting has no such value.
    """

    def __init__(
        self,
        tokenizer_name: str,
        shares: Mapping[str, float] = SHARES,
        num_positive: int = 1,
        num_negative: int = 85,
        max_tokens: int = MAX_TOKENS,
        mirror_words: bool = True,
    ) -> None:
        if num_positive < 1 or num_negative < 0:
            raise ConfigError(
                f"SampleExpressions: num_positive={num_positive} and num_negative={num_negative}; "
                "a prompt has at least 1 expression of each pair, and 0 or more negative ones"
            )
        self.tokenizer = PromptTokenizer(
            load_tokenizer(tokenizer_name, role="tokenizer_name"), max_tokens
        )
        self.choices = read_choices(shares)
        self.num_positive, self.num_negative = num_positive, num_negative
        self.mirror_words = mirror_words
        self.dropped = SharedLedger(EXPRESSION_TOO_LONG, NEGATIVE_PASSED_OVER, NOTHING_TO_SAY)

    def transform(self, results: dict[str, Any]) -> dict[str, Any] | None:
        """Process one sample; see the class for keys. None where there is nothing to say of it.

        Raises:
            DataError: the sample has no expressions; names the image.
        """
        with naming(results.get("img_path")):
            if "expressions" not in results:
                raise DataError(
                    "there are no expressions: SampleExpressions needs rows with the field 'pairs'."
                )
            return self._write(results)

    def _write(self, results: dict[str, Any]) -> dict[str, Any] | None:
        pairs: Sequence[ExpressionPair] = results["expressions"]
        labels = np.asarray(results["gt_bboxes_labels"])
        seen = np.asarray(results.get("gt_ignore_flags", np.zeros(len(labels)))) == 0
        drawn = draw_pairs(self.choices, pairs, set(labels[seen].tolist()))
        clean = self._cleaner(results)
        said = self._positives(pairs, drawn, clean)
        negatives = draw_negative_expressions(pairs, drawn, clean)
        texts = dict.fromkeys(text for of_pair in said.values() for text in of_pair)
        positives, order = self._fit(list(texts), negatives)
        if not order:
            self.dropped.note(NOTHING_TO_SAY)
            return None
        place = {text: number for number, text in enumerate(order)}
        of_pair = {n: {place[t] for t in its if t in positives} for n, its in said.items()}
        boxes = get_box_tensor(results["gt_bboxes"])
        places = [
            of_pair.get(label, set()) if unignored else set()
            for label, unignored in zip(labels.tolist(), seen.tolist(), strict=True)
        ]
        kept, numbers, described = label_boxes(boxes.tolist(), places)
        results["gt_bboxes"] = boxes[torch.tensor(kept, dtype=torch.int64)]
        results["gt_bboxes_labels"] = np.asarray(numbers, np.int64)
        if "gt_ignore_flags" in results:
            results["gt_ignore_flags"] = np.zeros(len(kept), bool)
        self._write_prompt(results, order, described)
        return results

    def _cleaner(self, results: Mapping[str, Any]) -> Callable[[str], str]:
        sideways = results.get("flip_direction") in ("horizontal", "diagonal")
        if not (self.mirror_words and results.get("flip") and sideways):
            return clean_expression
        return lambda text: mirror_expression(clean_expression(text))

    def _positives(
        self, pairs: Sequence[ExpressionPair], drawn: DrawnPairs, clean: Callable[[str], str]
    ) -> dict[int, list[str]]:
        """Number of each drawn pair -> its expressions."""
        said = {}
        for number in drawn.numbers:
            texts = map(clean, drawn.positives(pairs[number], self.num_positive))
            said[number] = [text for text in texts if text]
        return said

    def _fit(self, positives: list[str], negatives: list[str]) -> tuple[set[str], list[str]]:
        """The positive expressions that fit, and all expressions of the prompt in its order."""
        room = self.tokenizer.room
        fitting, used, passed = fit_expressions(positives, self.tokenizer, room)
        self.dropped.note(EXPRESSION_TOO_LONG, number=passed)
        others, _, passed = fit_expressions(
            negatives, self.tokenizer, room - used, self.num_negative
        )
        self.dropped.note(NEGATIVE_PASSED_OVER, number=passed)
        order = [*fitting, *others]
        random.shuffle(order)
        return set(fitting), order

    def _write_prompt(
        self, results: dict[str, Any], order: Sequence[str], described: Sequence[Sequence[int]]
    ) -> None:
        written = write_classes(Classes(tuple(order)))
        spans = [tuple(written.spans[place][0] for place in places) for places in described]
        prompt = Spans(written.text, tuple(spans))
        (text,) = write_prompt(prompt, self.tokenizer.count, self.tokenizer.room)
        tokenized = self.tokenizer.tokenize(text)
        check_labels(results["gt_bboxes_labels"].tolist(), tokenized)
        tokens_positive = {label: [list(span) for span in of] for label, of in enumerate(spans)}
        results.update(
            prompt=prompt,
            text=written.text,
            tokenized=(tokenized,),
            tokens_positive=tokens_positive,
        )
