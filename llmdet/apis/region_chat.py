"""Questions about an image and its regions, for programs and notebooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmcv.transforms import Compose
from mmdet.structures import DetDataSample
from mmengine.config import Config

from llmdet.apis.building import choose_device
from llmdet.apis.found_objects import (
    FoundObjects,
    ShownCandidates,
    check_wording,
    nothing_to_choose,
    read_one,
)
from llmdet.apis.images import expand
from llmdet.apis.region_talk import RegionTalk, read_regions
from llmdet.apis.results import Picture
from llmdet.checkpoint import load_weights
from llmdet.datasets.sample import Regions
from llmdet.datasets.transforms import LoadImageFromFile, MakeViews, PackViews
from llmdet.errors import ConfigError, DataError
from llmdet.models.outputs.object_index import ObjectIndex
from llmdet.models.outputs.several import output_of, part_of
from llmdet.models.systems.region_lmm import RegionLMM
from llmdet.models.vision.views import TowerOutput
from llmdet.prompts.conversation import DESCRIBE_IMAGE, Conversation, Turn
from llmdet.prompts.object_questions import ASKED, DETECT
from llmdet.prompts.objects import ObjectAnswer
from llmdet.prompts.region_tasks import ask_of_regions, read_class
from llmdet.registry import MODELS
from llmdet.utils.build import checked_builds
from llmdet.utils.config import load_config

#: Said of each region.
DESCRIBE_REGION = "Describe the region <region> in detail."
#: Of ChatRex and RexSeek, whose models were trained with it.
FIND = DETECT.replace(ASKED, "{phrase}")


@dataclass(frozen=True)
class RegionClass:
    """The class of a region."""

    name: str | None  # one of the given names; None where the answer is none of them
    answer: str  # what the model said


@dataclass(frozen=True, eq=False)
class _Looked:
    """An image and its regions, as the model saw them."""

    picture: Picture
    regions: Regions
    samples: list[DetDataSample]  # one
    seen: Mapping[str, TowerOutput]


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
        cls, config: str | Path | Config, weights: str | Path | None = None, device: str = "auto"
    ) -> RegionChat:
        """Build the model of a config.

        Args:
            config: a file of ``configs/``, or what was read of one.
            weights: of a training of it; None for what the config builds from.
            device: "auto" is CUDA where there is one.

        Raises:
            ConfigError: the config's model is no ``RegionLMM``.
            CheckpointError: the weights do not fit.
        """
        read = config if isinstance(config, Config) else load_config(config)
        kind = MODELS.get(read.model.get("type", ""))
        if not (isinstance(kind, type) and issubclass(kind, RegionLMM)):
            raise ConfigError(
                f"{read.filename} has a {read.model.get('type')}, and only a RegionLMM answers "
                "questions about regions: take a config such as those of configs/regiongpt."
            )
        with checked_builds():
            model: Any = MODELS.build(read.model)
        if weights is not None:
            load_weights(model, weights)
        return cls(model.to(choose_device(device)))

    def talk(self, image: Any, boxes: Any = (), masks: Sequence[Any] | None = None) -> RegionTalk:
        """A conversation about an image, which is looked at once.

        Args:
            image: a file, an array [h, w, 3] uint8 RGB, or a PIL image.
            boxes: [N, 4] xyxy in pixels of the image.
            masks: N masks instead, or beside the boxes: arrays [h, w], COCO's encodings or
                polygons, or None for a box that has none.

        Raises:
            DataError: the image cannot be read, a box lies outside it, or a mask is none of it.
        """
        looked = self._look(image, boxes, masks)

        def say(conversation: Conversation, **generation: Any) -> Any:
            return self._say(looked, [conversation], **generation)[0]

        return RegionTalk(looked.picture, looked.regions, say)

    def ask(
        self,
        image: Any,
        question: str,
        boxes: Any = (),
        masks: Sequence[Any] | None = None,
        history: Sequence[tuple[str, str]] = (),
        **generation: Any,
    ) -> str:
        """The answer to a question; :meth:`talk` asks several of one image.

        Args:
            image, boxes, masks: as in :meth:`talk`.
            question: with ``<region>`` where a region is meant, the first one first, or
                ``<region:3>``, counted from 0; ``<image>`` is put in front where it is missing.
            history: questions and answers before this one.
            generation: options of transformers' ``generate``; greedy by default.

        Raises:
            DataError: as :meth:`talk`, or the question marks a region that is not given.
        """
        talk = self.talk(image, boxes, masks)
        talk.turns += history
        return talk.ask(question, **generation)

    def describe(
        self, image: Any, boxes: Any = (), masks: Sequence[Any] | None = None, **generation: Any
    ) -> list[str]:
        """A description of each region, or one of the whole image where there is none.

        Arguments as in :meth:`ask`.
        """
        looked = self._look(image, boxes, masks)
        questions = [_numbered(DESCRIBE_REGION, number) for number in range(len(looked.regions))]
        answers = self._ask_all(looked, questions or [DESCRIBE_IMAGE], **generation)
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
        looked = self._look(image, boxes, masks)
        question = ask_of_regions("classify", vocabulary=vocabulary)
        questions = [_numbered(question, number) for number in range(len(looked.regions))]
        answers = map(str, self._ask_all(looked, questions, **generation))
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
        wording: str = FIND,
        **generation: Any,
    ) -> FoundObjects:
        """Those of an image's candidate boxes that a phrase means, with a model of object indices.

        Args:
            image: as in :meth:`ask`.
            phrase: a class, or words that single out one object or several.
            boxes: [N, 4] candidates, xyxy in pixels of the image, of any detector; or what
                ``Detector.predict`` gave.
            scores: [N] of the candidates, where their results do not say.
            keep: by what the best are chosen where there are more than the model can name, see
                :func:`~llmdet.datasets.candidates.choose_boxes`.
            wording: of the question, with ``{phrase}``, for models that learned another.
            generation: as in :meth:`ask`.

        Raises:
            ConfigError: the model's answers are no indices of objects, or the wording does not say
                what is looked for.
            DataError: there are too many candidates, and no scores to choose by.
        """
        return self.find_each(image, [phrase], boxes, scores, keep, wording, **generation)[0]

    def find_each(
        self,
        image: Any,
        phrases: Sequence[str],
        boxes: Any,
        scores: Any = None,
        keep: str = "score",
        wording: str = FIND,
        **generation: Any,
    ) -> list[FoundObjects]:
        """As :meth:`find` for each of several phrases, which are asked for side by side.

        Without candidates nothing is asked, and each phrase is absent.
        """
        output = output_of(self.model.output, ObjectIndex)
        if output is None:
            raise ConfigError(
                f"this model answers with {type(self.model.output).__name__}; finding objects "
                "needs one with output=dict(type='ObjectIndex')"
            )
        check_wording(wording)
        candidates = ShownCandidates.choose(boxes, scores, output.grammar.count, keep)
        if not len(candidates.shown):
            return nothing_to_choose(read_one(image), phrases)
        looked = self._look(image, candidates.boxes[candidates.shown])
        questions = [wording.replace("{phrase}", phrase) for phrase in phrases]
        said = self._ask_all(looked, questions, **generation)
        answers = [found for each in said if (found := part_of(each, ObjectAnswer)) is not None]
        return [
            candidates.found(looked.picture, phrase, _named(answer), answer.text, answer.absent)
            for phrase, answer in zip(phrases, answers, strict=True)
        ]

    def _ask_all(self, looked: _Looked, questions: Sequence[str], **generation: Any) -> list[Any]:
        conversations = [Conversation((Turn("user", each),)) for each in questions]
        return self._say(looked, conversations, **generation)

    def _look(self, image: Any, boxes: Any = (), masks: Sequence[Any] | None = None) -> _Looked:
        picture, read = self._read(image)
        regions = read_regions(boxes, masks, picture)
        packed = self.views({**read, "regions": regions})
        inputs = {name: [view] for name, view in packed["inputs"].items()}
        samples = [packed["data_samples"]]
        data = self.model.data_preprocessor({"inputs": inputs, "data_samples": samples})
        with torch.no_grad():
            return _Looked(picture, regions, samples, self.model.look(data["inputs"]))

    def _say(
        self, looked: _Looked, conversations: Sequence[Conversation], **generation: Any
    ) -> list[Any]:
        introduce, count = self.model.output.introduce, len(looked.regions)
        opened = [introduce(each, count) for each in conversations]
        return self.model.answer(looked.seen, looked.samples, [opened], **generation)[0]

    def _read(self, image: Any) -> tuple[Picture, Mapping[str, Any]]:
        """The picture, and what a pipeline makes of it."""
        sources = list(expand(image))
        if len(sources) != 1:
            raise DataError(f"{image} stands for {len(sources)} images; give one")
        (source,) = sources
        if isinstance(source, np.ndarray):
            read: Any = {"img": source[..., ::-1], "ori_shape": source.shape[:2]}
        else:
            read = self.load({"img_path": str(source)})
        assert read is not None  # a picture that cannot be read is an error
        height, width = read["img"].shape[:2]
        return Picture(source, width, height), read


def _named(answer: ObjectAnswer) -> dict[int, float | None]:
    """What an answer names, whatever it calls it; a box that it names twice counts once."""
    scores: dict[int, float | None] = {}
    for named in answer.phrases:
        for index, score in zip(named.indices, named.scores, strict=True):
            scores[index] = max(score, scores.get(index) or 0.0)
    return scores


def _numbered(question: str, number: int) -> str:
    return question.replace("<region>", f"<region:{number}>")
