"""Train for thousands of iterations and say whether memory, open files and logs stay flat.

python tools/benchmark/long_run.py --iterations 2000 --workers 2
python tools/benchmark/long_run.py CONFIG --iterations 2000 --cfg-options KEY=VALUE ...

Without CONFIG a tiny detector learns toy images, with a validation and checkpoints on the way.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

# What runs with `python tools/benchmark/long_run.py` finds the package beside it.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from llmdet.utils.cli import add_config_options, count, fast_startup, run_cli

if TYPE_CHECKING:
    from mmengine.config import Config

SIDE = 64  # pixels of a toy image


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; nothing heavy is imported, so that --help answers at once."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", nargs="?", help="default: a tiny detector and toy images")
    parser.add_argument("--iterations", type=count, default=2000)
    parser.add_argument("--workers", type=int, default=2, help="of the training's data loader")
    parser.add_argument("--every", type=count, default=20, help="iterations between two looks")
    add_config_options(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program on a command line; returns 1 where something grows."""
    args = parse_args(argv)
    with fast_startup():
        from llmdet.testing.resources import ResourceHook, trends
        from llmdet.utils.config import load_config

    with tempfile.TemporaryDirectory() as folder:
        config = load_config(args.config or toy_config(Path(folder)), args.cfg_options)
        watch = ResourceHook(args.every)
        train(config, Path(folder) / "run", args, watch)
        print(f"{'':28}{'at 10%':>12}{'at the end':>12}{'per 1,000 iterations':>22}")
        grows = False
        for trend in trends(watch.looks):
            print(
                f"{trend.name:28}{trend.begin:12,.1f}{trend.end:12,.1f}{trend.slope:22,.3f}"
                f"{'  grows' if trend.grows else ''}"
            )
            grows |= trend.grows
        written = sum(path.stat().st_size for path in Path(folder, "run").glob("*/**/*.*"))
        print(f"logs: {written / args.iterations:,.0f} bytes an iteration")
    return int(grows)


def train(config: Config, work_dir: Path, args: argparse.Namespace, watch: Any) -> None:
    """Train for as long as was asked for."""
    from llmdet.engine import build_runner

    config.work_dir = str(work_dir)
    config.train_cfg.max_iters = args.iterations
    config.train_dataloader.num_workers = args.workers
    runner = build_runner(config)
    runner.register_hook(watch, "LOWEST")
    runner.train()


def toy_config(folder: Path) -> str:
    """Write toy images, a tiny text encoder and a config; returns the config's path."""
    from llmdet.datasets.toy import ToySettings, generate
    from llmdet.datasets.toy.models import tiny_bert
    from llmdet.testing.models import tiny_config

    data = generate(folder / "toy", ToySettings(train=32, val=8, size=SIDE))
    bert = str(tiny_bert(folder / "bert"))
    base = Path(__file__).resolve().parents[2] / "configs" / "_base_"
    path = folder / "toy.py"
    path.write_text(
        f"""
_base_ = ["{base}/default_runtime.py", "{base}/schedules/quickstart.py"]
model = {tiny_config(bert)!r}
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="FixScaleResize", scale=({SIDE}, {SIDE}), keep_ratio=True),
    dict(type="RandomSamplingNegPos", tokenizer_name="{bert}", num_sample_negative=5,
         max_tokens=64, label_map_file="{data}/annotations/label_map.json"),
    dict(type="PackGroundingInputs"),
]
val_pipeline = [*train_pipeline[:1], train_pipeline[2], train_pipeline[1], train_pipeline[4]]
part = dict(data_root="{data}", data_prefix=dict(img="images/"), return_classes=True)
train_dataloader = dict(
    batch_size=2, num_workers=2, persistent_workers=False,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(type="ODVGDataset", ann_file="annotations/train_detection.jsonl",
                 label_map_file="annotations/label_map.json", pipeline=train_pipeline, **part),
)
val_dataloader = dict(
    batch_size=1, num_workers=0, sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(type="CocoDataset", ann_file="annotations/val_seen_coco.json", test_mode=True,
                 pipeline=val_pipeline, **part),
)
val_evaluator = dict(
    type="CocoMetric", ann_file="{data}/annotations/val_seen_coco.json", metric="bbox"
)
test_dataloader, test_evaluator = val_dataloader, val_evaluator
train_cfg = dict(max_iters=2000, val_begin=1, val_interval=500)
default_hooks = dict(
    logger=dict(interval=50), checkpoint=dict(interval=500, max_keep_ckpts=2),
    visualization=dict(draw=True),
)
randomness = dict(seed=0)
"""
    )
    return str(path)


if __name__ == "__main__":
    run_cli(main)
