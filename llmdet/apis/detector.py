"""The detector of Python programs: images and words in, named boxes out."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from llmdet.apis import pretrained
from llmdet.apis.building import (
    ImagePipeline,
    build_model,
    build_pipeline,
    choose_device,
    leave_to_checkpoint,
    test_steps,
)
from llmdet.apis.calls import SESSION_OPTIONS, Ask, Asker, check_counts, pair
from llmdet.apis.captions import check_inside, describe
from llmdet.apis.images import ImageSource, Source, expand, fault_of, is_entry, is_single
from llmdet.apis.learned_classes import Example, LearnedClass, learn_from_examples
from llmdet.apis.read_images import PreparedImage, ReadImages, prepare_image, read_images
from llmdet.apis.reading import Request, given_boxes, read_found
from llmdet.apis.results import Results
from llmdet.apis.tiles import Tiles, as_tiles, through_tiles
from llmdet.checkpoint import load_weights, locate_checkpoint
from llmdet.datasets.sample import GroundingSample
from llmdet.errors import ConfigError, DataError
from llmdet.models.detectors.few_shot import LearningSettings
from llmdet.prompts.class_names import class_key
from llmdet.prompts.writing import PromptOptions
from llmdet.utils.config import merge_options
from llmdet.utils.construct import check_keys, construct
from llmdet.utils.suggest import did_you_mean

logger = logging.getLogger(__name__)


class Detector:
    """Finds in images what words name, and describes it where its model can.

    Made by :meth:`from_pretrained`.

    Args:
        model: a :class:`~llmdet.models.detectors.GroundingDINO`, on its device.
        pipeline: what prepares its images.
        config: the config of both: ``model``, and ``test_dataloader`` with the pipeline.

    Example:
        >>> detector = Detector.from_pretrained("configs/grounding_dino_swin_t.py", "tiny.pth")
        >>> results = detector.predict("street.jpg", ["bus", "traffic light"])
        >>> results.names, results.boxes, results.scores
        >>> results.save("found.png")
    """

    def __init__(self, model: Any, pipeline: ImagePipeline, config: Config) -> None:
        self.model, self.pipeline, self.config = model, pipeline, config

    @classmethod
    def from_pretrained(
        cls,
        config: str | Path | Config,
        weights: str | Path | None = None,
        *,
        device: str | torch.device = "auto",
        dtype: str = "auto",
        captions: bool = False,
        cfg_options: Mapping[str, Any] | None = None,
    ) -> Detector:
        """Build a detector and load its weights.

        Args:
            config: path of a config, or a loaded one, which is left as it is; or a folder that
                :meth:`save_pretrained` wrote, or one of transformers' MM-Grounding-DINO, or the
                hub id of either, which needs nothing else.
            weights: checkpoint in any form that :func:`llmdet.checkpoint.load_weights` reads;
                None leaves the weights random and says so.
            device: such as "cuda:0" or "cpu"; "auto" takes CUDA where there is one.
            dtype: what matrix products are computed in, "float32", "bfloat16" or "float16"; boxes
                stay float32. "auto" keeps the config's ``model.test_cfg.dtype``.
            captions: keep the language model, which describes images and boxes.
            cfg_options: dotted key -> value, changes of the config.

        Raises:
            ConfigError: the config cannot be read or has no test pipeline, or the device is
                missing.
            CheckpointError: the weights cannot be read safely or do not fit the model.
        """
        init_default_scope("llmdet")
        settings, own_weights = pretrained.find_config(config)
        merge_options(settings, cfg_options or {})
        weights = weights or own_weights
        chosen = choose_device(device)
        if weights is not None:
            locate_checkpoint(weights)  # a typing error shows before anything is downloaded
            leave_to_checkpoint(settings.model)
        model = build_model(settings.model, captions, dtype)
        if weights is None:
            logger.warning("No weights were given: the model is random, and so are its boxes.")
        else:
            load_weights(model, weights)
        return cls(model.to(chosen).eval(), build_pipeline(test_steps(settings)), settings)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a folder that :meth:`from_pretrained` reads and that needs nothing else.

        It holds settings (JSON), weights (safetensors), the text encoder's configuration and
        tokenizer, and those of the language model where the detector was built with captions.

        Raises:
            ConfigError: the model or its pipeline is of a kind that a folder cannot describe.
            DataError: the folder cannot be written.
        """
        pretrained.save(self.model, self.config, folder)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    @property
    def reads_words(self) -> bool:
        """Whether it finds what words name; a detector of proposals finds objects without names."""
        return hasattr(self.model, "language_model")

    @property
    def gives_captions(self) -> bool:
        """Whether the model has a language model that describes what it sees."""
        return getattr(self.model, "lmm", None) is not None

    def predict(
        self,
        images: ImageSource | Iterable[ImageSource],
        classes: Sequence[str] | str | None = None,
        *,
        text: str | None = None,
        expression: str | Sequence[str] | None = None,
        spans: tuple[str, Any] | None = None,
        prompts: Iterable[Any] | None = None,
        threshold: float = 0.3,
        per_class_thresholds: Mapping[str, float] | None = None,
        negatives: Sequence[str] = (),
        templates: Sequence[str] | None = None,
        synonyms: Mapping[str, Sequence[str]] | None = None,
        granularity: str | None = None,
        nms: float | None = None,
        captions: bool | str | Collection[str] = False,
        boxes: Any = None,
        generation: Mapping[str, Any] | None = None,
        batch_size: int = 1,
        tiles: Tiles | int | None = None,
        channels: str = "rgb",
        return_errors: bool = False,
    ) -> Any:
        """Find what is asked for.

        One of ``classes``, ``text``, ``expression``, ``spans`` and ``prompts`` says what; without
        any, boxes of whatever looks like an object are found.

        Args:
            images: an image file, a folder, a text file that lists images, an array, a PIL image,
                or a list or stream of these. Arrays are [H, W, 3] uint8.
            classes: class names in a list, or in one text "cat . dog"; "$: lvis" stands for the
                classes of a data set.
            text: a sentence, whose noun phrases are found.
            expression: a text that describes one thing as a whole ("the left dog"), or a list of
                such texts, each of which is looked for in a prompt of its own; the label of a box
                is the position of its description.
            spans: a text, and [start, end) characters of each thing in it: ("a cat", [[2, 5]]).
            prompts: one for each image: a list of class names, a sentence, one of
                :mod:`llmdet.prompts`, or None for whatever is an object.
            threshold: detections of a lower score are left out.
            per_class_thresholds: other thresholds for some names.
            negatives: look-alikes, which are looked for too: a box that one of them fits better
                is left out, and so are its own.
            templates: ways of saying a name, such as ["{}", "a photo of a {}"], whose text features
                are averaged.
            synonyms: name -> other names for it, whose text features are averaged with its own.
            granularity: "fine" or "coarse", for a detector of proposals (``configs/upn``): what it
                takes for an object; None: as its ``test_cfg`` says.
            nms: overlap (IoU) above which the best of several boxes stays alone, whatever their
                classes; None keeps overlapping boxes (but 0.7 without any words).
            captions: True, or some of "image" and "regions": what the language model describes.
                The detector must have been built with ``captions=True``.
            boxes: [N, 4] xyxy in pixels, or a list with those of each image: they are described in
                the place of detected ones.
            generation: options of transformers' ``generate``, such as ``max_new_tokens``.
            batch_size: images that pass through the model together; what is found does not
                depend on it.
            tiles: look at larger images in overlapping tiles of this size in pixels, or as
                :class:`~llmdet.apis.tiles.Tiles` says, and merge what is found.
            channels: "rgb", or "bgr" for arrays of OpenCV.
            return_errors: have the :class:`DataError` of an image that cannot be read in the
                place of its results, and go on.

        Returns:
            :class:`Results` of one image; a list of them for a list or folder; an iterator for a
            generator or another iterator, of which one batch is read at a time.

        Raises:
            ConfigError: arguments that contradict each other or have no such value.
            DataError: an image or a prompt that cannot be used.
        """
        asks, request = self._asker()(
            classes,
            text=text,
            expression=expression,
            spans=spans,
            prompts=prompts,
            negatives=negatives,
            templates=templates,
            synonyms=synonyms,
            granularity=granularity,
            captions=captions,
            boxes=boxes,
            threshold=threshold,
            per_class_thresholds=per_class_thresholds or {},
            nms=nms,
            generation=generation or {},
        )
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size!r}: it is 1 or more.")
        cut = as_tiles(tiles)
        stream = self._stream if cut is None else through_tiles(self._stream, cut)
        if isinstance(images, Iterator):
            sources = chain.from_iterable(expand(entry, channels) for entry in images)
            return stream(pair(sources, asks), request, batch_size, return_errors)
        entries: Any = [images] if is_entry(images) else images
        known = [source for entry in entries for source in expand(entry, channels)]
        if not known:
            raise DataError("There is no image to look at: the list of images is empty.")
        if not return_errors:
            for fault in filter(None, map(fault_of, known)):
                raise fault
        check_counts(prompts, boxes, len(known))
        found = list(stream(pair(known, asks), request, batch_size, return_errors))
        return found[0] if is_single(images) else found

    def set_image(self, image: ImageSource, channels: str = "rgb") -> ImageSession:
        """Look at an image once, to ask it any number of things.

        Args:
            image: a file, an array or a PIL image.
            channels: "rgb", or "bgr" for arrays of OpenCV.

        Returns:
            What takes the prompts; the backbone does not run again for any of them.

        Raises:
            DataError: the image cannot be used.
        """
        if not is_single(image):
            raise ConfigError("set_image takes one image; predict takes folders and lists.")
        (source,) = expand(image, channels)
        return ImageSession(self, self._look(source))

    @property
    def learned_classes(self) -> tuple[str, ...]:
        """The classes that were learned from examples; names are compared without capitals."""
        return self.model.learned_classes.names if self.reads_words else ()

    def add_class(
        self,
        name: str,
        examples: Iterable[Example],
        *,
        description: str | None = None,
        others: Sequence[str] | None = None,
        **settings: Any,
    ) -> LearnedClass:
        """Learn a class from a few images; what the detector does with other names stays.

        From then on ``name`` means what was learned, alone or among other classes, wherever a
        prompt names it, and :meth:`save_pretrained` keeps it.

        Args:
            name: of the class; a word that the text encoder knows, or not. A class that was
                learned before is learned anew.
            examples: 1 to some 30 pairs of an image and the boxes [N, 4] xyxy, in its pixels, of
                *all* objects of the class in it; [] where there is none.
            description: words for it to start from; None: those of the name.
            others: classes that are going to be asked for beside it; None: those that the config
                was written for.
            settings: of :class:`~llmdet.models.detectors.few_shot.LearningSettings`, such as
                ``steps``.

        Raises:
            ConfigError: no example has a box, a setting has no such value, or the detector has no
                classes.
            DataError: an image cannot be used, or a box lies outside of it.
        """
        if not self.reads_words:
            raise ConfigError("This detector proposes objects without names: it has no classes.")
        how = construct(LearningSettings, settings, "add_class")
        return learn_from_examples(
            self.model, self.config, self._look, name, examples, description, others, how
        )

    def remove_class(self, name: str) -> None:
        """Forget what was learned of a class, which is its name again.

        Raises:
            ConfigError: there is no such class.
        """
        if not self.reads_words or name not in self.model.learned_classes:
            raise ConfigError(
                f"No class {name!r} was learned; {did_you_mean(name, self.learned_classes)}"
            )
        self.model.learned_classes.remove(name)

    def _asker(self) -> Asker:
        model = self.model
        if not self.reads_words:
            return Asker(None, PromptOptions(), can_describe=False)
        options = model.test_cfg.prompt_options
        known = frozenset(map(class_key, self.learned_classes))
        return Asker(model.language_model.prompts, options, self.gives_captions, known)

    def _stream(
        self,
        items: Iterator[tuple[Source, Ask]],
        request: Request,
        batch_size: int,
        return_errors: bool,
    ) -> Iterator[Any]:
        """Yield the :class:`Results` of image after image, or the error in their place."""
        while batch := list(islice(items, batch_size)):
            prepared: list[PreparedImage | DataError] = []
            for source, asked in batch:
                try:
                    image = prepare_image(self.pipeline, source)
                    if asked.boxes is not None:
                        check_inside(asked.boxes, image.picture)
                    prepared.append(image)
                except DataError as error:
                    if not return_errors:
                        raise
                    prepared.append(error)
            whole = [image for image in prepared if not isinstance(image, DataError)]
            asks = [
                asked
                for image, (_, asked) in zip(prepared, batch, strict=True)
                if not isinstance(image, DataError)
            ]
            found = iter(
                self._detect(read_images(self.model, whole), asks, request) if whole else ()
            )
            for outcome in prepared:
                yield outcome if isinstance(outcome, DataError) else next(found)

    def _look(self, source: Source) -> ReadImages:
        return read_images(self.model, [prepare_image(self.pipeline, source)])

    @torch.no_grad()
    def _detect(self, read: ReadImages, asks: Sequence[Ask], request: Request) -> list[Results]:
        """Run everything that texts take part in, and describe what is to be described."""
        for sample, asked in zip(read.samples, asks, strict=True):
            # Not through the pipeline: its last step packs only what the config lists.
            grounding = GroundingSample(asked.question.prompt, asked.question.chunks)
            sample.set_metainfo({"grounding": grounding})
        run = self.model.detect_in(read.pyramid, read.samples, keep_features=bool(request.captions))
        found = [
            read_found(instances, picture, asked.question, request)
            if asked.boxes is None
            else given_boxes(asked.boxes, picture)
            for instances, picture, asked in zip(run.detections, read.pictures, asks, strict=True)
        ]
        if not request.captions:
            return found
        return describe(self.model, read, found, run.features, request.captions, request.generation)


class ImageSession:
    """An image that a detector has looked at and that prompts are put to.

    It keeps the image's feature maps on the detector's device for as long as it lives.
    """

    def __init__(self, detector: Detector, read: ReadImages) -> None:
        self._detector, self._image = detector, read

    def predict(self, classes: Sequence[str] | str | None = None, **options: Any) -> Results:
        """Find what is asked for in this image.

        Args: those of :meth:`Detector.predict` that speak of one image.
        """
        check_keys(options, SESSION_OPTIONS, "predict of a session")
        asks, request = self._detector._asker()(classes, **options)
        asked = next(asks)
        if asked.boxes is not None:
            check_inside(asked.boxes, self._image.pictures[0])
        (results,) = self._detector._detect(self._image, [asked], request)
        return results
