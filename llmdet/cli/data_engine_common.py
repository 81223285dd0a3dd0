"""What the engines of the command line share: their arguments, models and what they show."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmdet.utils.cli import count, fraction, none_or_more, write_result

if TYPE_CHECKING:
    from llmdet.chat import ChatModel
    from llmdet.data_engines.annotations import Annotations
    from llmdet.data_engines.flow import Progress
    from llmdet.data_engines.journal import Outcome
    from llmdet.data_engines.models import ModelSettings
    from llmdet.data_engines.runs import Run
    from llmdet.data_engines.similarity import ImageTextSimilarity, SimilarityFilter
    from llmdet.datasets.ledger import Ledger

_LOGGED_SECONDS = 10  # between two lines of progress in a file
_MILLION = 1e6


def add_annotation_arguments(
    parser: argparse.ArgumentParser, output: str = "JSONL file to write"
) -> None:
    """Add what an engine of annotated pictures reads and writes."""
    parser.add_argument("annotations", type=Path, help="annotation file, or folder (voc, yolo)")
    parser.add_argument("images", type=Path, help="folder of the pictures")
    parser.add_argument("output", type=Path, help=output)
    parser.add_argument("--from", dest="source", help="format, where the name does not tell it")
    parser.add_argument("--classes", type=Path, help="class names, where the file lacks them")
    parser.add_argument("--split", help="which part of a voc or yolo folder")


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add which model answers: one for all roles, or a config with one for each."""
    group = parser.add_argument_group("models")
    group.add_argument("--backend", choices=("transformers", "openai"), help="of one model for all")
    group.add_argument("--model", help="folder or name of that model")
    group.add_argument("--url", help="base url of its server (openai), ending in /v1")
    group.add_argument("--device", default="cuda", help="where it runs (transformers; cuda)")
    group.add_argument("--max-new-tokens", type=count, default=512, help="longest answer (512)")
    group.add_argument(
        "--batch-size",
        type=count,
        default=8,
        help="requests that are answered together (transformers) or sent at a time (openai; 8)",
    )
    group.add_argument(
        "--price",
        type=float,
        nargs=2,
        metavar=("PROMPT", "ANSWER"),
        help="of a million tokens: the cost is shown",
    )
    group.add_argument("--config", type=Path, help="Python file that names a model for each role")


def add_run_arguments(parser: argparse.ArgumentParser, overwrites: bool = True) -> None:
    """Add how the items go through."""
    group = parser.add_argument_group("the run")
    group.add_argument(
        "--in-flight",
        type=count,
        metavar="N",
        help="items at a time (twice what the models take, at least 32)",
    )
    group.add_argument(
        "--shard",
        type=_shard,
        metavar="I/N",
        help="only every N-th item from number I on, I = 0 ... N-1: for N machines",
    )
    group.add_argument(
        "--max-bad-rows",
        type=none_or_more,
        default=0,
        metavar="N",
        help="skip and count up to N broken rows or pictures",
    )
    if overwrites:
        group.add_argument(
            "--overwrite", action="store_true", help="replace OUTPUT where it exists"
        )


def add_filter_arguments(parser: argparse.ArgumentParser) -> None:
    """Add which descriptions stay, and what decides it."""
    group = parser.add_argument_group("which descriptions stay")
    model = group.add_mutually_exclusive_group(required=True)
    model.add_argument("--clip", help="folder or name of the CLIP or SigLIP that compares")
    model.add_argument("--no-filter", action="store_true", help="keep all")
    group.add_argument("--clip-batch-size", type=count, default=64, help="pairs at a time (64)")
    limit = group.add_mutually_exclusive_group()
    limit.add_argument(
        "--drop-lowest", type=fraction, metavar="PART", help="leave out the worst part (0.15)"
    )
    limit.add_argument(
        "--min-similarity", type=float, metavar="COSINE", help="leave out what is below this"
    )


def build_filter(args: argparse.Namespace) -> SimilarityFilter:
    """Which texts stay."""
    from llmdet.data_engines.similarity import SimilarityFilter

    return SimilarityFilter(**given(args, "drop_lowest", "min_similarity"))


def build_similarity(args: argparse.Namespace) -> ImageTextSimilarity | None:
    """What compares texts with pictures; None compares nothing."""
    from llmdet.data_engines.similarity import ImageTextSimilarity

    if args.no_filter:
        return None
    return ImageTextSimilarity(args.clip, args.device, args.clip_batch_size)


def _shard(text: str) -> Any:
    from llmdet.data_engines.flow import Shard
    from llmdet.errors import ConfigError

    try:
        index, _, total = text.partition("/")
        return Shard(int(index), int(total))
    except (ValueError, ConfigError):
        raise argparse.ArgumentTypeError(
            f"it is I/N with I from 0 to N-1, for example 0/8, not {text}"
        ) from None


def given(args: argparse.Namespace, *names: str) -> dict[str, Any]:
    """The arguments that a command line gives; the others keep their defaults."""
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


def read_annotations(args: argparse.Namespace) -> Annotations:
    """What a command line says about the annotated pictures."""
    from llmdet.data_engines.annotations import Annotations
    from llmdet.datasets.formats import ReadOptions

    options = ReadOptions(args.images, args.classes, split=args.split)
    return Annotations(args.annotations, args.images, args.source, options)


@dataclass(frozen=True)
class Roles:
    """The models of an engine, and what they cost."""

    models: Mapping[str, ChatModel]
    settings: Mapping[str, ModelSettings]

    @property
    def in_flight(self) -> int:
        """Items at a time that keep every model busy."""
        paces = [model.pace for model in self.models.values()]
        return max(32, *(2 * pace.batch_size * pace.concurrency for pace in paces))

    def spent(self) -> str:
        """Requests and tokens of this run, and their cost where every price is known."""
        priced = {id(self.models[role]): role for role in self.models}  # shared models count once
        usages = {role: self.models[role].usage for role in priced.values()}
        parts = [f"{sum(usage.requests for usage in usages.values()):,} requests"]
        tokens = (
            sum(usage.prompt_tokens for usage in usages.values()),
            sum(usage.answer_tokens for usage in usages.values()),
        )
        if any(tokens):
            parts.append(f"{tokens[0]:,} + {tokens[1]:,} tokens")
        prices = {role: self.settings[role].price for role in usages}
        if all(prices.values()):
            cost = sum(
                (usage.prompt_tokens * price[0] + usage.answer_tokens * price[1]) / _MILLION
                for usage, price in zip(usages.values(), prices.values(), strict=True)
                if price is not None
            )
            parts.append(f"cost {cost:,.4f}")
        return ", ".join(parts)


def build_roles(args: argparse.Namespace, roles: Iterable[str]) -> Roles:
    """The model of each role, from ``--config`` or one for all.

    Raises:
        ConfigError: neither or both are given, or something is missing in them.
    """
    from llmdet.data_engines.models import ModelSettings, build_models, read_model_settings
    from llmdet.errors import ConfigError

    if (args.config is None) == (args.backend is None):
        raise ConfigError("Name the models: by --backend and --model, or by --config.")
    if args.config is not None:
        from llmdet.utils.config import load_config

        settings = read_model_settings(load_config(args.config), roles)
    else:
        if args.model is None:
            raise ConfigError(f"--backend {args.backend} needs --model.")
        names = ("backend", "model", "url", "device", "max_new_tokens", "batch_size")
        price = args.price and tuple(args.price)
        one = ModelSettings(**given(args, *names), price=price)
        settings = dict.fromkeys(roles, one)
    return Roles(build_models(settings), settings)


def run_of(args: argparse.Namespace, roles: Roles) -> Run:
    """How items go through, by a command line."""
    from llmdet.data_engines.runs import Run

    in_flight = args.in_flight or roles.in_flight
    return Run(in_flight, progress=progress_of(roles), **given(args, "shard"))


def progress_of(roles: Roles) -> Progress:
    """A bar with the rate, what was left out, and what the models were asked for so far."""

    def begin(done: int, total: int | None) -> Callable[[Sequence[Outcome]], object]:
        from tqdm import tqdm

        interval = 0.2 if sys.stderr.isatty() else _LOGGED_SECONDS
        bar = tqdm(initial=done, total=total, unit="item", mininterval=interval)
        rejected: Counter[str] = Counter()

        def finished(outcomes: Sequence[Outcome]) -> None:
            for outcome in outcomes:
                rejected.update(cause for cause, _ in outcome.notes)
            bar.set_postfix_str(f"{rejected.total():,} rejects, {roles.spent()}", refresh=False)
            bar.update(len(outcomes))

        return finished

    return begin


def report(output: Path, rows: int, ledger: Ledger, roles: Roles) -> None:
    """Print what was written, what it took in this run, and what was left out."""
    write_result(f"{output}: {rows:,} rows ({roles.spent()})")
    if ledger.counts:
        write_result(ledger.report())
