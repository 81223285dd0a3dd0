"""Metrics of what a model says: the functions of ``tools/evaluate.py`` on rows in memory."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmdet.evaluation import mask_runners, region_runners, runners
from llmdet.evaluation.humanref import Density
from llmdet.evaluation.metrics.reducers import Rows
from llmdet.evaluation.metrics.shell import Collected, MetricShell
from llmdet.evaluation.res import Empty
from llmdet.evaluation.suite import flatten
from llmdet.prompts.tokenizers import load_tokenizer
from llmdet.registry import METRICS


@METRICS.register_module()
class CaptionMetric(MetricShell):
    """Caption BLEU, METEOR, ROUGE-L and CIDEr of ``pred_text`` (needs Java).

    Args:
        ann_file: COCO captions, or JSONL of conversations whose answers are the references.
        **shell: of :class:`MetricShell`.
    """

    default_prefix = "caption"

    def __init__(self, ann_file: str | None = None, **shell: Any) -> None:
        super().__init__(ann_file, Rows(), _over_rows(runners.run_caption), **shell)


@METRICS.register_module()
class GCGMetric(MetricShell):
    """GLaMM's grounded conversations: ``pred_text``, ``pred_phrases`` and ``pred_masks``.

    Args:
        ann_file: ``*_gcg_coco_caption_gt.json``, or a folder with the mask and the caption file.
        embeddings: JSON of a vector per phrase.
        text_encoder: a text encoder of transformers, which gives such vectors; without either there
            is no recall.
        captions: also compute the caption metrics, which need Java.
        **shell: of :class:`MetricShell`.
    """

    default_prefix = "gcg"

    def __init__(
        self,
        ann_file: str | None = None,
        *,
        embeddings: str | None = None,
        text_encoder: str | None = None,
        captions: bool = True,
        **shell: Any,
    ) -> None:
        options = {
            "embeddings": None if embeddings is None else Path(embeddings),
            "text_encoder": text_encoder,
            "captions": captions,
        }
        super().__init__(ann_file, Rows(), _over_rows(mask_runners.run_gcg, **options), **shell)


@METRICS.register_module()
class ReferringSegmentationMetric(MetricShell):
    """Referring segmentation gIoU and cIoU of ``pred_masks``.

    Args:
        ann_file: JSONL of conversations whose answers have masks (a sample is a question, all
            masks of its answer are one), or JSON of images with ``refs`` of ``gt`` (a sample has a
            mask for each).
        empty: IoU of an empty answer to an expression without target: ``one``, or ``zero`` (mmdet).
        **shell: of :class:`MetricShell`.
    """

    default_prefix = "res"

    def __init__(self, ann_file: str | None = None, *, empty: Empty = "one", **shell: Any) -> None:
        super().__init__(ann_file, Rows(), _over_rows(mask_runners.run_res, empty=empty), **shell)


@METRICS.register_module()
class POPEMetric(MetricShell):
    """POPE accuracy, precision, recall, F1 and share of yes of ``pred_text``.

    Args:
        ann_file: JSONL of questions; ``img_id`` of a sample is its ``question_id``.
        **shell: of :class:`MetricShell`.
    """

    default_prefix = "pope"

    def __init__(self, ann_file: str | None = None, **shell: Any) -> None:
        super().__init__(ann_file, Rows(), _over_rows(runners.run_pope), **shell)


@METRICS.register_module()
class HumanRefMetric(MetricShell):
    """HumanRef recall, precision and density F1 of the boxes, or of those in ``pred_indices``.

    Args:
        ann_file: JSONL of expressions; ``img_id`` of a sample is its ``id``.
        density: the factor of density F1: of ``answers``, or of ``persons`` (the README's).
        **shell: of :class:`MetricShell`.
    """

    default_prefix = "humanref"

    def __init__(
        self, ann_file: str | None = None, *, density: Density = "answers", **shell: Any
    ) -> None:
        run = _over_rows(runners.run_humanref, density=density)
        super().__init__(ann_file, Rows(), run, **shell)


@METRICS.register_module()
class CocoClassificationMetric(MetricShell):
    """AP and accuracy of the names in ``pred_text``, discarded answers counted.

    Args:
        ann_file: COCO instances; ``img_id`` of a sample is an annotation's id.
        **shell: of :class:`MetricShell`.
    """

    default_prefix = "coco_classification"

    def __init__(self, ann_file: str | None = None, **shell: Any) -> None:
        run = _over_rows(region_runners.run_coco_classification)
        super().__init__(ann_file, Rows(), run, **shell)


@METRICS.register_module()
class RegionChoiceMetric(MetricShell):
    """Accuracy of the candidate that ``pred_text`` names, among the boxes of ``pred_instances``.

    Args:
        ann_file: expressions in MDETR's form; ``img_id`` of a sample is an expression's id.
        **shell: of :class:`MetricShell`.
    """

    default_prefix = "region_choice"

    def __init__(self, ann_file: str | None = None, **shell: Any) -> None:
        super().__init__(ann_file, Rows(), _over_rows(region_runners.run_region_choice), **shell)


@METRICS.register_module()
class AnswerMetric(MetricShell):
    """Share of ``pred_text`` that is what rows of conversations say.

    Args:
        ann_file: JSONL; ``img_id`` of a sample is the number of its question.
        **shell: of :class:`MetricShell`.
    """

    default_prefix = "answers"

    def __init__(self, ann_file: str | None = None, **shell: Any) -> None:
        super().__init__(ann_file, Rows(), _over_rows(region_runners.run_answers), **shell)


@METRICS.register_module()
class RegionClassificationMetric(MetricShell):
    """Likeness of ``pred_phrases`` to the names of given regions, one for each region.

    Args:
        ann_file: JSON ``{categories, regions}``, or COCO, LVIS or PACO annotations.
        text_encoder: of sentences, a folder or a name of the hub, without which words alone are
            compared.
        **shell: of :class:`MetricShell`.
    """

    default_prefix = "region_classification"

    def __init__(
        self, ann_file: str | None = None, *, text_encoder: str | None = None, **shell: Any
    ) -> None:
        if text_encoder is not None:  # what is wrong with it is said before the test
            load_tokenizer(text_encoder, role="text_encoder")
        run = _over_rows(region_runners.run_region_classification, text_encoder=text_encoder)
        super().__init__(ann_file, Rows(), run, **shell)


def _over_rows(
    run: Callable[..., dict[str, Any]], **options: Any
) -> Callable[[Collected], dict[str, float]]:
    """A function of annotations and predictions as the evaluation of collected rows."""

    def evaluation(found: Collected) -> dict[str, float]:
        return flatten(run(Path(found.ann_file), list(found.columns[1]), **options))

    return evaluation
