"""Check everything that training needs before training: files, prompts, samples, learning.

    python tools/doctor.py configs/finetune/coco_json.py --cfg-options data_root=FOLDER

Ends with "ready", or with a list of what to fix. Pictures of decoded training samples go to
OUT/contact_sheet.png.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmdet.cli.model import add_model_options
from llmdet.utils.cli import count, positive, write_result

if TYPE_CHECKING:
    from mmengine.config import Config

    from llmdet.apis.doctor import Findings
    from llmdet.datasets.inspection import SeenSample

OVERFIT_IMAGES = 8


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; nothing heavy is imported, so that --help answers at once."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="config file")
    parser.add_argument("--out", type=Path, default=Path("work_dirs/doctor"), help="folder")
    parser.add_argument("--num", type=count, default=16, help="samples on the contact sheet")
    parser.add_argument(
        "--pictures", type=int, default=500, help="pictures of each file to open and measure"
    )
    parser.add_argument(
        "--steps", type=int, default=40, help="steps of overfitting 8 images; 0 leaves it out"
    )
    parser.add_argument(
        "--lr", type=positive, help="learning rate of overfitting; default: config's"
    )
    add_model_options(parser, weights="random weights, from which overfitting begins")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program on a command line; returns 1 where something must be fixed."""
    args = parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    from mmengine.runner import set_random_seed
    from tqdm import tqdm

    from llmdet.apis.building import choose_device
    from llmdet.apis.doctor import (
        Findings,
        check_prompts,
        check_split,
        compare_classes,
        load_packed,
    )
    from llmdet.utils.config import load_model_config

    config = load_model_config(args.config, args.cfg_options)
    args.device = str(choose_device(args.device))
    set_random_seed(0)
    findings = Findings(write_result, lambda steps, total: tqdm(steps, total=total, leave=False))
    datasets = {
        split: check_split(config, split, findings, args.pictures) for split in splits(config)
    }
    built = {split: dataset for split, dataset in datasets.items() if dataset is not None}
    check_prompts(config, built.values(), findings)
    train = built.pop("train", None)
    if train is not None:
        for split, dataset in built.items():
            compare_classes(train, dataset, split, findings)
        packed, seen = load_packed(train, max(args.num, OVERFIT_IMAGES), findings)
        draw(seen[: args.num], args.out)
        if args.steps:
            learn(config, packed[:OVERFIT_IMAGES], findings, args)
    return conclude(findings)


def splits(config: Config) -> list[str]:
    """Those of train, val and test that the config has, each set of files once."""
    loaders: list[Any] = []
    names = []
    for split in ("train", "val", "test"):
        loader = config.get(f"{split}_dataloader")
        if loader is not None and loader not in loaders:
            loaders.append(loader)
            names.append(split)
    return names


def draw(seen: Sequence[SeenSample], out: Path) -> None:
    """Put samples with boxes and phrases on one page."""
    from llmdet.visualization.drawing import draw_detections
    from llmdet.visualization.pictures import save_picture
    from llmdet.visualization.sheet import contact_sheet

    if not seen:
        return
    pictures = []
    for sample in seen:
        pictures.append(
            draw_detections(sample.image, sample.boxes, sample.labels, sample.phrases).picture
        )
    texts = [f"{Path(s.path).name}: {s.text} | {s.caption or 'no caption'}" for s in seen]
    save_picture(contact_sheet(pictures, texts), out / "contact_sheet.png")
    write_result(f"{out / 'contact_sheet.png'}: {len(seen)} samples as the model gets them")


def learn(
    config: Config, packed: list[dict[str, Any]], findings: Findings, args: argparse.Namespace
) -> None:
    """Overfit the samples."""
    from llmdet.apis.doctor import check_learning

    check_learning(
        config,
        packed,
        findings,
        device=args.device,
        steps=args.steps,
        lr=args.lr,
        weights=args.weights,
    )


def conclude(findings: Findings) -> int:
    """Print the verdict; returns the exit code."""
    if not findings.problems:
        write_result("ready")
        return 0
    write_result(f"to fix ({len(findings.problems)}):")
    for problem in findings.problems:
        write_result(f"  - {problem}")
    return 1
