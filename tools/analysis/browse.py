"""Write training samples as pictures, with boxes and phrases, as they leave the pipeline.

python tools/analysis/browse.py configs/grounding_dino_swin_t.py --num 20 --out work_dirs/browse
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

# What runs with `python tools/analysis/browse.py` finds the package beside it, installed or not.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from llmdet.utils.cli import add_config_options, run_cli


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; nothing heavy is imported, so that --help answers at once."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="config file")
    parser.add_argument("--num", type=int, default=20, help="pictures to write")
    parser.add_argument("--out", type=Path, default=Path("work_dirs/browse"), help="folder")
    parser.add_argument("--split", choices=("train", "val", "test"), default="train")
    parser.add_argument("--seed", type=int, default=0, help="of augmentation and negatives")
    add_config_options(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program on a command line."""
    args = parse_args(argv)
    from mmengine.runner import set_random_seed
    from tqdm import tqdm

    from llmdet.datasets.inspection import build_dataset, load_samples, spread_indices
    from llmdet.utils.build import checked_builds
    from llmdet.utils.config import load_config
    from llmdet.visualization.drawing import draw_detections
    from llmdet.visualization.pictures import save_picture

    with checked_builds():
        dataset = build_dataset(load_config(args.config, args.cfg_options), args.split)
    set_random_seed(args.seed)
    indices = spread_indices(len(dataset), args.num)
    filtered = 0
    args.out.mkdir(parents=True, exist_ok=True)
    with (args.out / "texts.txt").open("w", encoding="utf-8") as texts:
        for sample in tqdm(load_samples(dataset, indices), total=len(indices), unit="image"):
            if sample is None:
                filtered += 1
                continue
            name = f"{sample.index:08d}_{Path(sample.path).stem}.jpg"
            drawn = draw_detections(
                sample.image, sample.boxes, sample.labels, sample.phrases
            ).picture
            save_picture(drawn, args.out / name)
            texts.write(f"{name}\n  prompt:  {sample.text}\n  caption: {sample.caption}\n")
            for box, words in sample.region_captions.items():
                texts.write(f"  region {box}: {words}\n")
    print(f"{args.out}: {len(indices) - filtered} pictures and texts.txt")
    if filtered:
        print(f"{filtered} samples were filtered by the data set or its pipeline")


if __name__ == "__main__":
    run_cli(main)
