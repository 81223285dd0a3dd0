"""What a tiny region language model learns of the toy set, with several eyes and region encoders.

    python tools/benchmark/region_lmm.py --work-dir work_dirs/region_lmm
    python tools/benchmark/region_lmm.py --work-dir DIR --tables main encoders --seeds 0 1 2
    python tools/benchmark/region_lmm.py --work-dir DIR --tables main --eye quickstart.pth
    python tools/benchmark/region_lmm.py --work-dir DIR --short

Makes the toy set, trains the eyes (detectors with and without a language model, a CLIP-like tower)
and one language model for each row of the tables and each seed, and asks about held-out images.
Trainings that are complete in the work dir are not repeated. Ends with tables in Markdown.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

# What runs with `python tools/benchmark/region_lmm.py` finds the package beside it.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from llmdet.testing.seeded_jobs import SeededJobs, add_arguments, folder_and_eye
from llmdet.testing.tables import over_seeds, table
from llmdet.testing.toy_trainings import toy_config, train, trained_weights
from llmdet.utils.cli import run_cli

SPLITS = ("val_seen", "val_unseen")


@dataclass(frozen=True)
class Variant:
    """A row of a table: what differs from ``configs/quickstart/region_lmm.py``."""

    eye: str = "with language"
    region: dict[str, Any] = field(default_factory=dict)  # settings of the region encoder
    image: dict[str, Any] = field(default_factory=dict)  # and of the image's
    refinement: str | None = None
    tower: dict[str, Any] = field(default_factory=dict)  # settings of the detector's memory


@dataclass(frozen=True)
class Sizes:
    """How much is trained and asked."""

    detector_steps: int = 800
    clip_steps: int = 1000
    region_steps: int = 1000
    images: int = 100  # asked about, of each split
    train: int = 2000
    val: int = 200


SHORT = Sizes(detector_steps=1, clip_steps=1, region_steps=2, images=2, train=16, val=8)
#: The eyes' configs; the third has none.
EYES = {
    "with language": "configs/quickstart/llmdet.py",
    "detector alone": "configs/quickstart/detector.py",
    "captions alone": "",
}
_MASK, _ROI = {"type": "MaskPool", "level": 0}, {"type": "RoIAlign", "levels": (0,)}
#: A tower's maps alone, whatever the tower is.
_MAPS = {"region": _MASK, "image": {"type": "AverageGrid", "size": 6, "level": 0}}
_MEMORY = {"tower": {"prompt": "", "queries": False}, **_MAPS}
VARIANTS = {
    "object query": Variant(),
    "RoIAlign": Variant(region=_ROI),
    "mask pool": Variant(region=_MASK),
    "alone, object query": Variant(eye="detector alone"),
    "alone, memory": Variant(eye="detector alone", **_MEMORY),
    "with language, memory": Variant(**_MEMORY),
    "captions": Variant(eye="captions alone", **_MAPS),
    **{
        f"captions, {kind}": Variant(eye="captions alone", refinement=kind, **_MAPS)
        for kind in ("bilinear", "deconv", "deconv+bilinear")
    },
}
#: Title of a table -> name of a row -> its variant.
TABLES = {
    "main": {"object queries of a detector taught with language": "object query"},
    "encoders": {name: name for name in ("object query", "RoIAlign", "mask pool")},
    "eyes": {
        "(a) memory of a detector trained without language": "alone, memory",
        "(b) memory of a detector trained with language": "with language, memory",
        "(c) CLIP-like tower trained on captions": "captions",
        "object queries of (a)": "alone, object query",
        "object queries of (b)": "object query",
    },
    "refinement": {
        "none": "captions",
        **{kind: f"captions, {kind}" for kind in ("bilinear", "deconv", "deconv+bilinear")},
    },
}
COLUMNS = (
    "classify seen",
    "classify unseen",
    "choose seen",
    "choose unseen",
    "exist",
    "yes-ratio",
    "relate",
    "seconds",
)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; nothing heavy is imported, so that --help answers at once."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument(
        "--eye",
        type=Path,
        help="checkpoint of configs/quickstart/llmdet.py that is the detector with language of all "
        "seeds; without it one is trained for each seed",
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
    bench.make_data()
    names = list(dict.fromkeys(name for table in args.tables for name in TABLES[table].values()))
    eyes = dict.fromkeys(VARIANTS[name].eye for name in names)
    if args.eye is not None:
        eyes.pop("with language", None)
    bench.run_all([*(f"eye {eye}" for eye in eyes), *names], args.seeds, args.processes)
    for chosen in args.tables:
        rows = {
            title: [bench.result(name, seed) for seed in args.seeds]
            for title, name in TABLES[chosen].items()
        }
        sys.stdout.write("\n".join(_table(chosen, rows)) + "\n")
    return 0


@dataclass(frozen=True)
class Bench(SeededJobs):
    """Trainings and their results in a folder."""

    program, short_sizes = __file__, SHORT

    sizes: Sizes

    def place(self, name: str, seed: int) -> Path:
        """The folder of a training."""
        variant = VARIANTS.get(name)
        given = self.eye is not None and variant is not None and variant.eye == "with language"
        return super().place(f"{name} given eye" if given else name, seed)

    def needs(self, name: str) -> Sequence[str]:
        """A language model needs its eye."""
        return [f"eye {VARIANTS[name].eye}"] if name in VARIANTS else []

    def make_data(self) -> None:
        """Write the toy set with its questions and models, where it is not there."""
        from llmdet.datasets.toy import ToySettings, generate
        from llmdet.datasets.toy.conversations import write_region_questions
        from llmdet.datasets.toy.models import write_region_language_model, write_toy_models

        generate(self.toy, ToySettings(train=self.sizes.train, val=self.sizes.val))
        write_toy_models(self.toy)
        write_region_questions(self.toy)
        write_region_language_model(self.toy)

    def run(self, name: str, seed: int) -> None:
        """Train an eye, or a language model that is then asked, and write ``result.json``."""
        folder = self.place(name, seed)
        folder.mkdir(parents=True, exist_ok=True)
        begin = time.process_time()
        if name == "eye captions alone":
            from llmdet.testing.toy_clip import train_clip

            train_clip(self.toy, folder, seed, self.sizes.clip_steps)
            scores: dict[str, float] = {}
        elif name.startswith("eye "):
            train(self.eye_config(name.removeprefix("eye ")), folder, seed)
            scores = {}
        else:
            config = self.region_config(VARIANTS[name], seed)
            model = train(config, folder, seed)
            spent = time.process_time() - begin
            scores = shares(ask(model, config, self.toy, self.sizes.images))
            begin = time.process_time() - spent
        scores["seconds"] = time.process_time() - begin
        (folder / "result.json").write_text(json.dumps(scores))

    def eye_config(self, eye: str) -> Any:
        """The config of a detector, which trains for as long with language as without."""
        config = toy_config(EYES[eye], self.toy, self.sizes.detector_steps)
        config.train_dataloader.num_workers = 0
        return config

    def region_config(self, variant: Variant, seed: int) -> Any:
        """The config of a language model about regions."""
        config = toy_config("configs/quickstart/region_lmm.py", self.toy, self.sizes.region_steps)
        model = config.model
        eye = self.place(f"eye {variant.eye}", seed)
        if variant.eye == "captions alone":
            model.towers.eye = {"type": "TransformersTower", "model": str(eye), "layers": [-1]}
        else:
            weights = self.eye if variant.eye == "with language" else None
            if weights is None:
                weights = trained_weights(eye)
            model.towers.eye.update(variant.tower, weights=str(weights))
        if variant.refinement is not None:
            scale = {} if variant.refinement == "deconv" else {"scale": 4}
            model.towers.eye = {
                "type": "RefinedTower",
                "tower": model.towers.eye,
                "refinement": variant.refinement,
                **scale,
            }
        for kind in ("region", "image"):
            if changes := getattr(variant, kind):
                model.slots[kind].encoder = dict(changes)
        return config


def ask(model: Any, config: Any, toy: Path, images: int) -> list[dict[str, Any]]:
    """The questions about the first images of each split, each row with what the model ``said``."""
    import torch
    from mmengine.dataset import pseudo_collate

    from llmdet.registry import DATASETS

    model.eval()
    asked = []
    for split in SPLITS:
        path = toy / "annotations" / f"{split}_regions.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        known = set(list(dict.fromkeys(row["filename"] for row in rows))[:images])
        count = sum(row["filename"] in known for row in rows)
        settings = config.train_dataloader.dataset | {"ann_file": f"annotations/{path.name}"}
        pipeline = [
            {**step, "settings": model.view_settings()} if step["type"] == "MakeViews" else step
            for step in settings["pipeline"]
        ]
        dataset = DATASETS.build({**settings, "pipeline": pipeline, "test_mode": True})
        for start in range(0, count, 64):
            chosen = range(start, min(start + 64, count))
            batch = pseudo_collate([dataset[number] for number in chosen])
            with torch.no_grad():
                samples = model.test_step(batch)
            for number, sample in zip(chosen, samples, strict=True):
                asked.append({**rows[number], "split": split, "said": sample.pred_text})
    return asked


def shares(asked: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Shares in 0..1 of right answers, and of "yes" where a kind is asked for; NaN of none."""
    found: dict[str, list[bool]] = {key: [] for key in COLUMNS[:-1]}
    for row in asked:
        task = row["task"]
        right = row["said"] == row["conversations"][1]["value"]
        if task in ("classify", "choose"):
            found[f"{task} {'unseen' if row['unseen'] else 'seen'}"].append(right)
        elif row["split"] == "val_seen" or task == "relate":
            found[task].append(right)
            if task == "exist":
                found["yes-ratio"].append(row["said"] == "yes")
    return {key: mean(values) if values else float("nan") for key, values in found.items()}


def _table(title: str, rows: dict[str, list[dict[str, float]]]) -> list[str]:
    """Mean and standard deviation over seeds, shares in percent."""

    def cell(key: str, runs: list[dict[str, float]]) -> str:
        return over_seeds([run[key] for run in runs], *((1, 0) if key == "seconds" else (100, 1)))

    cells = {name: [cell(key, runs) for key in COLUMNS] for name, runs in rows.items()}
    return table(title, COLUMNS, cells)


if __name__ == "__main__":
    run_cli(main)
