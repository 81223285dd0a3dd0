"""Questions about an image and its regions, for programs and notebooks."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mmcv.transforms import Compose
from mmengine.config import Config

from llmdet.apis.building import choose_device
from llmdet.apis.images import expand
from llmdet.checkpoint import load_weights
from llmdet.datasets.candidates import choose_boxes
from llmdet.datasets.masks import mask_box
from llmdet.datasets.sample import Regions
from llmdet.datasets.transforms import LoadImageFromFile, MakeViews, PackViews
from llmdet.errors import ConfigError, DataError
from llmdet.models.outputs.object_index import ObjectIndex
from llmdet.models.systems.region_lmm import RegionLMM
from llmdet.prompts.conversation import DESCRIBE_IMAGE, Conversation, Turn
from llmdet.prompts.objects import ObjectAnswer
from llmdet.prompts.region_tasks import ask_of_regions, read_class
from llmdet.registry import MODELS

logger = logging.getLogger(__name__)

#: Said of each region.
DESCRIBE_REGION = "Describe the region <region> in detail."
#: Of ChatRex and RexSeek, whose models were trained with it.
FIND = "Please detect {phrase} in this image. Answer the question with object indexes."


@dataclass(frozen=True)
class RegionClass:
    """The class of a region."""

    name: str | None  # one of the given names; None where the answer is none of them
    answer: str  # what the model said


@dataclass(frozen=True, eq=False)
class FoundObjects:
    """Those M of an image's candidate boxes that are what was asked for."""

    phrase: str
    boxes: np.ndarray  # [M, 4] float32 xyxy in pixels of the image
    scores: np.ndarray  # [M] float32, the probability with which the model named each
    indices: np.ndarray  # [M] int64 into the candidates that were given
    answer: str  # what the model said
    absent: bool  # whether it said that there is no such thing
    left_out: int  # candidates that the model was not shown


class RegionChat:
    """Asks a :class:`RegionLMM` about images.

    Args:
        model: built, with its weights.
    """

    def __init__(self, model: RegionLMM) -> None:
        self.model = model.eval()
        self.load = LoadImageFromFile()
        self.views = Compose([MakeViews(model.view_settings()), PackViews()])

    @classmethod
    def from_config(
        cls, config: str | Path, weights: str | Path | None = None, device: str = "auto"
    ) -> RegionChat:
        """Build the model of a config.

        Args:
            config: a file of ``configs/``.
            weights: of a training of it; None for what the config builds from.
            device: "auto" is CUDA where there is one.

        Raises:
            ConfigError: the config's model is no ``RegionLMM``.
            CheckpointError: the weights do not fit.
        """
        model: Any = MODELS.build(Config.fromfile(config).model)
        if not isinstance(model, RegionLMM):
            raise ConfigError(f"{config} has a {type(model).__name__}, not a RegionLMM")
        if weights is not None:
            load_weights(model, weights)
        return cls(model.to(choose_device(device)))

    def ask(
        self,
        image: Any,
        question: str,
        boxes: Any = (),
        masks: Sequence[Any] | None = None,
        history: Sequence[tuple[str, str]] = (),
        **generation: Any,
    ) -> str:
        """The answer to a question.

        Args:
            image: a file, an array [h, w, 3] uint8 RGB, or a PIL image.
            question: with ``<region>`` where a region is meant, the first one first, or
                ``<region:3>``, counted from 0; ``<image>`` is put in front where it is missing.
            boxes: [N, 4] xyxy in pixels of the image.
            masks: N masks instead: arrays [h, w], COCO's encodings or polygons.
            history: questions and answers before this one.
            generation: options of transformers' ``generate``; greedy by default.

        Raises:
            DataError: the image cannot be read, or the question marks a region that is not given.
        """
        turns = []
        for asked, said in history:
            turns += [Turn("user", asked), Turn("assistant", said)]
        conversation = Conversation((*turns, Turn("user", question)))
        regions = _regions(boxes, masks)
        return str(self._answers(image, regions, [conversation], **generation)[0])

    def describe(
        self, image: Any, boxes: Any = (), masks: Sequence[Any] | None = None, **generation: Any
    ) -> list[str]:
        """A description of each region, or one of the whole image where there is none.

        Arguments as in :meth:`ask`.
        """
        regions = _regions(boxes, masks)
        questions = [_numbered(DESCRIBE_REGION, number) for number in range(len(regions))]
        answers = self._ask_all(image, regions, questions or [DESCRIBE_IMAGE], **generation)
        return [str(answer) for answer in answers]

    def classify(
        self,
        image: Any,
        names: Sequence[str],
        boxes: Any = (),
        masks: Sequence[Any] | None = None,
        vocabulary: str = "COCO-80",
        **generation: Any,
    ) -> list[RegionClass]:
        """The class of each region.

        Args:
            names: all classes.
            vocabulary: what the model was taught to call them.
            image, boxes, masks, generation: as in :meth:`ask`.
        """
        regions = _regions(boxes, masks)
        question = ask_of_regions("classify", vocabulary=vocabulary)
        questions = [_numbered(question, number) for number in range(len(regions))]
        answers = map(str, self._ask_all(image, regions, questions, **generation))
        known = {name.lower(): name for name in names}
        return [
            RegionClass(known.get(read_class(answer).rstrip(".")), answer) for answer in answers
        ]

    def find(
        self,
        image: Any,
        phrase: str,
        boxes: Any,
        scores: Any = None,
        keep: str = "score",
        **generation: Any,
    ) -> FoundObjects:
        """Those of an image's candidate boxes that a phrase means, with a model of object indices.

        Args:
            image: as in :meth:`ask`.
            phrase: a class, or words that single out one object or several.
            boxes: [N, 4] candidates, xyxy in pixels of the image, of any detector.
            scores: [N] of the candidates.
            keep: by what the best are chosen where there are more than the model can name, see
                :func:`~llmdet.datasets.candidates.choose_boxes`.
            generation: as in :meth:`ask`.

        Raises:
            ConfigError: the model's answers are no indices of objects.
            DataError: there are too many candidates, and no scores to choose by.
        """
        return self.find_each(image, [phrase], boxes, scores, keep, **generation)[0]

    def find_each(
        self,
        image: Any,
        phrases: Sequence[str],
        boxes: Any,
        scores: Any = None,
        keep: str = "score",
        **generation: Any,
    ) -> list[FoundObjects]:
        """As :meth:`find` for each of several phrases, which are asked for side by side."""
        output = self.model.output
        if not isinstance(output, ObjectIndex):
            raise ConfigError(
                f"this model answers with {type(output).__name__}; finding objects needs one with "
                "output=dict(type='ObjectIndex')"
            )
        candidates = _regions(boxes, None).boxes
        given = None if scores is None else np.asarray(scores, np.float32)
        shown = choose_boxes(candidates, output.grammar.count, keep, given)
        left_out = len(candidates) - len(shown)
        if left_out:
            logger.warning(
                "%d of %d candidates are left out: the model names %d, the best by %s.",
                *(left_out, len(candidates), output.grammar.count, keep),
            )
        questions = [FIND.replace("{phrase}", phrase) for phrase in phrases]
        answers = self._ask_all(image, Regions(candidates[shown]), questions, **generation)
        return [
            _found(phrase, answer, candidates, shown)
            for phrase, answer in zip(phrases, answers, strict=True)
        ]

    def _ask_all(
        self, image: Any, regions: Regions, questions: Sequence[str], **generation: Any
    ) -> list[Any]:
        conversations = [Conversation((Turn("user", each),)) for each in questions]
        return self._answers(image, regions, conversations, **generation)

    def _answers(
        self,
        image: Any,
        regions: Regions,
        conversations: Sequence[Conversation],
        **generation: Any,
    ) -> list[Any]:
        if not conversations:
            return []
        introduce = self.model.output.introduce
        conversations = [introduce(each, len(regions)) for each in conversations]
        packed = self.views({**self._read(image), "regions": regions})
        inputs = {name: [view] for name, view in packed["inputs"].items()}
        samples = [packed["data_samples"]]
        data = self.model.data_preprocessor({"inputs": inputs, "data_samples": samples})
        return self.model.answer_views(data["inputs"], samples, [conversations], **generation)[0]

    def _read(self, image: Any) -> Mapping[str, Any]:
        sources = list(expand(image))
        if len(sources) != 1:
            raise DataError(f"{image} stands for {len(sources)} images; give one")
        if isinstance(sources[0], np.ndarray):
            return {"img": sources[0][..., ::-1], "ori_shape": sources[0].shape[:2]}
        loaded = self.load({"img_path": str(sources[0])})
        assert loaded is not None  # a picture that cannot be read is an error
        return loaded


def _found(
    phrase: str, answer: ObjectAnswer, candidates: np.ndarray, shown: np.ndarray
) -> FoundObjects:
    """What an answer names, whatever it calls it; a box that it names twice counts once."""
    scores: dict[int, float] = {}
    for named in answer.phrases:
        for index, score in zip(named.indices, named.scores, strict=True):
            scores[index] = max(score, scores.get(index, 0.0))
    indices = shown[np.fromiter(scores, np.int64, len(scores))]
    return FoundObjects(
        phrase=phrase,
        boxes=candidates[indices],
        scores=np.fromiter(scores.values(), np.float32, len(scores)),
        indices=indices,
        answer=answer.text,
        absent=answer.absent,
        left_out=len(candidates) - len(shown),
    )


def _numbered(question: str, number: int) -> str:
    return question.replace("<region>", f"<region:{number}>")


def _regions(boxes: Any, masks: Sequence[Any] | None) -> Regions:
    """Regions from boxes or masks, each of which is enough."""
    if masks is None:
        return Regions(np.asarray(boxes, np.float32).reshape(-1, 4))
    encoded = [_encoded(mask) if isinstance(mask, np.ndarray) else mask for mask in masks]
    given = np.asarray(boxes, np.float32).reshape(-1, 4)
    if len(given) not in (0, len(encoded)):
        raise DataError(f"{len(given)} boxes and {len(encoded)} masks do not belong together")
    around = given if len(given) else np.asarray([mask_box(mask) for mask in encoded], np.float32)
    return Regions(around.reshape(-1, 4), tuple(encoded))


def _encoded(mask: np.ndarray) -> Mapping[str, Any]:
    from pycocotools import mask as coco_mask

    if mask.ndim != 2 or not mask.any():
        raise DataError(f"a mask of the shape {mask.shape} is no [h, w] array, or is empty")
    return coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
