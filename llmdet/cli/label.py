"""Label pictures with a detector: training data from images and a list of classes.

    llmdet label PHOTOS OUT --classes classes.txt --to coco --config CONFIG --weights WEIGHTS
    bash dist_train.sh configs/finetune/coco_json_swin_t.py 1 --cfg-options data_root=OUT

classes.txt has one name a line, where wanted with a threshold: "stop sign: 0.4". A command that was
interrupted goes on where it stopped when it is given again. `llmdet label` and
`python tools/label.py` are the same.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llmdet.cli.model import CONFIG_HELP, add_model_options, build_detector, read_model
from llmdet.utils.cli import count, fast_startup, fraction, write_result

if TYPE_CHECKING:
    from llmdet.apis import Detector, Tiles
    from llmdet.apis.web.examples import Example
    from llmdet.data_engines.journal import Journal
    from llmdet.labelling.review import LabelReport
    from llmdet.labelling.run import LabelJob

TARGETS = ("coco", "yolo", "voc", "odvg", "grounding")
_REVIEWED = 100  # pictures that --review shows
_LOGGED_SECONDS = 10  # between two lines of progress in a file


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; nothing heavy is imported, so that --help answers at once."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "images", nargs="+", help="image files, folders, or text files that list images"
    )
    parser.add_argument("out", type=Path, help="folder for the labels, new or of this command")
    parser.add_argument(
        "--classes", type=Path, required=True, help="text file: one 'name' or 'name: 0.4' a line"
    )
    parser.add_argument("--to", dest="target", choices=TARGETS, required=True, help="format")
    parser.add_argument("--config", required=True, help=CONFIG_HELP)
    add_model_options(parser)
    parser.add_argument("--batch-size", type=count, default=1, help="images at once (default 1)")
    _add_search_arguments(parser)
    _add_output_arguments(parser)
    return parser.parse_intermixed_args(argv)


def _add_search_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what becomes a label")
    group.add_argument(
        "--threshold",
        type=fraction,
        default=0.3,
        help="least score, where classes.txt says no other (default 0.3)",
    )
    group.add_argument(
        "--nms",
        type=fraction,
        default=0.7,
        metavar="IOU",
        help="of boxes that overlap by more than this, the best stays, whatever its class "
        "(default 0.7; 1 keeps all)",
    )
    group.add_argument(
        "--tile", type=count, metavar="PIXELS", help="look at larger pictures in tiles of this size"
    )
    group.add_argument(
        "--tile-overlap", type=float, default=0.2, help="part that tiles share (default 0.2)"
    )
    group.add_argument(
        "--captions",
        nargs="+",
        choices=("image", "regions"),
        default=[],
        help="also describe pictures (odvg, grounding) and boxes (grounding)",
    )


def _add_output_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what is written")
    group.add_argument(
        "--val", type=fraction, default=0.1, help="part of the pictures to validate by (0.1)"
    )
    group.add_argument("--seed", type=int, default=0, help="draws that part (default 0)")
    group.add_argument(
        "--copy", action="store_true", help="copy the pictures; default: a link to their folder"
    )
    group.add_argument(
        "--doubt",
        type=fraction,
        default=0.1,
        help="pictures with a score this near to its threshold are listed for review (0.1)",
    )
    group.add_argument(
        "--review",
        action="store_true",
        help="afterwards serve the web demo on this machine: keep, drop or rename doubtful boxes",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program on a command line; returns 1 where a picture could not be read."""
    args = parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    with fast_startup():
        from llmdet.labelling.engine import LabelEngine
        from llmdet.labelling.review import read_report

        job = read_job(args)
        config, weights = read_model(args)
    with job.journal(config, weights) as journal:
        report = read_report(args.out)
        if report is not None:
            write_result(f"{args.out} is labelled already; its files are left as they are.")
            if not args.review:
                return tell(report, args.out)
        detector = build_detector(config, weights, device=args.device, captions=bool(args.captions))
        if report is None:
            engine = LabelEngine(detector, job.pictures.folder, job.settings, args.batch_size)
            report = job.run(engine, journal, _progress)
    code = tell(report, args.out)
    if args.review:
        review(detector, job, journal)
    return code


def read_job(args: argparse.Namespace) -> LabelJob:
    """What a command line asks for; pictures are listed, and none is opened."""
    from llmdet.apis.images import expand
    from llmdet.data_engines.pictures import PictureSet
    from llmdet.labelling.run import LabelJob
    from llmdet.labelling.settings import LabelSettings, OutputSettings, read_classes

    names, thresholds = read_classes(args.classes)
    paths = [Path(str(source)) for entry in args.images for source in expand(entry)]
    settings = LabelSettings(
        names,
        args.threshold,
        thresholds,
        None if args.nms == 1 else args.nms,
        _tiles(args),
        frozenset(args.captions),
        args.doubt,
    )
    output = OutputSettings(args.target, args.val, args.seed, args.copy)
    return LabelJob(PictureSet.of(paths), settings, output, args.out)


def _tiles(args: argparse.Namespace) -> Tiles | None:
    from llmdet.apis import Tiles

    return None if args.tile is None else Tiles(args.tile, args.tile_overlap)


def _progress(done: int, total: int) -> Callable[[int], object]:
    """A bar with rate and time left; in a file, a line every some seconds."""
    from tqdm import tqdm

    interval = 0.2 if sys.stderr.isatty() else _LOGGED_SECONDS
    bar = tqdm(initial=done, total=total, unit="image", mininterval=interval)

    def advance(number: int) -> None:
        bar.update(number)
        if bar.n == total:
            bar.close()

    return advance


def tell(report: LabelReport, out: Path) -> int:
    """Print what was labelled; returns the exit code."""
    from llmdet.labelling.review import SHEET

    write_result(report.text())
    write_result(f"{out} holds the labels, {out / SHEET} shows some of them.")
    return int(bool(report.damaged))


def review(detector: Detector, job: LabelJob, journal: Journal) -> None:
    """Serve the web demo until Ctrl-C: doubtful boxes to decide about, and their pictures."""
    from llmdet.apis.web.serving import Serving, running_demo
    from llmdet.labelling.corrections import Corrections

    logging.getLogger("llmdet").setLevel(logging.INFO)  # the address of the page is logged
    examples, boxes = examples_of(job), Corrections(job, journal).review()
    write_result(
        f"{len(boxes.boxes)} doubtful boxes are on the page, whose Save rewrites {job.out}; "
        f"{len(examples)} doubtful pictures are below its search. Ctrl-C ends it."
    )
    with running_demo(detector, Serving(), job.settings.threshold, examples, boxes) as page:
        page.block_thread()


def examples_of(job: LabelJob) -> list[Example]:
    """The most doubtful pictures of a finished labelling, as examples of the web demo."""
    from llmdet.apis.web.examples import Example
    from llmdet.labelling.review import REVIEW

    lines = (job.out / REVIEW).read_text(encoding="utf-8").splitlines()
    words = "\n".join(job.settings.classes)
    return [Example(Path(line), "Class names", words) for line in lines[:_REVIEWED]]
