"""What a tiny language model learns to answer with masks, on the toy set.

    python tools/benchmark/masks.py --work-dir work_dirs/masks
    python tools/benchmark/masks.py --work-dir DIR --seeds 0 --eye work_dirs/quickstart/latest.pth
    python tools/benchmark/masks.py --work-dir DIR --models heads
    python tools/benchmark/masks.py --work-dir DIR --short

Makes the toy set with its masks and trains the eye (a detector, once). For each seed it trains a
SAM and a language model of configs/unified/all_heads.py from nothing, the latter on lists of told
objects, then on questions that are answered in words, and from there on one task with masks alone,
on three together, and on everything ("heads"). What the frozen eye and SAM see of an image is
computed once. Trainings that are complete in the work dir are not repeated. Ends with tables in
Markdown.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# What runs with `python tools/benchmark/masks.py` finds the package beside it.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from llmdet.testing.seeded_jobs import SeededJobs, add_arguments, folder_and_eye
from llmdet.testing.tables import over_seeds, table
from llmdet.testing.toy_trainings import toy_config, train, trained_weights
from llmdet.utils.cli import run_cli, write_result

SPLITS = ("train", "val_seen", "val_unseen")
#: Name of a language model -> task of training rows -> its share of them.
MODELS = {
    "refer": {"refer": 1.0},
    "caption": {"caption": 1.0},
    "index": {"index": 1.0},
    "joint": {"refer": 1.0, "caption": 1.0, "index": 1.0},  # of each as much as alone
    "heads": {"words": 0.2, "refer": 0.15, "caption": 0.15, "index": 0.1, "mixed": 0.4},
}
#: What all of them start from: questions about regions, and what masks need to know; and before
#: it lists of objects whose kinds and places are told.
READING, WORDS = "reading", "words"
#: What stands before the models, each behind what it needs itself; models need the words.
NEEDS = {
    "sam": (),
    "eye": (),
    "look": ("eye",),
    READING: ("sam", "eye"),
    WORDS: ("look", READING),
}
TASKS_OF_WORDS = {WORDS: 0.25, "where": 0.2, "describe": 0.15, "listed": 0.4}
#: Of the tables; shares in percent.
MASK_COLUMNS = ("refer seen", "refer unseen", "recall", "recall with phrase", "mIoU", "index")
HEADS_COLUMNS = ("mask by index", "name", "index by name", "left, right, above, below")


@dataclass(frozen=True)
class Sizes:
    """How much is trained and asked."""

    eye_steps: int = 800
    sam_steps: int = 600
    reading_steps: int = 1200
    words_steps: int = 2500
    steps: int = 600  # on one task with masks; three times as many on several
    batch_size: int = 12  # conversations
    images: int = 60  # asked about, of each split
    train: int = 2000
    val: int = 200


SHORT = Sizes(
    eye_steps=1,
    sam_steps=1,
    reading_steps=1,
    words_steps=1,
    steps=1,
    batch_size=4,
    images=2,
    train=16,
    val=8,
)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; nothing heavy is imported, so that --help answers at once."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument(
        "--models", nargs="*", choices=MODELS, default=list(MODELS), help="none: the SAM alone"
    )
    parser.add_argument(
        "--eye",
        type=Path,
        help="checkpoint of configs/quickstart/llmdet.py or detector.py; default: one is trained",
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Train what is missing, and print the tables."""
    args = parse_args(argv)
    folder, eye = folder_and_eye(args)
    bench = Bench(folder, SHORT if args.short else Sizes(), eye)
    if args.run is not None:
        bench.run(args.run[0], int(args.run[1]))
        return 0
    bench.keep_to_one_eye()
    bench.make_data()
    if not args.models:
        bench.run_all(["sam"], args.seeds, args.processes)
        return 0
    names = [name for name in (*NEEDS, *args.models) if name != "eye" or args.eye is None]
    bench.run_all(names, args.seeds, args.processes)
    results = {name: [bench.result(name, seed) for seed in args.seeds] for name in args.models}
    write_result("\n".join(_tables(results)))
    return 0


@dataclass(frozen=True)
class Bench(SeededJobs):
    """Trainings and their results in a folder."""

    program, short_sizes, shared = __file__, SHORT, ("eye", "look")

    sizes: Sizes

    def needs(self, name: str) -> Sequence[str]:
        """See :class:`SeededJobs`."""
        return NEEDS.get(name, (WORDS,))

    def make_data(self) -> None:
        """Write the toy set with its conversations and models, where it is not there."""
        from llmdet.datasets.toy import ToySettings, generate
        from llmdet.datasets.toy.conversations import write_region_questions
        from llmdet.datasets.toy.masks import write_mask_questions
        from llmdet.datasets.toy.models import write_mask_language_model, write_toy_models

        generate(self.toy, ToySettings(train=self.sizes.train, val=self.sizes.val))
        write_toy_models(self.toy)
        write_region_questions(self.toy)
        write_mask_questions(self.toy)
        write_mask_language_model(self.toy)

    def run(self, name: str, seed: int) -> None:
        """Do one of the jobs and write ``result.json``."""
        import logging

        import torch

        from llmdet.testing.toy_sam import train_sam

        logging.basicConfig(level=logging.INFO, format="%(message)s")
        torch.set_num_threads(1)
        folder = self.place(name, seed)
        folder.mkdir(parents=True, exist_ok=True)
        begin = time.process_time()
        scores: dict[str, float] = {}
        if name == "eye":
            file = "configs/quickstart/detector.py"  # the quickstart without its language model
            config = toy_config(file, self.toy, self.sizes.eye_steps)
            config.train_dataloader.num_workers = 0
            train(config, folder, seed)
        elif name == "look":
            from llmdet.registry import MODELS as REGISTRY

            tower: Any = REGISTRY.build(self.config(seed).model.towers.eye)
            torch.save(self.looks(tower.eval()), folder / "kept.pt")
        elif name == "sam":
            train_sam(self.toy, folder, seed, self.sizes.sam_steps)
        elif name == READING:
            self.read(seed)
        elif name == WORDS:
            self.learn(name, seed)
        else:
            model, seen = self.learn(name, seed)
            scores["seconds"] = time.process_time() - begin
            scores = self.ask(model, seen, name, folder) | scores
        if "seconds" not in scores:
            scores["seconds"] = time.process_time() - begin
        (folder / "result.json").write_text(json.dumps(scores))

    def read(self, seed: int) -> None:
        """Train a language model on lists of told objects, and save it."""
        import torch

        from llmdet.datasets.toy.writer import read_scenes
        from llmdet.registry import MODELS as REGISTRY
        from llmdet.testing.kept_training import save_trained
        from llmdet.testing.told_objects import NumbersAndNames, ToldObjects, read_lists

        torch.manual_seed(seed)
        model: Any = REGISTRY.build(self.config(seed).model)
        told = ToldObjects(model.lmm.hidden_size)
        scenes = list(read_scenes(self.toy, "train"))
        read_lists(model, told, NumbersAndNames(scenes, self.sizes.reading_steps), seed)
        save_trained(model, self.place(READING, seed) / "weights.pth")

    def learn(self, name: str, seed: int) -> tuple[Any, dict[str, Any]]:
        """Train a language model and save it; it and what its towers see."""
        import torch

        from llmdet.checkpoint import load_weights
        from llmdet.registry import MODELS as REGISTRY
        from llmdet.testing.kept_training import Pool, Training, save_trained
        from llmdet.testing.kept_training import train as train_on_kept

        torch.manual_seed(seed)
        config = self.config(seed)
        model: Any = REGISTRY.build(config.model)
        kept = torch.load(self.place("look", seed) / "kept.pt", weights_only=False)
        seen = {"eye": kept, "sam": self.looks(model.towers["sam"].eval())}
        before = READING if name == WORDS else WORDS
        load_weights(model, self.place(before, seed) / "weights.pth")
        if name == WORDS:
            tasks, steps = TASKS_OF_WORDS, self.sizes.words_steps
        else:
            tasks = MODELS[name]
            steps = self.sizes.steps * (1 if len(tasks) == 1 else 3)
        training = Training(tasks, steps, self.sizes.batch_size, seed)
        train_on_kept(model, Pool(model, seen, self.rows("train")), config.optim_wrapper, training)
        save_trained(model, self.place(name, seed) / "weights.pth")
        return model, seen

    def ask(self, model: Any, seen: dict[str, Any], name: str, folder: Path) -> dict[str, float]:
        """Ask a model about what it has learned; its answers are kept too."""
        from llmdet.datasets.toy.masks import MIXED
        from llmdet.testing.kept_training import Pool
        from llmdet.testing.mask_answers import GIVEN_AS, ask, shares

        learned = {*MODELS[name], *(MIXED if "mixed" in MODELS[name] else ())} - {WORDS}
        pools = {
            split: Pool(model, seen, [r for r in self.rows(split) if r["task"] in learned])
            for split in SPLITS[1:]
        }
        asked = ask(model, pools, GIVEN_AS if "mixed" in learned else GIVEN_AS[:1])
        lines = (json.dumps(each) + "\n" for each in asked)
        (folder / "answers.jsonl").write_text("".join(lines))
        return shares(asked)

    def rows(self, split: str) -> list[dict[str, Any]]:
        """Conversations with masks, and those of training without."""
        names = [f"{split}_masks.jsonl", *(["train_regions.jsonl"] if split == "train" else [])]
        texts = [(self.toy / "annotations" / name).read_text() for name in names]
        rows = [json.loads(line) for text in texts for line in text.splitlines()]
        return [{"task": WORDS, **row} for row in rows]  # of regions, which name no task

    def config(self, seed: int) -> Any:
        """The config of the language models, with the eye and the SAM of this folder."""
        config = toy_config("configs/unified/all_heads.py", self.toy, self.sizes.steps)
        weights = self.eye or trained_weights(self.place("eye", seed))
        config.model.towers.eye.weights = str(weights)
        sam = str(self.place("sam", seed))
        config.model.towers.sam.model = config.model.output.outputs[1].decoder.model = sam
        return config

    def looks(self, tower: Any) -> dict[str, Any]:
        """What a tower sees of each image, by file name."""
        from llmdet.testing.kept import look_at_files

        files = []
        for split in SPLITS:
            found = sorted(path.name for path in (self.toy / "images" / split).iterdir())
            wanted = found if split == "train" else found[: self.sizes.images]
            files += [f"{split}/{name}" for name in wanted]
        return look_at_files(tower, self.toy / "images", files)


def _tables(results: Mapping[str, Sequence[Mapping[str, float]]]) -> list[str]:
    """Mean and standard deviation over seeds, in percent."""
    from llmdet.testing.mask_answers import GIVEN_AS

    learned = {"refer": MASK_COLUMNS[:2], "caption": MASK_COLUMNS[2:5], "index": MASK_COLUMNS[5:]}
    rows = {}
    for name, runs in results.items():
        known = learned.get(name, MASK_COLUMNS)
        cells = [_share(runs, key) if key in known else "" for key in MASK_COLUMNS]
        rows[name] = [*cells, over_seeds([run["seconds"] for run in runs], digits=0)]
    lines = table("trained on", [*MASK_COLUMNS, "seconds"], rows)
    if "heads" in results:
        given = {
            label: [_share(results["heads"], f"{key} {label}") for key in HEADS_COLUMNS]
            for label in (f"{kind}, {part}" for kind in GIVEN_AS for part in ("seen", "unseen"))
        }
        lines += table("heads, regions in", HEADS_COLUMNS, given)
    return lines


def _share(runs: Sequence[Mapping[str, float]], key: str) -> str:
    return over_seeds([run[key] for run in runs], 100)


if __name__ == "__main__":
    run_cli(main)
