"""Answers that name candidate boxes by number (ChatRex, arXiv 2411.18363, 3.2; RexSeek)."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor

from llmdet.datasets.sample import grounding_of
from llmdet.errors import DataError
from llmdet.models.language.dialogue import DialogueBatch
from llmdet.models.language.language_model import Generated, LanguageModel
from llmdet.prompts.conversation import Conversation
from llmdet.prompts.objects import (
    TEXT,
    ObjectAnswer,
    ObjectGrammar,
    Piece,
    object_mark,
    with_candidates,
)
from llmdet.registry import MODELS

from .base import Output, Scene
from .object_decoding import ObjectConstraint, ObjectTokens, live_candidates


@MODELS.register_module()
class ObjectIndex(Output):
    """Detection as retrieval: the answer names those of the candidates that are meant.

    Each candidate stands in front of the first question with its token and its features, see
    :func:`~llmdet.prompts.objects.with_candidates`. What is learned is text with these tokens; the
    score of a box is the probability of its token where the answer names it.

    Args:
        delimiters: around phrases and their objects, see :class:`ObjectGrammar`.
        count: most candidates of an image.
        constrained: answers can only name candidates that there are, each once behind a phrase, and
            close what they open; with False the model may say what it likes.
        numbered: so many times the embedding of a candidate's token is added to its features, which
            stand behind it; 0, as in released models, for not at all. A language model that looks
            at features then knows their number at once; without, it has to look at the token in
            front of them, which small ones hardly learn. Features of a random connector are
            several times as large as embeddings.
    """

    def __init__(
        self,
        delimiters: str | Sequence[str] = "ground",
        count: int = 100,
        constrained: bool = True,
        numbered: float = 0.0,
    ) -> None:
        super().__init__()
        given = delimiters if isinstance(delimiters, str) else tuple(delimiters)
        self.grammar = ObjectGrammar(given, count)  # type: ignore[arg-type]
        self.added_tokens = self.grammar.tokens
        self.most_found = count
        self.write = self.grammar
        self.constrained, self.numbered = constrained, numbered

    def introduce(self, conversation: Conversation, regions: int) -> Conversation:
        """The image and all candidates in front; marks of regions become those of candidates.

        Raises:
            DataError: there are more regions than the model has tokens for.
        """
        if regions > self.grammar.count:
            raise DataError(
                f"{regions} regions are more than the {self.grammar.count} that the model can "
                "name: give fewer, or choose them by llmdet.datasets.candidates.choose_boxes"
            )
        return with_candidates(conversation, regions)

    def mark_features(
        self, features: Mapping[str, Tensor], dialogue: DialogueBatch, lmm: LanguageModel
    ) -> Mapping[str, Tensor]:
        """Features with the embeddings of the tokens of objects that they stand behind."""
        slots = dialogue.slots.get("region")
        if not self.numbered or slots is None:
            return features
        tokens = torch.tensor(self._tokens(lmm.tokenizer).objects, device=slots.device)
        before = dialogue.input_ids.flatten()[(slots - 1).clamp(min=0)]
        is_object = torch.isin(before, tokens)[:, None]
        rows = lmm.causal_lm.get_input_embeddings()(before)
        return {**features, "region": features["region"] + self.numbered * rows * is_object}

    def constraints(
        self, lmm: LanguageModel, dialogue: DialogueBatch, options: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """A processor of logits, behind those that are given."""
        if not self.constrained:
            return {}
        tokens = self._tokens(lmm.tokenizer)
        constraint = ObjectConstraint(
            tokens, live_candidates(dialogue, tokens), options.get("max_new_tokens")
        )
        others = options.get("logits_processor") or ()
        return {"logits_processor": [*others, constraint]}

    def read(
        self, generated: Generated, tokenizer: Any, scene: Scene | None = None
    ) -> list[ObjectAnswer]:
        """One answer for each conversation.

        What the model spells letter by letter is text, also where it looks like an index.
        """
        tokens = self._tokens(tokenizer)
        rows = generated.ids.tolist(), generated.probabilities.tolist()
        live = self._live(generated, tokens)
        others = set(tokenizer.all_special_ids).difference(tokens.kinds)
        answers = []
        for candidates, ids, probabilities in zip(live, *rows, strict=True):
            end = ids.index(tokens.end) if tokens.end in ids else len(ids)
            pairs = zip(ids[:end], probabilities[:end], strict=True)
            said = [pair for pair in pairs if pair[0] not in others]
            text = tokenizer.decode([token for token, _ in said])
            pieces = self._pieces(said, tokens, tokenizer)
            answers.append(ObjectAnswer(text.strip(), self.grammar.read(pieces, candidates)))
        return answers

    def write_prediction(self, sample: DetDataSample, answers: Sequence[ObjectAnswer]) -> None:
        """As text; of a sample that asks to find regions, those that are named are the boxes.

        A box has the label of what was asked for, and as its score the probability of its index,
        or that of its detector where the sample's regions have scores.
        """
        super().write_prediction(sample, answers)
        grounding = grounding_of(sample)
        if not grounding.sought:
            return
        found: dict[tuple[int, int], float] = {}
        for sought, answer in zip(grounding.sought, answers, strict=True):
            for named in answer.phrases:
                label = sought.label_of(named.phrase)
                for index, score in zip(named.indices, named.scores, strict=True):
                    if label is not None:
                        key = index, label
                        found[key] = max(score, found.get(key, 0.0))
        indices = np.asarray([index for index, _ in found], np.int64)
        regions = grounding.regions
        scores = np.fromiter(found.values(), np.float32, len(found))
        if regions.scores is not None:
            scores = regions.scores[indices].astype(np.float32)
        sample.pred_instances = InstanceData(
            bboxes=torch.from_numpy(regions.boxes[indices]),
            scores=torch.from_numpy(scores),
            labels=torch.tensor([label for _, label in found], dtype=torch.int64),
        )

    def _live(self, generated: Generated, tokens: ObjectTokens) -> list[Container[int]]:
        """The candidates of each answer, all of the vocabulary where they are not known."""
        if generated.asked is None:
            return [range(self.grammar.count)] * len(generated.ids)
        live = live_candidates(generated.asked, tokens)
        sets = [{index for index, there in enumerate(row) if there} for row in live.tolist()]
        return [each for each in sets for _ in range(len(generated.ids) // len(sets))]

    def _tokens(self, tokenizer: Any) -> ObjectTokens:
        marks = [object_mark(index) for index in range(self.grammar.count)]
        return ObjectTokens(
            objects=tuple(tokenizer.convert_tokens_to_ids(marks)),
            delimiters=tuple(tokenizer.convert_tokens_to_ids(list(self.grammar.marks))),
            end=tokenizer.eos_token_id,
        )

    @staticmethod
    def _pieces(
        said: Sequence[tuple[int, float]], tokens: ObjectTokens, tokenizer: Any
    ) -> Iterator[Piece]:
        """Tokens and their probabilities, cut at those that are marks."""
        kinds = tokens.kinds
        for mark, run in groupby(said, key=lambda pair: pair[0] if pair[0] in kinds else None):
            if mark is None:
                yield Piece(TEXT, tokenizer.decode([token for token, _ in run]))
            else:
                for token, probability in run:
                    text = tokenizer.convert_ids_to_tokens(token)
                    yield Piece(kinds[token], text, probability)
