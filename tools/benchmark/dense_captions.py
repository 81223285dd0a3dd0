"""What the check of GranD's dense captions removes, in a world whose truth is known.

    python -m llmdet.datasets.toy data/toy
    python tools/train.py configs/quickstart/llmdet.py
    python tools/benchmark/dense_captions.py configs/quickstart/llmdet.py \\
        work_dirs/llmdet/iter_1550.pth data/toy

A writer says a true sentence about each object of a picture, and as many false ones: a shape of its
own colour that is not there ("wrong colour"), and a shape that the picture does not show in any
colour ("wrong shape"). The engine, with the detector and without rewriting, removes sentences.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

# What runs with `python tools/benchmark/dense_captions.py` finds the package beside it.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from llmdet.utils.cli import count, fraction, run_cli, write_result

if TYPE_CHECKING:
    from llmdet.data_engines.detections import BoxSource

KINDS = TRUE, COLOUR, SHAPE = "true", "wrong colour", "wrong shape"


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; nothing heavy is imported, so that --help answers at once."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="of a detector")
    parser.add_argument("weights", help="checkpoint")
    parser.add_argument("folder", type=Path, help="of the toy set")
    parser.add_argument("--split", default="val_unseen", help="default: val_unseen")
    parser.add_argument("--images", type=count, default=100, help="of the split (100)")
    parser.add_argument("--thresholds", type=fraction, nargs="+", default=[0.2, 0.3, 0.4])
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Print a row for each threshold: of each kind of sentence, the part that stays."""
    args = parse_args(argv)
    from llmdet import Detector
    from llmdet.data_engines.detections import DetectedBoxes
    from llmdet.utils.files import read_json

    content = read_json(args.folder / "annotations" / f"{args.split}_coco.json")
    names = {one["id"]: one["name"] for one in content["categories"]}
    files = {one["id"]: one["file_name"] for one in content["images"][: args.images]}
    shown: dict[str, list[str]] = {file: [] for file in files.values()}
    for one in content["annotations"]:
        if one["image_id"] in files:
            shown[files[one["image_id"]]].append(names[one["category_id"]])
    known = sorted(names.values())
    said = {file: sentences(file, there, known) for file, there in shown.items() if there}
    detector = Detector.from_pretrained(args.config, args.weights, device="cpu")
    total = {kind: sum(of == kind for each in said.values() for _, of in each) for kind in KINDS}
    write_result(f"{len(said)} pictures, sentences that stay (%)")
    write_result("threshold" + "".join(f"{f'{kind} ({total[kind]})':>22}" for kind in total))
    for threshold in args.thresholds:
        boxes = DetectedBoxes(detector, {}, threshold)
        kept = count_kept(args.folder / "images", said, boxes)
        cells = "".join(f"{100 * kept[kind] / max(total[kind], 1):22.1f}" for kind in total)
        write_result(f"{threshold:9.2f}{cells}")


def sentences(file: str, shown: Sequence[str], known: Sequence[str]) -> list[tuple[str, str]]:
    """(name, kind) of the sentences about a picture, true and false ones.

    Args:
        file: draws the false ones.
        shown: names of its objects, such as "red circle".
        known: all names.
    """
    draw = random.Random(file)
    there = list(dict.fromkeys(shown))
    shapes = {name.split()[-1] for name in there}
    absent = [name for name in known if name not in there]
    said = [(name, TRUE) for name in there]
    kinds = {
        COLOUR: [name for name in absent if name.split()[-1] in shapes],
        SHAPE: [name for name in absent if name.split()[-1] not in shapes],
    }
    for kind, names in kinds.items():
        said += [(name, kind) for name in draw.sample(names, min(len(there), len(names)))]
    draw.shuffle(said)
    return said


class Speaker:
    """Sees what is there, and says all sentences about a picture, the false ones too."""

    def __init__(self, said: Sequence[tuple[str, str]]) -> None:
        from llmdet.chat import Pace, Usage

        self.tags = ", ".join(name for name, kind in said if kind == TRUE)
        self.dense = " ".join(sentence(name) for name, _ in said)
        self.pace, self.usage, self.identity = Pace(1), Usage(), {"model": "scripted"}

    def answer(self, requests: Sequence[Any]) -> list[str]:
        """One answer for each request."""
        return [self._say(request.messages[0].text) for request in requests]

    def _say(self, text: str) -> str:
        if text.startswith("List the kinds"):
            return self.tags
        if text.startswith("This is known of a picture"):
            return self.dense
        return "indoor: table" if "kind of place" in text else "a small thing"


def sentence(name: str) -> str:
    """What is said about an object."""
    return f"There is a {name} in it."


def count_kept(
    folder: Path, said: Mapping[str, Sequence[tuple[str, str]]], boxes: BoxSource
) -> Counter[str]:
    """How many sentences of each kind stay.

    Args:
        folder: of the pictures.
        said: picture -> what is said about it.
        boxes: the detector.
    """
    import orjson

    from llmdet.data_engines.grand.run import GrandModels, make_grand
    from llmdet.data_engines.grand.settings import (
        CaptionSettings,
        DescriptionSettings,
        GrandSettings,
        ObjectSettings,
        roles_up_to,
    )
    from llmdet.data_engines.pictures import PictureSet

    settings = GrandSettings(
        ObjectSettings(min_side=1, attempts=1),
        CaptionSettings(captions=0, relations=0),
        DescriptionSettings(min_words=1, rewrites=0, attempts=1),
    )
    kept: Counter[str] = Counter()
    for file, sentences_of_it in said.items():
        models = GrandModels(dict.fromkeys(roles_up_to(3), Speaker(sentences_of_it)), [boxes])
        with tempfile.TemporaryDirectory() as out:
            make_grand(PictureSet(folder, (file,)), Path(out), models, settings, up_to=3)
            records = (Path(out) / "level_3.jsonl").read_bytes().splitlines()
        texts = [orjson.loads(record).get("dense_caption", {}) for record in records]
        text = "".join(each.get("caption", "") for each in texts)
        kept.update(kind for name, kind in sentences_of_it if sentence(name) in text)
    return kept


if __name__ == "__main__":
    run_cli(main)
