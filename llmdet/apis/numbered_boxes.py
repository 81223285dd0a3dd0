"""Objects found by any model that sees and talks: candidate boxes stand numbered in the picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image

from llmdet.apis.captions import check_inside
from llmdet.apis.found_objects import (
    FoundObjects,
    ShownCandidates,
    check_wording,
    nothing_to_choose,
    read_one,
)
from llmdet.chat import ChatModel, ask
from llmdet.prompts.numbered_boxes import QUESTION, ask_for_numbers, read_numbers
from llmdet.visualization.drawing import draw_numbered_boxes

#: More numbers than these are hard to read in a picture, for people and models.
MOST = 40


class NumberedBoxes:
    """Asks a vision-language model which of the boxes that are drawn in a picture are meant.

    Nothing is trained, and nothing of the model need be known but that it answers; as a rule,
    larger models do it well and small ones do not (set-of-mark prompting, Yang et al. 2023, arXiv
    2310.11441).

    Args:
        chat: the model, in this process or behind an endpoint, see :mod:`llmdet.chat`.
        most: candidates that are drawn.
        question: in the place of our own, with ``{count}`` and ``{phrase}``.
        temperature: answers are sampled at; 0 takes the likeliest.

    Raises:
        ConfigError: the question does not say what is looked for.
    """

    def __init__(
        self,
        chat: ChatModel,
        most: int = MOST,
        question: str = QUESTION,
        temperature: float = 0.0,
    ) -> None:
        check_wording(question)
        self.chat, self.most, self.question = chat, most, question
        self.temperature = temperature

    def find(
        self, image: Any, phrase: str, boxes: Any, scores: Any = None, keep: str = "score"
    ) -> FoundObjects:
        """Those of an image's candidate boxes that a phrase means; they have no scores.

        Arguments as of :meth:`llmdet.apis.RegionChat.find`.

        Raises:
            DataError: there are too many candidates, and no scores to choose by; or a box lies
                outside the image.
        """
        return self.find_each(image, [phrase], boxes, scores, keep)[0]

    def find_each(
        self,
        image: Any,
        phrases: Sequence[str],
        boxes: Any,
        scores: Any = None,
        keep: str = "score",
    ) -> list[FoundObjects]:
        """As :meth:`find` for each of several phrases, each of which is asked for by itself.

        Without candidates nothing is asked, and each phrase is absent.
        """
        picture = read_one(image)
        candidates = ShownCandidates.choose(boxes, scores, self.most, keep)
        shown = candidates.boxes[candidates.shown]
        check_inside(shown, picture)
        if not len(shown):
            return nothing_to_choose(picture, phrases)
        drawn = Image.fromarray(draw_numbered_boxes(picture.pixels(), shown))
        questions = [ask_for_numbers(phrase, len(shown), self.question) for phrase in phrases]
        requests = [ask(each, drawn, temperature=self.temperature) for each in questions]
        step = self.chat.pace.batch_size * self.chat.pace.concurrency
        found = []
        for start in range(0, len(requests), step):
            part = slice(start, start + step)
            for phrase, text in zip(phrases[part], self.chat.answer(requests[part]), strict=True):
                answer = read_numbers(text, len(shown))
                named = dict.fromkeys(answer.indices)
                found.append(candidates.found(picture, phrase, named, text, answer.absent))
        return found
