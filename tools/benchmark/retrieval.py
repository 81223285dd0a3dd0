"""Whether a tiny language model learns to detect by retrieval, on the toy set.

    python tools/benchmark/retrieval.py --work-dir work_dirs/retrieval
    python tools/benchmark/retrieval.py --work-dir DIR --seeds 0 --eye quickstart.pth
    python tools/benchmark/retrieval.py --work-dir DIR --short

Makes the toy set and trains the quickstart's detector (the eye, once). For each seed it trains a
detector of proposals that begins with the eye's weights, and two language models that name
candidates: with questions for what is not there, and without. These read lists of told objects
first; then a connector begins with features that stand for what was told, and pictures follow. What
the frozen eye sees of an image is computed once. They are asked about held-out images. What is
complete in the work dir is not repeated. Ends with tables in Markdown.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# What runs with `python tools/benchmark/retrieval.py` finds the package beside it.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from llmdet.testing.retrieval_answers import FOUND, REJECTED, as_boxes, scores
from llmdet.testing.seeded_jobs import SeededJobs, add_arguments, folder_and_eye
from llmdet.testing.tables import over_seeds, table
from llmdet.testing.toy_proposals import LARGE, LIMITS, SMALL, Proposer, shared_weights
from llmdet.testing.toy_trainings import toy_config, train, trained_weights
from llmdet.utils.cli import run_cli, write_result

SPLITS = ("val_seen", "val_unseen")
#: Jobs of all seeds, and of each -> those that they need.
SHARED = {"eye": (), "look": ("eye",)}
LEARNED = ("look", "proposals")
JOBS = {"proposals": ("eye",), "with rejection": LEARNED, "without rejection": LEARNED}
NOISE = 0.1  # of told tokens, of which a connector misses some
LEVEL = 0.5  # of the steps of reading, before the rate falls: sides are learned late
#: Title of a row -> the language model, candidates, and whether its answers are constrained.
ROWS = {
    "proposals": ("with rejection", "good", True),
    "annotated boxes as candidates": ("with rejection", "annotated", True),
    "proposals of a worse detector": ("with rejection", "worse", True),
    "free decoding": ("with rejection", "good", False),
    "trained without rejection": ("without rejection", "good", True),
}


@dataclass(frozen=True)
class Sizes:
    """How much is trained and asked."""

    eye_steps: int = 1550  # object queries of 800 know unseen combinations less well
    small_steps: int = 200  # of proposals on images as they are
    proposal_steps: int = 300  # behind them, on enlarged ones
    lists: int = 15000  # scenes that are told
    reading_steps: int = 2700
    first_steps: int = 700  # of them, of what is asked first
    connector_steps: int = 6000
    steps: int = 600  # of conversations about pictures
    batch_size: int = 16  # conversations
    images: int = 60  # asked about, of each split
    train: int = 1200
    outlines: int = 1200  # images of objects of any outline, for proposals
    val: int = 100
    candidates: int = 8  # proposals of an image


SHORT = Sizes(
    eye_steps=1,
    small_steps=1,
    proposal_steps=1,
    lists=20,
    reading_steps=2,
    first_steps=1,
    connector_steps=1,
    steps=1,
    batch_size=4,
    images=2,
    train=8,
    outlines=8,
    val=4,
)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; nothing heavy is imported, so that --help answers at once."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument(
        "--eye",
        type=Path,
        help="checkpoint of configs/quickstart/llmdet.py that is the eye; default: one is trained",
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
    names = [name for name in (*SHARED, *JOBS) if name != "eye" or args.eye is None]
    bench.run_all(names, args.seeds, args.processes)
    write_result("\n".join(tables([bench.results(seed) for seed in args.seeds])))
    return 0


@dataclass(frozen=True)
class Bench(SeededJobs):
    """Trainings and their results in a folder."""

    program, short_sizes, shared = __file__, SHORT, tuple(SHARED)

    sizes: Sizes

    def needs(self, name: str) -> Sequence[str]:
        """See :class:`SeededJobs`."""
        return (SHARED | JOBS)[name]

    def results(self, seed: int) -> dict[str, Any]:
        """What the jobs of a seed came to: title of a row -> its values."""
        found: dict[str, Any] = {}
        for name in JOBS:
            found |= self.result(name, seed)
        return found

    def make_data(self) -> None:
        """Write the toy set, shapes that it does not have, and models, where they are not there."""
        from llmdet.datasets.toy import ToySettings, generate
        from llmdet.datasets.toy.models import write_retrieval_language_model, write_toy_models
        from llmdet.datasets.toy.new_shapes import generate_new_shapes
        from llmdet.datasets.toy.outlines import generate_outlines
        from llmdet.datasets.toy.retrieval import write_retrieval_rows

        generate(self.toy, ToySettings(train=self.sizes.train, val=self.sizes.val))
        write_toy_models(self.toy)
        write_retrieval_rows(self.toy, self.toy / "annotations" / "train_retrieval.jsonl")
        write_retrieval_language_model(self.toy)
        if not (self.folder / "new_shapes" / "images").exists():
            generate_new_shapes(self.folder / "new_shapes", train=1, val=self.sizes.val)
        # Configs call it data/toy_outlines, beside data/toy.
        outlines = self.folder / "toy_outlines"
        if not (outlines / "images").exists():
            generate_outlines(outlines, self.sizes.outlines)

    def run(self, name: str, seed: int) -> None:
        """Do one of the jobs and write ``result.json``."""
        import logging

        import torch

        logging.basicConfig(level=logging.INFO, format="%(message)s")
        torch.set_num_threads(1)
        folder = self.place(name, seed)
        folder.mkdir(parents=True, exist_ok=True)
        begin = time.process_time()
        if name == "eye":
            config = toy_config("configs/quickstart/llmdet.py", self.toy, self.sizes.eye_steps)
            config.train_dataloader.num_workers = 0
            train(config, folder, seed)
            result: dict[str, Any] = {}
        elif name == "look":
            torch.save(self.looks(), folder / "kept.pt")
            result = {}
        elif name == "proposals":
            result = self.propose(folder, seed)
        else:
            model = self.learn(name, seed)
            spent = {f"{name}, training": time.process_time() - begin}
            result = spent | self.ask(model, name, seed)
        result[f"{name}, seconds"] = time.process_time() - begin
        self.result_file(name, seed).write_text(json.dumps(result))

    @property
    def eye_weights(self) -> Path:
        """The checkpoint of the eye."""
        return self.eye or trained_weights(self.place("eye", 0))

    def looks(self) -> dict[str, Any]:
        """What the eye sees of training images, by file name."""
        from llmdet.registry import MODELS
        from llmdet.testing.kept import look_at_files

        tower: Any = MODELS.build(self.retrieval_config().model.towers.eye)
        return look_at_files(tower.eval(), self.toy / "images", self.files()["train"], levels=0)

    def propose(self, folder: Path, seed: int) -> dict[str, Any]:
        """Train a detector of proposals, keep its boxes of images, and measure their recall.

        After the first part it is the worse one, of whose boxes no conversations are learned.

        Returns:
            Title -> recall on new shapes of the best so many boxes.
        """
        import torch

        torch.manual_seed(seed)  # of what the eye's weights do not give
        sizes, result = self.sizes, {}
        model = toy_config(SMALL, self.toy, 1).model
        begin = shared_weights(model, self.eye_weights, folder / "begin.pth")
        for name, file, steps in (
            ("worse", SMALL, sizes.small_steps),
            ("good", LARGE, sizes.proposal_steps),
        ):
            config = toy_config(file, self.toy, steps)
            config.load_from = str(begin)
            train(config, folder / name, seed)
            begin = trained_weights(folder / name)
            proposer = Proposer.load(file, begin)
            kept = {
                split: proposer.best(self.toy / "images", files, sizes.candidates)
                for split, files in self.files().items()
                if name == "good" or split in SPLITS
            }
            (folder / f"{name}.json").write_text(json.dumps(kept))
            result[f"recall of {name}"] = proposer.recall(self.folder / "new_shapes")
        return result

    def files(self) -> dict[str, list[str]]:
        """The images of each split that are learned or asked about."""
        from llmdet.datasets.toy.retrieval import detection_rows

        most = {"train": self.sizes.train, **dict.fromkeys(SPLITS, self.sizes.images)}
        return {
            split: [row["filename"] for row in detection_rows(self.toy, split)][:number]
            for split, number in most.items()
        }

    def retrieval_config(self) -> Any:
        """The config of a language model, with the eye of this folder."""
        config = toy_config("configs/quickstart/retrieval.py", self.toy, self.sizes.steps)
        config.model.towers.eye.weights = str(self.eye_weights)
        return config

    def learn(self, name: str, seed: int) -> Any:
        """Train a language model and save it."""
        import torch

        from llmdet.datasets.toy.masks import MaskedObjects
        from llmdet.datasets.toy.writer import read_scenes
        from llmdet.registry import MODELS, TRANSFORMS
        from llmdet.testing.kept_training import Pool, Training, save_trained
        from llmdet.testing.kept_training import train as train_on_kept
        from llmdet.testing.search_lesson import LATE, Searches
        from llmdet.testing.told_objects import (
            NamedObjects,
            begin_connector,
            draw_scenes,
            read_lists,
        )

        torch.manual_seed(seed)
        sizes, config = self.sizes, self.retrieval_config()
        model: Any = MODELS.build(config.model)
        told = NamedObjects(model.lmm)
        rejection = name == "with rejection"
        lists = draw_scenes(sizes.lists, seed)
        lesson = Searches(lists, sizes.reading_steps, sizes.first_steps, rejection)
        read_lists(model, told, lesson, seed, noise=NOISE, level=LEVEL)
        kept = torch.load(self.place("look", seed) / "kept.pt", weights_only=False)
        images = [
            (kept[file], MaskedObjects.of_scene(scene))
            for file, scene in zip(
                self.files()["train"], read_scenes(self.toy, "train"), strict=True
            )
        ]
        begin_connector(model, told, images, sizes.connector_steps, seed)
        mixed: Any = TRANSFORMS.build(config.mixed)
        pool = Pool(model, {"eye": kept}, self.rows(name, seed), mixed.transform)
        training = Training(LATE, sizes.steps, sizes.batch_size, seed)
        train_on_kept(model, pool, config.optim_wrapper, training)
        save_trained(model, self.place(name, seed) / "weights.pth")
        return model

    def rows(self, name: str, seed: int) -> list[dict[str, Any]]:
        """Training conversations, with proposals."""
        from llmdet.datasets.toy.retrieval import write_retrieval_rows

        path = self.place(name, seed) / "rows.jsonl"
        proposals = json.loads((self.place("proposals", seed) / "good.json").read_text())["train"]
        write_retrieval_rows(self.toy, path, proposals, rejection=name == "with rejection")
        return [json.loads(line) for line in path.read_text().splitlines()]

    def ask(self, model: Any, name: str, seed: int) -> dict[str, Any]:
        """Title of a row -> what :func:`scores` gives, of the rows of a language model."""
        from llmdet.apis import RegionChat

        chat = RegionChat(model)
        result = {}
        for title, (of, candidates, constrained) in ROWS.items():
            if of != name:
                continue
            model.output.constrained = constrained
            kept = None
            if candidates != "annotated":
                path = self.place("proposals", seed) / f"{candidates}.json"
                kept = json.loads(path.read_text())
            result[title] = scores(
                [row for split in SPLITS for row in self.answers(chat, split, kept)]
            )
        return result

    def answers(
        self, chat: Any, split: str, kept: dict[str, dict[str, Any]] | None
    ) -> list[dict[str, Any]]:
        """Each search of a split with the boxes that are meant, and those that were found."""
        import numpy as np

        from llmdet.datasets.toy.retrieval import FIND, detection_rows, searches_of
        from llmdet.datasets.toy.vocabulary import ALL_KINDS, SEEN

        kinds = ALL_KINDS if split == "val_unseen" else SEEN
        rows = []
        for number, row in enumerate(detection_rows(self.toy, split)):
            if number == self.sizes.images:
                break
            truth = np.array([each["bbox"] for each in row["detection"]["instances"]], np.float32)
            offered = truth if kept is None else as_boxes(kept[split][row["filename"]])
            asked = searches_of(row, np.random.default_rng([0, number]), kinds)
            image = self.toy / "images" / row["filename"]
            phrases = [search.phrase for search in asked]
            found = chat.find_each(image, phrases, offered, keep="first", wording=FIND)
            rows += [
                {
                    "task": search.task,
                    "unseen": search.unseen,
                    "meant": truth[list(search.objects)].tolist(),
                    "found": each.boxes.tolist(),
                }
                for search, each in zip(asked, found, strict=True)
            ]
        return rows


def tables(results: Sequence[dict[str, Any]]) -> list[str]:
    """Means and standard deviations over seeds in Markdown."""

    def rows(columns: Sequence[str]) -> dict[str, list[str]]:
        return {
            title: [over_seeds(result[title][column] for result in results) for column in columns]
            for title in ROWS
        }

    names = [f"{letters}@{limit}" for letters in ("AR", "R") for limit in LIMITS]
    recalls = {
        title: [
            over_seeds(result[f"recall of {title}"][name] for result in results) for name in names
        ]
        for title in ("good", "worse")
    }
    spent = over_seeds(result["with rejection, training"] for result in results)
    return [
        *table("found, percent", FOUND, rows(FOUND)),
        *table("rejected, percent", REJECTED, rows(REJECTED)),
        *table("proposals of new shapes", names, recalls),
        "",
        f"Seconds of the processor for the training of a language model: {spent}",
    ]


if __name__ == "__main__":
    run_cli(main)
