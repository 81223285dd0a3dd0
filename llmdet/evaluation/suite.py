"""The metrics by name, with their options, and the report of a run."""

import dataclasses
import hashlib
import inspect
import json
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import llmdet
from llmdet.errors import ConfigError
from llmdet.evaluation import mask_runners, region_runners, runners
from llmdet.evaluation.predictions import is_prediction_file, prompts_in_words, read_header
from llmdet.utils.suggest import did_you_mean

HASH_BLOCK = 1 << 20
#: Metrics whose figures mean nothing without a word of whose boxes were chosen from.
NAMES_SOURCE = ("humanref",)
NO_SOURCE = "candidates: the file of predictions does not say whose they are"

RUNNERS: dict[str, Callable[..., dict[str, Any]]] = {
    "coco": runners.run_coco,
    "lvis": runners.run_lvis,
    "lvis-fixed-ap": runners.run_lvis_fixed_ap,
    "proposal-recall": runners.run_proposal_recall,
    "odinw": runners.run_odinw,
    "refexp": runners.run_refexp,
    "grefcoco": runners.run_grefcoco,
    "flickr30k": runners.run_flickr30k,
    "d3": runners.run_d3,
    "ovdeval": runners.run_ovdeval,
    "omnilabel": runners.run_omnilabel,
    "humanref": runners.run_humanref,
    "region-classification": region_runners.run_region_classification,
    "coco-classification": region_runners.run_coco_classification,
    "region-choice": region_runners.run_region_choice,
    "retrieval": region_runners.run_retrieval,
    "answers": region_runners.run_answers,
    "caption": runners.run_caption,
    "gcg": mask_runners.run_gcg,
    "res": mask_runners.run_res,
    "pope": runners.run_pope,
}


@dataclasses.dataclass(frozen=True)
class MetricReport:
    """Values of a metric and what they were computed from."""

    metric: str
    values: dict[str, Any]  # numbers, or groups of numbers
    options: dict[str, Any]  # every option of the metric with the value used
    ground_truth: dict[str, Any]  # path and sha256
    predictions: dict[str, Any]  # path, sha256 and, where the file has one, its header

    @property
    def prompts(self) -> str | None:
        """What the prompts of the predictions held; None where their files do not tell."""
        files = self.predictions.get("files", [self.predictions])
        sizes = [(file.get("header") or {}).get("chunk_size") for file in files]
        words = [prompts_in_words(size) for size in sizes if size is not None]
        return "; ".join(dict.fromkeys(words)) or None

    @property
    def protocol(self) -> str | None:
        """What the predictions were asked of, see :func:`protocol_note`."""
        note = protocol_note(self.predictions)
        if note is not None or self.metric not in NAMES_SOURCE:
            return note
        model = self.predictions.get("header", {}).get("model")
        return NO_SOURCE if model is None else f"boxes that {model} found itself, of no candidates"

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        values = {"llmdet": llmdet.__version__, **dataclasses.asdict(self)}
        more = {"prompts": self.prompts, "asked_of": self.protocol}
        return values | {name: value for name, value in more.items() if value is not None}

    def write(self, path: str | Path) -> None:
        """Write the report as a JSON file."""
        text = json.dumps(self.as_dict(), indent=2, default=str)
        Path(path).write_text(text + "\n", encoding="utf-8")


def run_metric(
    name: str, gt: str | Path, pred: str | Path | None, settings: Sequence[str] = ()
) -> MetricReport:
    """Compute a metric from files.

    Args:
        name: one of RUNNERS.
        gt: annotations, a file or for some metrics a folder.
        pred: predictions; only ``res`` does without, its annotations hold both masks.
        settings: options as ``NAME=VALUE``.
    Raises:
        ConfigError: the metric or an option is unknown, or the predictions are missing.
        DataError: a file cannot be used.
    """
    if name not in RUNNERS:
        raise ConfigError(f"there is no metric {name!r}; {did_you_mean(name, RUNNERS)}")
    if pred is None and name != "res":
        raise ConfigError(f"the metric {name!r} needs --pred")
    options = parse_options(name, settings)
    arguments = [Path(gt)] if pred is None else [Path(gt), Path(pred)]
    values = RUNNERS[name](*arguments, **options)
    return MetricReport(
        metric=name,
        values=values,
        options={key: str(v) if isinstance(v, Path) else v for key, v in options.items()},
        ground_truth=describe_file(Path(gt)),
        predictions=describe_file(arguments[-1]),
    )


def parse_options(name: str, settings: Sequence[str]) -> dict[str, Any]:
    """All options of a metric: the defaults, replaced by ``NAME=VALUE`` settings.

    Raises:
        ConfigError: an option is unknown or its value is not of its type.
    """
    known = option_types(name)
    values = {key: default for key, (_, default) in known.items()}
    for setting in settings:
        key, sign, text = setting.partition("=")
        if not sign:
            raise ConfigError(f"option {setting!r} must be NAME=VALUE")
        if key not in known:
            names = ", ".join(known) or "none"
            raise ConfigError(f"the metric {name!r} has no option {key!r}; it has: {names}")
        values[key] = _convert(key, text, known[key][0])
    return values


def option_types(name: str) -> dict[str, tuple[Any, Any]]:
    """Type and default of each option of a metric, from the signature of its function."""
    function = RUNNERS[name]
    hints = typing.get_type_hints(function)
    return {
        key: (hints[key], parameter.default)
        for key, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }


def describe_metrics() -> str:
    """One paragraph per metric for the help of the command line."""
    lines = []
    for name, function in RUNNERS.items():
        summary, _, details = inspect.getdoc(function).partition("\n\n")  # type: ignore[union-attr]
        text = re.sub(r"\s+", " ", f"{summary} {details.replace('``', '')}").strip()
        lines.append(f"  {name}: {text}")
    return "\n".join(lines)


def protocol_note(predictions: Mapping[str, Any]) -> str | None:
    """What answers about regions were asked of, which a figure must not go without.

    Args:
        predictions: of a report.

    Returns:
        One line; None for predictions whose header says nothing of it.
    """
    protocol = predictions.get("header", {}).get("protocol", {})
    said = [f"{name}={value}" for name, value in protocol.get("asked_of", {}).items()]
    if candidates := protocol.get("candidates"):
        detector = candidates.get("model")
        weights = str(candidates.get("weights_hash"))[:12]
        whose = f"of our detector {detector}, weights {weights}" if detector else "of a file"
        if candidates.get("annotated"):
            whose = "as annotated, every answer among them"
        said.insert(0, f"candidates {whose}: {candidates['file']}")
    return "; ".join(said) or None


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Nested groups of numbers as one mapping, names joined by dots."""
    flat: dict[str, float] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def format_table(values: Mapping[str, Any]) -> str:
    """Names and numbers in two columns."""
    flat = flatten(values)
    width = max(map(len, flat), default=0)
    return "\n".join(f"{name:<{width}}  {_number(value):>12}" for name, value in flat.items())


def describe_file(path: Path) -> dict[str, Any]:
    """Path, hash and, for prediction files, the header that says what made them."""
    description: dict[str, Any] = {"path": str(path)}
    if path.is_file():
        digest = hashlib.sha256()
        with path.open("rb") as stream:
            while block := stream.read(HASH_BLOCK):
                digest.update(block)
        description["sha256"] = digest.hexdigest()
        if is_prediction_file(path):
            description["header"] = read_header(path).as_dict()
    elif path.is_dir():
        description["files"] = [
            describe_file(file) for file in sorted(path.iterdir()) if is_prediction_file(file)
        ]
    return description


def _convert(key: str, text: str, kind: Any) -> Any:
    if typing.get_origin(kind) is Literal:
        choices = typing.get_args(kind)
        if text not in choices:
            raise ConfigError(f"option {key} must be one of {', '.join(choices)}, not {text!r}")
        return text
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ConfigError(f"option {key} must be true or false, not {text!r}")
        return text.lower() == "true"
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError as error:
            raise ConfigError(f"option {key} must be a number, not {text!r}") from error
    return text if kind is str else Path(text)


def _number(value: float) -> str:
    return f"{value:d}" if isinstance(value, int) else f"{value:.6f}"
