"""Detection on anything that users point at: the one class behind demo, notebook and export."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmcv.transforms import Compose
from mmengine.config import Config, ConfigDict
from mmengine.dataset import pseudo_collate
from mmengine.model import BaseModel
from mmengine.registry import init_default_scope
from tqdm import tqdm

from llmdet.apis.captions import (
    check_inside,
    describe,
    given_detections,
    keep_language_model,
)
from llmdet.apis.class_names import config_class_names
from llmdet.apis.inputs import ImageSource, InputImage, collect_images, readable_images
from llmdet.apis.prompts import Texts, image_prompts
from llmdet.apis.results import Delivery, ImageDetections
from llmdet.checkpoint import load_weights, locate_checkpoint
from llmdet.datasets.sample import GroundingSample
from llmdet.errors import ConfigError, DataError
from llmdet.prompts.parse import parse_prompt
from llmdet.prompts.types import Prompt
from llmdet.registry import MODELS, TRANSFORMS
from llmdet.utils.build import checked_builds
from llmdet.utils.config import leaf_datasets, load_config
from llmdet.visualization.drawing import draw_boxes
from llmdet.visualization.palette import RGB

logger = logging.getLogger(__name__)

NOUN_PHRASES = ("auto", "nltk", "rules")


@dataclass(frozen=True)
class Request:
    """What one call wants to know of every image."""

    score_thr: float
    boxes: np.ndarray | None  # [N, 4] xyxy in pixels of the original image, to describe
    generation: Mapping[str, Any]  # options of transformers' generate


class LLMDetInferencer:
    """Find in images what a text names.

    The model is the config's, without its language model unless captions are wanted, the
    images pass through the config's test pipeline, and prompts are built where evaluation
    builds them, inside ``model.predict``.

    Args:
        config: Path of a config, or a loaded one, which is left as it is.
        weights: Checkpoint in any form that :func:`llmdet.checkpoint.load_weights` reads; None
            leaves the weights random and says so.
        device: Such as "cuda:0" or "cpu"; None takes CUDA where there is one.
        palette: Colours of the boxes, see :func:`llmdet.visualization.palette.label_color`.
        chunked_size: Most classes in one prompt; -1 takes as many as fit into the text encoder.
            None keeps the config's ``model.test_cfg.chunked_size``.
        noun_phrases: "nltk", "rules", or "auto": NLTK's tagger where its data is installed.
        dtype: What matrix products are computed in: "float32", "bfloat16" or "float16"; boxes stay
            float32. None keeps the config's ``model.test_cfg.dtype``.
        captions: Keep the language model and describe each image and each shown box.
        show_progress: Show a progress bar on terminals.

    Raises:
        ConfigError: The config cannot be read, has no test pipeline, or the device is missing.
        CheckpointError: The weights cannot be read safely or do not fit the model.

    Example:
        >>> detect = LLMDetInferencer("configs/grounding_dino_swin_t.py", "tiny.pth")
        >>> result = detect("street.jpg", texts="bus . traffic light", custom_entities=True)
        >>> result["predictions"][0]["label_names"]
    """

    def __init__(
        self,
        config: str | Path | Config,
        weights: str | Path | None = None,
        device: str | torch.device | None = None,
        palette: str | Sequence[RGB] = "none",
        *,
        chunked_size: int | None = None,
        noun_phrases: str = "auto",
        dtype: str | None = None,
        captions: bool = False,
        show_progress: bool = False,
    ) -> None:
        init_default_scope("llmdet")
        self.config = copy.deepcopy(config) if isinstance(config, Config) else load_config(config)
        self.palette = palette
        self.captions = captions
        self.show_progress = show_progress
        self.device = _choose_device(device)
        if weights is not None:
            locate_checkpoint(weights)  # a typing error shows before anything is downloaded
            _leave_to_checkpoint(self.config.model)
        self.model = _build_model(self.config, chunked_size, noun_phrases, dtype, captions)
        if weights is None:
            logger.warning("No weights were given: the model is random, and so are its boxes.")
        else:
            load_weights(self.model, weights)
        self.model.to(self.device).eval()
        self._load_image, self._transform = _split_test_pipeline(self.config)
        self._arrays_seen = 0

    def __call__(
        self,
        inputs: ImageSource | Sequence[ImageSource],
        texts: Texts | None = None,
        *,
        custom_entities: bool = False,
        tokens_positive: int | list | None = None,
        batch_size: int = 1,
        pred_score_thr: float = 0.3,
        out_dir: str | Path = "",
        return_vis: bool = False,
        show: bool = False,
        no_save_vis: bool = False,
        no_save_pred: bool = False,
        print_result: bool = False,
        boxes: np.ndarray | None = None,
        generation: Mapping[str, Any] | None = None,
        skip_broken: bool = False,
    ) -> dict[str, list[Any]]:
        """Detect, and save, show or return what was found.

        Args:
            inputs: An image file, a folder, a text file that lists images, a [H, W, 3] uint8 BGR
                array, a PIL image, or a sequence of these.
            texts: One text for all images, or one entry per image: a text, a list of class
                names, or a :data:`~llmdet.prompts.types.Prompt`; ``"$: lvis"`` stands for the
                classes of a data set. None takes those of the config's test set.
            custom_entities, tokens_positive: How plain texts are read, see
                :func:`~llmdet.apis.prompts.image_prompts`.
            batch_size: Images that pass through the model together; texts may differ.
            pred_score_thr: Boxes below this score are neither returned, saved nor drawn.
            out_dir: Folder that gets ``preds/NAME.json`` and ``vis/NAME.ext``; "" saves nothing.
            return_vis: Return the pictures with boxes.
            show: Show each picture in a window.
            no_save_vis, no_save_pred: Save nothing of that kind in ``out_dir``.
            print_result: Write each prediction to the standard output, one line of JSON each.
            boxes: [N, 4] xyxy in pixels of the original image, which are described instead of
                the detected ones; needs ``captions=True``.
            generation: Options of transformers' ``generate`` for captions, such as
                ``{"do_sample": True, "temperature": 0.7, "max_new_tokens": 100}``; greedy by
                default.
            skip_broken: Go on with the other images where one cannot be read.

        Returns:
            ``predictions``: per image ``labels``, ``scores``, ``bboxes`` (xyxy in pixels of the
            original image) and ``label_names``, best score first; the path ``image``, its
            ``width`` and ``height``, and ``best_score``, whether above the threshold or not;
            with ``captions=True`` also ``captions`` of the boxes and the image's
            ``description``. ``boxes`` have no scores. ``visualization``: per
            image [H, W, 3] uint8 RGB if ``return_vis``, else nothing. ``broken``: the
            :class:`DataError` of each image that was skipped.

        Raises:
            ConfigError: Texts and images do not match, or an argument has no such value.
            DataError: An image or a prompt cannot be used, a result cannot be written.
        """
        if boxes is not None and not self.captions:
            raise ConfigError("boxes are given to be described: build with captions=True.")
        if batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}: it is 1 or more.")
        if not 0 <= pred_score_thr <= 1:
            raise ConfigError(f"pred_score_thr is {pred_score_thr}: it is a number from 0 to 1.")
        images = self._collect(inputs)
        if not skip_broken:
            for fault in readable_images(images)[1]:
                raise fault
        if texts is None:
            texts = self._config_texts(tokens_positive)
        prompts = image_prompts(
            texts, len(images), custom_entities=custom_entities, tokens_positive=tokens_positive
        )
        folder = Path(out_dir) if out_dir else None
        pred_dir = None if folder is None or no_save_pred else folder / "preds"
        vis_dir = None if folder is None or no_save_vis else folder / "vis"
        deliver = Delivery(pred_dir, vis_dir, self.draw, print_result, show, return_vis)
        request = Request(pred_score_thr, boxes, generation or {})
        broken: list[DataError] | None = [] if skip_broken else None
        for image, pixels, found in self._detect(images, prompts, batch_size, request, broken):
            deliver(image, pixels, found)
        return {
            "predictions": deliver.predictions,
            "visualization": deliver.visualization,
            "broken": broken or [],
        }

    def draw(self, image: np.ndarray, found: ImageDetections) -> np.ndarray:
        """Draw detections on a [H, W, 3] BGR image; returns uint8 RGB."""
        rgb = np.ascontiguousarray(image[..., ::-1]).astype(np.uint8)
        labels, scores = found.labels.tolist(), found.scores
        return draw_boxes(rgb, found.bboxes, labels, found.texts(), scores, self.palette)

    def _detect(
        self,
        images: Sequence[InputImage],
        prompts: Sequence[Prompt],
        batch_size: int,
        request: Request,
        broken: list[DataError] | None,
    ) -> Iterator[tuple[InputImage, np.ndarray, ImageDetections]]:
        """Yield each image, its pixels ([H, W, 3] BGR, original size) and what was found.

        ``broken`` gets what is wrong with images that cannot be read; without it that is raised.
        """
        starts = range(0, len(images), batch_size)
        # tqdm's disable=None keeps quiet where the standard error is no terminal.
        for start in tqdm(starts, unit="batch", disable=None if self.show_progress else True):
            end = start + batch_size
            read: list[tuple[InputImage, dict[str, Any]]] = []
            inputs = []
            for image, prompt in zip(images[start:end], prompts[start:end], strict=True):
                try:
                    fields = self._read(image)
                    packed = self._transform(dict(fields))
                except DataError as error:
                    if broken is None:
                        raise
                    broken.append(error)
                    continue
                if request.boxes is not None:
                    check_inside(request.boxes, image, fields["img"].shape)
                # Not through the pipeline: its last step packs only what the config lists.
                packed["data_samples"].set_metainfo({"grounding": GroundingSample(prompt)})
                read.append((image, fields))
                inputs.append(packed)
            detections = self._predict(pseudo_collate(inputs), request) if inputs else []
            for (image, fields), found in zip(read, detections, strict=True):
                yield image, fields["img"], found

    @torch.no_grad()
    def _predict(self, data: dict[str, Any], request: Request) -> list[ImageDetections]:
        """Detect in one collated batch, and describe where the inferencer is to caption."""
        data = self.model.data_preprocessor(data, False)
        samples = data["data_samples"]
        run = self.model.detect(data["inputs"], samples, keep_features=self.captions)
        run.write_to(samples)
        found = [ImageDetections.from_sample(sample, request.score_thr) for sample in samples]
        if not self.captions:
            return found
        if request.boxes is not None:
            found = [given_detections(request.boxes) for _ in samples]
        return describe(
            self.model, data["inputs"], samples, found, run.features, request.generation
        )

    def _collect(self, inputs: ImageSource | Sequence[ImageSource]) -> list[InputImage]:
        """Number arrays through all calls, so that later ones do not overwrite earlier ones."""
        images = collect_images(inputs, self._arrays_seen)
        self._arrays_seen += sum(isinstance(image.source, np.ndarray) for image in images)
        return images

    def _read(self, image: InputImage) -> dict[str, Any]:
        """Return the fields with which a pipeline goes on after loading an image."""
        if isinstance(image.source, np.ndarray):
            shape = image.source.shape[:2]
            pixels = image.source.copy()
            return {"img": pixels, "img_path": None, "img_shape": shape, "ori_shape": shape}
        fields = self._load_image({"img_path": str(image.source)})
        if fields is None:  # by ignore_empty of the config
            raise DataError(f"the picture {image.source} cannot be read")
        return fields

    def _config_texts(self, tokens_positive: int | list | None) -> Prompt:
        if tokens_positive is not None:
            raise ConfigError("tokens_positive points into a text, and there is none: give texts.")
        names = config_class_names(self.config)
        logger.info("No text was given: looking for the %d classes of the config.", len(names))
        return parse_prompt(names)


def _choose_device(device: str | torch.device | None) -> torch.device:
    try:
        chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise ConfigError(f"There is no device {device!r}: write cpu, cuda or cuda:1.") from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"There is no device {device}: PyTorch sees no CUDA GPU here.")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"There is no device {device}: PyTorch sees {torch.cuda.device_count()} GPUs."
        )
    logger.info("Running on %s%s.", chosen, "" if device else ", chosen automatically")
    return chosen


def _build_model(
    config: Config,
    chunked_size: int | None,
    noun_phrases: str,
    dtype: str | None,
    captions: bool,
) -> BaseModel:
    if noun_phrases not in NOUN_PHRASES:
        raise ConfigError(
            f"noun_phrases is {noun_phrases!r}: choose one of {', '.join(NOUN_PHRASES)}."
        )
    settings = config.model
    if captions:
        keep_language_model(settings)
    elif settings.get("lmm") is not None:
        settings.lmm = None
    settings.test_cfg = settings.get("test_cfg") or {}
    settings.test_cfg.noun_phrases = noun_phrases
    settings.test_cfg.limit_per = "image"  # people look at images; only fixed AP wants chunks
    if chunked_size is not None:
        settings.test_cfg.chunked_size = chunked_size
    if dtype is not None:
        settings.test_cfg.dtype = dtype
    with checked_builds():
        return MODELS.build(settings)


def _leave_to_checkpoint(model: ConfigDict) -> None:
    """Read no weights of a text encoder that a checkpoint brings: 440 MB for BERT base."""
    encoder = model.get("language_model") or {}
    if encoder.get("type") == "BertModel":
        encoder["pretrained"] = False


def _split_test_pipeline(config: Config) -> tuple[Compose, Compose]:
    """Return the part of the test pipeline that loads images, and the rest without annotations.

    Where the config is tested on several data sets, the pipeline is that of the first.
    """
    datasets = leaf_datasets((config.get("test_dataloader") or {}).get("dataset") or {})
    pipelines = [leaf["pipeline"] for leaf in datasets if "pipeline" in leaf]
    if not pipelines:
        raise ConfigError("The config has no test_dataloader.dataset.pipeline to load images.")
    steps = list(pipelines[0])
    kinds = [str(step["type"]).rpartition(".")[2] for step in steps]
    if "LoadImageFromFile" not in kinds:
        raise ConfigError("The config's test pipeline has no LoadImageFromFile.")
    first = kinds.index("LoadImageFromFile") + 1
    later = [
        step
        for step, kind in zip(steps[first:], kinds[first:], strict=True)
        if not kind.startswith("Load")
    ]
    return _compose(steps[:first]), _compose(later)


def _compose(steps: Sequence[dict[str, Any]]) -> Compose:
    return Compose([TRANSFORMS.build(step) for step in steps])
