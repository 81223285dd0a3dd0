"""Caption metrics: BLEU, METEOR, ROUGE-L and CIDEr of pycocoevalcap."""

import contextlib
import io
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmdet.datasets.question_rows import read_questions
from llmdet.errors import ConfigError, DataError
from llmdet.utils.files import read_json, require

Captions = dict[int, list[str]]


def read_references(path: str | Path) -> Captions:
    """Reference captions by image id from a COCO caption file, or by question from JSONL rows."""
    if Path(path).name.removesuffix(".gz").endswith(".jsonl"):
        return {question.id: [question.answer] for question in read_questions(path)}
    data = read_json(path)
    references: Captions = {image["id"]: [] for image in require(data, "images", str(path))}
    for index, annotation in enumerate(require(data, "annotations", str(path))):
        place = f"{path}: annotations[{index}]"
        image = require(annotation, "image_id", place)
        if image not in references:
            raise DataError(f"{place}: image_id {image} is not among the images")
        references[image].append(require(annotation, "caption", place))
    return references


def caption_scores(
    references: Mapping[int, Sequence[str]], captions: Mapping[int, str]
) -> dict[str, float]:
    """BLEU-1..4, METEOR, ROUGE-L and CIDEr of the predicted images as one corpus.

    CIDEr weighs words by the references of the images evaluated, so a split must be evaluated at
    once. Needs Java for the tokenizer and METEOR.

    Args:
        references: captions by image id.
        captions: prediction by image id; images without one are left out, as officially.
    Raises:
        ConfigError: Java or the package pycocoevalcap is missing.
        DataError: no predictions, or one for an image without references.
    """
    if not captions:
        raise DataError("there are no predicted captions")
    for image in captions:
        if not references.get(image):
            raise DataError(f"image {image} has a predicted caption but no reference")
    scorers, tokenize = _load_tools()
    wanted = tokenize({image: _records(references[image]) for image in captions})
    given = tokenize({image: _records([captions[image]]) for image in captions})
    scores: dict[str, float] = {}
    for names, scorer in scorers:
        with contextlib.redirect_stdout(io.StringIO()):
            value, _ = scorer.compute_score(wanted, given)
        values = value if isinstance(value, list) else [value]
        scores |= {name: float(number) for name, number in zip(names, values, strict=True)}
    return scores


def _records(captions: Sequence[str]) -> list[dict[str, Any]]:
    return [{"caption": caption} for caption in captions]


def _load_tools() -> tuple[list[tuple[tuple[str, ...], Any]], Any]:
    """Scorers with the names of their values, and the tokenizer."""
    if shutil.which("java") is None:
        raise ConfigError(
            "caption metrics need Java (METEOR and the PTB tokenizer are Java programs), and no "
            "'java' is on the PATH; install a JRE, for instance the package default-jre-headless"
        )
    try:
        from pycocoevalcap.bleu.bleu import Bleu
        from pycocoevalcap.cider.cider import Cider
        from pycocoevalcap.meteor.meteor import Meteor
        from pycocoevalcap.rouge.rouge import Rouge
        from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer
    except ImportError as error:
        raise ConfigError(
            f"caption metrics need the package pycocoevalcap ({error}); pip install pycocoevalcap"
        ) from error
    scorers = [
        (("Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4"), Bleu(4)),
        (("METEOR",), Meteor()),
        (("ROUGE_L",), Rouge()),
        (("CIDEr",), Cider()),
    ]
    return scorers, PTBTokenizer().tokenize
