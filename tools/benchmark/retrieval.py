"""Whether a tiny language model learns to detect by retrieval, on the toy set.

    python tools/benchmark/retrieval.py --work-dir work_dirs/retrieval
    python tools/benchmark/retrieval.py --work-dir DIR --seeds 0 --eye quickstart.pth
    python tools/benchmark/retrieval.py --work-dir DIR --short

Makes the toy set and, for each seed, trains the quickstart's detector (the eye), a detector of
proposals that begins with its weights, and two language models that name candidates: with questions
for what is not there, and without. They are asked about held-out images. What is complete in the
work dir is not repeated. Ends with tables in Markdown.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

# What runs with `python tools/benchmark/retrieval.py` finds the package beside it.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from llmdet.testing.seeded_jobs import SeededJobs, add_arguments, folder_and_eye
from llmdet.testing.toy_proposals import LIMITS, QUERIES, Proposer, shared_weights
from llmdet.testing.toy_trainings import toy_config, train, trained_weights
from llmdet.utils.cli import count, run_cli, write_result

if TYPE_CHECKING:
    import numpy as np

SPLITS = ("val_seen", "val_unseen")
#: Jobs of a seed; each needs those before it.
JOBS = ("eye", "proposals", "with rejection", "without rejection")
#: Title of a row -> the language model, candidates, and whether its answers are constrained.
ROWS = {
    "proposals": ("with rejection", "good", True),
    "annotated boxes as candidates": ("with rejection", "annotated", True),
    "proposals of a worse detector": ("with rejection", "worse", True),
    "free decoding": ("with rejection", "good", False),
    "trained without rejection": ("without rejection", "good", True),
}
COLUMNS = (
    "detect P",
    "detect R",
    "unseen P",
    "unseen R",
    "several P",
    "several R",
    "relate DF1",
    "absent rejected",
    "empty relation rejected",
    "falsely rejected",
)


@dataclass(frozen=True)
class Sizes:
    """How much is trained and asked."""

    eye_steps: int = 1400  # object queries of 800 know unseen combinations less well
    proposal_steps: int = 400
    worse_steps: int = 50
    steps: int = 2000  # of a language model
    images: int = 60  # asked about, of each split
    train: int = 1200
    val: int = 100
    candidates: int = 8  # proposals of an image


SHORT = Sizes(1, 1, 1, 2, images=2, train=8, val=4)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; nothing heavy is imported, so that --help answers at once."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument(
        "--eye",
        type=Path,
        help="checkpoint of configs/quickstart/llmdet.py that is the eye of all seeds; without it "
        "one is trained for each seed",
    )
    parser.add_argument(
        "--steps", type=count, default=Sizes.steps, help=f"of a language model ({Sizes.steps})"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Train what is missing, and print the tables."""
    args = parse_args(argv)
    folder, eye = folder_and_eye(args)
    bench = Bench(folder, SHORT if args.short else Sizes(steps=args.steps), eye)
    if args.run is not None:
        bench.run(args.run[0], int(args.run[1]))
        return 0
    bench.make_data()
    for name in JOBS[1:] if args.eye else JOBS:
        bench.run_all([name], args.seeds, args.processes)
    write_result("\n".join(tables([bench.results(seed) for seed in args.seeds])))
    return 0


@dataclass(frozen=True)
class Bench(SeededJobs):
    """Trainings and their results in a folder."""

    program, short_sizes = __file__, SHORT

    sizes: Sizes

    def place(self, name: str, seed: int) -> Path:
        """The folder of a job."""
        given = " given eye" if self.eye is not None and name != "eye" else ""
        return self.folder / f"{name}{given} seed{seed}".replace(" ", "_")

    def results(self, seed: int) -> dict[str, Any]:
        """What the jobs of a seed came to: title of a row -> its values."""
        found: dict[str, Any] = {}
        for name in JOBS[1:]:
            found |= self.result(name, seed)
        return found

    def make_data(self) -> None:
        """Write the toy set, shapes that it does not have, and models, where they are not there."""
        from llmdet.datasets.toy import ToySettings, generate
        from llmdet.datasets.toy.models import write_retrieval_language_model, write_toy_models
        from llmdet.datasets.toy.new_shapes import generate_new_shapes
        from llmdet.datasets.toy.retrieval import write_naming_rows, write_retrieval_rows

        generate(self.toy, ToySettings(train=self.sizes.train, val=self.sizes.val))
        write_toy_models(self.toy)
        annotations = self.toy / "annotations"
        write_retrieval_rows(self.toy, annotations / "train_retrieval.jsonl")
        write_naming_rows(self.toy, annotations / "train_naming.jsonl")
        write_retrieval_language_model(self.toy)
        if not (self.folder / "new_shapes").exists():
            generate_new_shapes(self.folder / "new_shapes", train=1, val=self.sizes.val)

    @property
    def options(self) -> list[str]:
        """How long language models train."""
        return [] if self.sizes == SHORT else ["--steps", str(self.sizes.steps)]

    def run(self, name: str, seed: int) -> None:
        """Train a detector, or a language model that is then asked; write ``result.json``."""
        folder = self.place(name, seed)
        folder.mkdir(parents=True, exist_ok=True)
        begin = time.process_time()
        if name == "eye":
            config = toy_config("configs/quickstart/llmdet.py", self.toy, self.sizes.eye_steps)
            config.train_dataloader.num_workers = 0
            train(config, folder, seed)
            result: dict[str, Any] = {}
        elif name == "proposals":
            result = self.propose(folder, seed)
        else:
            config = self.retrieval_config(name, seed)
            model = train(config, folder, seed)
            spent = {f"{name}, training": time.process_time() - begin}
            result = spent | self.ask(model, name, seed)
        result[f"{name}, seconds"] = time.process_time() - begin
        self.result_file(name, seed).write_text(json.dumps(result))

    def eye_weights(self, seed: int) -> Path:
        """The checkpoint of the eye."""
        return self.eye or trained_weights(self.place("eye", seed))

    def propose(self, folder: Path, seed: int) -> dict[str, Any]:
        """Train detectors of proposals, keep their boxes of all images, and measure their recall.

        Returns:
            Title -> average recall on new shapes of the best so many boxes.
        """
        import torch

        torch.manual_seed(seed)  # of what the eye's weights do not give
        result = {}
        for name, steps in (("worse", self.sizes.worse_steps), ("good", self.sizes.proposal_steps)):
            config = toy_config("configs/upn/toy.py", self.toy, steps)
            config.model.num_queries = config.model.test_cfg.max_per_img = QUERIES
            begin = shared_weights(config.model, self.eye_weights(seed), folder / "begin.pth")
            config.load_from = str(begin)
            train(config, folder / name, seed)
            proposer = Proposer.load(trained_weights(folder / name))
            kept = {
                split: proposer.best(self.toy / "images", files, self.sizes.candidates)
                for split, files in self.files().items()
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

    def retrieval_config(self, name: str, seed: int) -> Any:
        """The config of a language model, with its rows written."""
        import llmdet.testing.toy_eye  # noqa: F401  registers it
        from llmdet.datasets.toy.retrieval import write_retrieval_rows

        config = toy_config("configs/quickstart/retrieval.py", self.toy, self.sizes.steps)
        eye = {**config.model.towers.eye, "weights": str(self.eye_weights(seed))}
        config.model.towers.eye = {"type": "KeptQueries", "tower": eye}
        rows = self.place(name, seed) / "rows.jsonl"
        proposals = json.loads((self.place("proposals", seed) / "good.json").read_text())["train"]
        write_retrieval_rows(self.toy, rows, proposals, rejection=name == "with rejection")
        config.train_dataloader.dataset.datasets[0].ann_file = str(rows)
        return config

    def ask(self, model: Any, name: str, seed: int) -> dict[str, Any]:
        """Title of a row -> values of :data:`COLUMNS`, of the rows of a language model."""
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
            offered = truth if kept is None else _boxes(kept[split][row["filename"]])
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


def scores(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Values of :data:`COLUMNS` in percent, at an overlap of 0.5; of nothing, 0."""
    from llmdet.evaluation.humanref import REJECTION, HumanRefRecord, humanref_scores

    groups = {"absent": REJECTION, "refuse": REJECTION}
    records = [
        HumanRefRecord(
            id=number,
            domain=groups.get(row["task"], f"{row['task']}{' unseen' if row['unseen'] else ''}"),
            subdomain=row["task"],
            answers=_boxes(row["meant"]),
            persons=0,
        )
        for number, row in enumerate(rows)
    ]
    found = {number: row["found"] for number, row in enumerate(rows)}
    domains = humanref_scores(records, found)["domain"]
    missed = [not row["found"] for row in rows if row["meant"]]
    values = {"falsely rejected": _share(missed)}
    for task, name in (("absent", "absent"), ("refuse", "empty relation")):
        refused = [not row["found"] for row in rows if row["task"] == task]
        values[f"{name} rejected"] = _share(refused)
    for domain, name in (("detect", "detect"), ("detect unseen", "unseen"), ("several", "several")):
        for key, letter in (("precision_50", "P"), ("recall_50", "R")):
            values[f"{name} {letter}"] = 100 * domains.get(domain, {}).get(key, 0.0)
    values["relate DF1"] = 100 * domains.get("relate", {}).get("density_f1_50", 0.0)
    return {name: values[name] for name in COLUMNS}


def _share(values: Sequence[bool]) -> float:
    return 100 * mean(values) if values else 0.0


def _boxes(values: Any) -> np.ndarray:
    """[N, 4] float32 xyxy, without what stands behind."""
    import numpy as np

    return np.array([row[:4] for row in values], np.float32).reshape(-1, 4)


def tables(results: Sequence[dict[str, Any]]) -> list[str]:
    """Means and standard deviations over seeds in Markdown."""
    lines = ["", f"| percent | {' | '.join(COLUMNS)} |", f"|---{'|---' * len(COLUMNS)}|"]
    for title in ROWS:
        cells = [_cell([result[title][column] for result in results]) for column in COLUMNS]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    names = [f"AR@{limit}" for limit in LIMITS]
    lines += ["", f"| proposals of new shapes | {' | '.join(names)} |", "|---|---|---|"]
    for title in ("good", "worse"):
        cells = [
            _cell([result[f"recall of {title}"][name] for result in results]) for name in names
        ]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    spent = [result["with rejection, training"] for result in results]
    return [
        *lines,
        "",
        f"Seconds of the processor for the training of a language model: {_cell(spent)}",
    ]


def _cell(values: Sequence[float]) -> str:
    spread = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
    return f"{mean(values):.1f}{spread}"


if __name__ == "__main__":
    run_cli(main)
