"""What language supervision does to a tiny detector on the toy set, over several seeds.

    python tools/benchmark/language_supervision.py --work-dir work_dirs/language_supervision
    python tools/benchmark/language_supervision.py --work-dir DIR --seeds 0 1 2 --processes 2

Trains the quickstart's detector with and without the language model once per seed, everything else
equal; measures both on held-out images, and what the first says about them. Runs that are complete
in the work dir are not repeated. Ends with tables in Markdown and ``losses.svg``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from math import nan
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

# What runs with `python tools/benchmark/language_supervision.py` finds the package beside it.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from llmdet.testing.tables import over_seeds, table
from llmdet.utils.cli import run_cli

if TYPE_CHECKING:
    from llmdet import Detector
    from llmdet.datasets.toy.judge import Tally
    from llmdet.datasets.toy.vocabulary import Kind

    #: What is right in a description, kinds of the N boxes, and which words of their phrases are
    #: right: colour and shape.
    Judged = tuple[Tally, list[Kind], list[tuple[bool, bool]]]

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = {
    "with language": "configs/quickstart/llmdet.py",
    "detector alone": "configs/quickstart/detector.py",
}
#: Losses of the detector's last layer, which both kinds of run have.
DETECTION_LOSSES = ("loss_cls", "loss_bbox", "loss_iou")
SPLITS = {"val_seen": "seen in training", "val_unseen": "with unseen combinations"}
TOY = ROOT / "data" / "toy"


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; nothing heavy is imported, so that --help answers at once."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work-dir", type=Path, required=True, help="gets a folder per run")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="(default 0 1 2)")
    parser.add_argument(
        "--processes",
        type=int,
        choices=(1, 2, 4, 8),
        default=2,
        help="of each training (default 2)",
    )
    parser.add_argument("--images", type=int, default=100, help="described per split (default 100)")
    parser.add_argument(
        "--cfg-options", nargs="+", default=[], help="for each training, as in tools/train.py"
    )
    parser.add_argument(
        "--language-only",
        action="store_true",
        help="leave out the detector alone, as for settings that it does not have",
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Train, measure, and print the tables."""
    args = parse_args(argv)
    curves: dict[str, list[list[tuple[int, float]]]] = {}
    detection: dict[str, list[dict[str, float]]] = {}
    captions: list[dict[str, float]] = []
    for name, config in list(CONFIGS.items())[: 1 if args.language_only else None]:
        for seed in args.seeds:
            folder = args.work_dir.resolve() / f"{Path(config).stem}_seed{seed}"
            checkpoint = train(config, seed, folder, args.processes, args.cfg_options)
            curves.setdefault(name, []).append(detection_curve(folder))
            detection.setdefault(name, []).append(measure(config, checkpoint, folder))
            if config == CONFIGS["with language"]:
                captions.append(describe(config, checkpoint, folder, args.images))
    draw_curves(curves, args.work_dir / "losses.svg")
    sys.stdout.write(report(curves, detection, captions, unrelated_descriptions(args.images)))
    return 0


def train(config: str, seed: int, folder: Path, processes: int, options: Sequence[str]) -> Path:
    """Train once; returns the checkpoint."""
    last = folder / "last_checkpoint"
    if not last.is_file():
        shutil.rmtree(folder, ignore_errors=True)  # what an interrupted run left
        folder.mkdir(parents=True)
        command = ["bash", "dist_train.sh", config, str(processes), "--work-dir", str(folder)]
        command += ["--cfg-options", f"randomness.seed={seed}"]
        command += [f"train_dataloader.batch_size={8 // processes}", *options]
        run(command, folder / "train.log")
    return folder / last.read_text().strip()  # named as seen from there


def run(command: Sequence[str], log: Path) -> None:
    """Run in the environment of this program; what it prints goes to ``log``.

    Raises:
        SystemExit: it failed.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    variables = {**os.environ, "VIRTUAL_ENV": sys.prefix, "PATH": path, "python": sys.executable}
    with log.open("w") as stream:
        done = subprocess.run(
            command, cwd=ROOT, env=variables, stdout=stream, stderr=subprocess.STDOUT
        )
    if done.returncode != 0:
        raise SystemExit(f"'{' '.join(command)}' failed; see {log}")


def detection_curve(folder: Path) -> list[tuple[int, float]]:
    """(step, sum of the last layer's detection losses) as logged."""
    path = max(folder.glob("*/vis_data/scalars.json"))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [
        (row["step"], sum(row[key] for key in DETECTION_LOSSES)) for row in rows if "loss" in row
    ]


def measure(config: str, checkpoint: Path, folder: Path) -> dict[str, float]:
    """AP on held-out images, in 0..1."""
    results = [
        folder / f"{split}_{metric}.json"
        for split in SPLITS
        for metric in ("coco", "lvis-fixed-ap")
    ]
    if not all(result.is_file() for result in results):
        command = ["bash", "demo/measure.sh", config, str(checkpoint), str(folder)]
        run(command, folder / "measure.log")
    values = {
        (split, metric): json.loads((folder / f"{split}_{metric}.json").read_text())["values"]
        for split in SPLITS
        for metric in ("coco", "lvis-fixed-ap")
    }
    seen, unseen = values["val_seen", "coco"], values["val_unseen", "coco"]
    return {
        "seen AP50": seen["AP50"],
        "seen AP": seen["AP"],
        "unseen AP50": unseen["novel_ap50"],
        "unseen AP": unseen["novel_ap"],
        "unseen fixed AP": values["val_unseen", "lvis-fixed-ap"]["APr"],
    }


def describe(config: str, checkpoint: Path, folder: Path, count: int) -> dict[str, float]:
    """Shares in 0..1 of what is right in captions of images and of their annotated boxes.

    Of all images, and of those alone that have a photograph behind the objects. NaN where there
    was nothing to judge.
    """
    path = folder / f"said_{count}.json"  # the folder is emptied before a training
    if path.is_file():
        return json.loads(path.read_text())
    from llmdet import Detector
    from llmdet.datasets.toy.vocabulary import CLASS_NAMES, SEEN_NAMES
    from llmdet.datasets.toy.writer import read_scenes

    detector = Detector.from_pretrained(ROOT / config, checkpoint, captions=True)
    shares: dict[str, float] = {}
    for split, title in SPLITS.items():
        names = list(SEEN_NAMES if split == "val_seen" else CLASS_NAMES)  # as for AP
        scenes = list(read_scenes(TOY, split))[:count]
        rows = read_rows(f"{split}_detection.jsonl", count)
        judged = [judge(detector, row, names) for row in rows]
        shares |= shares_of(title, judged)
        before = [each for each, s in zip(judged, scenes, strict=True) if s.photograph]
        shares |= shares_of(f"{title}, before photographs", before)
    path.write_text(json.dumps(shares))
    return shares


def judge(detector: Detector, row: dict[str, Any], names: list[str]) -> Judged:
    """What a detector says of an image, and of each of its N annotated boxes, beside the truth."""
    import numpy as np

    from llmdet.datasets.toy.judge import judge_description, judge_phrase

    kinds, boxes = annotated(row)
    said = detector.predict(
        TOY / "images" / row["filename"],
        names,
        boxes=np.array(boxes, np.float32),
        generation={"max_new_tokens": 200},
    )
    size = (row["width"], row["height"])
    right = [judge_phrase(text, kind) for text, kind in zip(said.captions, kinds, strict=True)]
    return judge_description(said.description, kinds, boxes, size), kinds, right


def shares_of(title: str, judged: Sequence[Judged]) -> dict[str, float]:
    """Shares in 0..1 of what was judged right, named ``title: what``."""
    import numpy as np

    from llmdet.datasets.toy.judge import Tally
    from llmdet.datasets.toy.vocabulary import HELD_OUT

    shares = sum((tally for tally, _, _ in judged), Tally()).shares()
    kinds = [kind for _, each, _ in judged for kind in each]
    words = np.array([each for _, _, phrases in judged for each in phrases]).reshape(-1, 2)
    right = np.column_stack([words, words.all(1)])
    unseen = np.array([kind in HELD_OUT for kind in kinds], bool)
    for kind, chosen in (("seen", ~unseen), ("unseen", unseen)):
        of_kind = right[chosen].mean(0) if chosen.any() else [nan] * 3
        for word, share in zip(("colour", "shape", "both"), of_kind, strict=True):
            shares[f"{kind} {word}"] = share
    return {f"{title}: {key}": float(share) for key, share in shares.items()}


def unrelated_descriptions(count: int) -> dict[str, float]:
    """Shares of what is right by chance: captions of training images, said of held-out ones."""
    from llmdet.datasets.toy.judge import Tally, judge_description

    texts = [row["conversations"][1]["value"] for row in read_rows("train_grounding.jsonl", count)]
    shares: dict[str, float] = {}
    for split, title in SPLITS.items():
        tally = Tally()
        for text, row in zip(texts, read_rows(f"{split}_detection.jsonl", count), strict=True):
            tally += judge_description(text, *annotated(row), (row["width"], row["height"]))
        shares |= {f"{title}: {key}": share for key, share in tally.shares().items()}
    return shares


def read_rows(name: str, count: int) -> list[dict[str, Any]]:
    """The first rows of a JSONL file of the toy set."""
    lines = (TOY / "annotations" / name).read_text().splitlines()
    return [json.loads(line) for line in lines[:count]]


def annotated(row: dict[str, Any]) -> tuple[list[Kind], list[list[float]]]:
    """Kinds and xyxy boxes of a row's N objects."""
    from llmdet.datasets.toy.vocabulary import Kind

    instances = row["detection"]["instances"]
    kinds = [Kind(*instance["category"].split()) for instance in instances]
    return kinds, [instance["bbox"] for instance in instances]


def draw_curves(curves: dict[str, list[list[tuple[int, float]]]], path: Path) -> None:
    """Draw each run as a thin line and the mean of its kind as a thick one."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "llmdet"  # equal curves, equal file
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for colour, (name, runs) in zip(("tab:blue", "tab:orange"), curves.items(), strict=False):
        for curve in runs:
            axes.plot(*zip(*curve, strict=True), color=colour, alpha=0.3, linewidth=0.8)
        steps, _ = zip(*runs[0], strict=True)
        means = [mean(values) for values in zip(*map(_losses, runs), strict=True)]
        axes.plot(steps, means, color=colour, linewidth=2, label=name)
    axes.set_xlabel("step")
    axes.set_ylabel("detection loss of the last decoder layer")
    axes.set_yscale("log")
    axes.legend()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _losses(curve: list[tuple[int, float]]) -> list[float]:
    return [loss for _, loss in curve]


def report(
    curves: dict[str, list[list[tuple[int, float]]]],
    detection: dict[str, list[dict[str, float]]],
    captions: list[dict[str, float]],
    chance: dict[str, float],
) -> str:
    """The tables: mean and standard deviation over seeds, shares and AP in percent."""
    lines = _table("AP on held-out images", detection)
    steps = [step for step, _ in next(iter(curves.values()))[0]]
    chosen = steps[len(steps) // 5 - 1 :: max(len(steps) // 5, 1)] if len(steps) > 5 else steps
    losses = {
        name: [{f"step {s}": dict(curve)[s] for s in chosen} for curve in runs]
        for name, runs in curves.items()
    }
    lines += _table("detection loss of the last decoder layer", losses, scale=1, digits=2)
    said = {}
    for title in SPLITS.values():
        said[title] = [_of(run, title) for run in captions]
        said[f"{title}, by chance"] = [_of(chance, title)]
    for title in SPLITS.values():
        photographs = f"{title}, before photographs"
        said[photographs] = [_of(run, photographs) for run in captions]
    lines += _table("captions of images", said)
    return "\n".join(lines) + "\n"


def _of(shares: dict[str, float], title: str) -> dict[str, float]:
    lead = f"{title}: "
    return {key.removeprefix(lead): share for key, share in shares.items() if key.startswith(lead)}


def _table(
    title: str, rows: dict[str, list[dict[str, float]]], scale: float = 100, digits: int = 1
) -> list[str]:
    keys = list(next(iter(rows.values()))[0])
    cells = {
        name: [over_seeds([run.get(key, nan) for run in runs], scale, digits) for key in keys]
        for name, runs in rows.items()
    }
    return table(title, keys, cells)


if __name__ == "__main__":
    run_cli(main)
