"""Convert annotations between formats, or check them.

python tools/convert/data.py instances_train.json train.jsonl --from coco --to odvg
python tools/convert/data.py VOC2007 train.jsonl --from voc --to grounding --split trainval
python tools/convert/data.py train.jsonl instances.json --from odvg --to coco
python tools/convert/data.py instances.json FOLDER --from coco --to yolo --split val --images val/
python tools/convert/data.py "refs(umd).p" refcocog.jsonl --from refer --to regions --task caption
python tools/convert/data.py instances_train.json coco.jsonl --from coco --to objects --task detect
python tools/convert/data.py GranDf_train.json grandf.jsonl --from grandf --to regions --task gcg
python tools/convert/data.py train.jsonl --check --images images/
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llmdet.cli.wordings import add_wordings_option, read_wordings
from llmdet.utils.cli import refuse_existing, write_result

if TYPE_CHECKING:
    from llmdet.datasets.ledger import Ledger
    from llmdet.datasets.regions import RegionSettings
    from llmdet.datasets.retrieval import RetrievalSettings

SOURCES = (
    "coco",
    "lvis",
    "voc",
    "yolo",
    "odvg",
    "grounding",
    "refcoco",
    "refer",
    "flickr30k",
    "v3det",
    "objects365",
    "openimages",
    "visual_genome",
    "llava",
    "rexverse",
    "humanref_cot",
    "humanref",
    "grandf",
    "refcocog_gcg",
    "grand",
    "grand_objects",
    "label_maps",
    "panoptic",
    "coco_captions",
)
TARGETS = ("grounding", "odvg", "coco", "yolo", "voc", "regions", "objects")
#: Of --to regions, and of --to objects.
TASKS = ("classify", "caption", "refer", "choose", "segment", "gcg", "describe")
OBJECT_TASKS = ("detect", "many", "count", "refer", "name", "describe", "caption")
#: Options that no other targets read.
OF_TARGETS = {
    ("regions",): ("per_class", "none_share", "vocabulary", "masks"),
    ("objects",): ("proposals", "proposals_of", "absent", "prompts"),
    ("regions", "objects"): (
        *("per_image", "turns", "candidates", "one_wording"),
        *("objects", "objects_from", "folder", "seed"),
    ),
}
#: Options that of --to regions only some tasks read; without a task conversations are kept.
OF_TASKS = {
    **dict.fromkeys(
        ("per_class", "per_image", "one_wording", "seed", "objects", "objects_from"), TASKS
    ),
    "turns": ("classify", "caption", "refer", "choose", "segment"),
    "candidates": ("choose",),
    "none_share": ("choose",),
    "vocabulary": ("classify",),
    "masks": ("classify", "caption", "refer", "choose"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program on a command line."""
    args = parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    return check(args) if args.check else convert(args)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; nothing heavy is imported, so that --help answers at once."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("input", type=Path, help="annotation file, or folder (voc, yolo)")
    parser.add_argument("output", type=Path, nargs="?", help="file, or folder (voc, yolo)")
    parser.add_argument("--from", dest="source", choices=SOURCES, help="format of the input")
    parser.add_argument(
        "--to",
        dest="target",
        choices=TARGETS,
        help="grounding: JSONL with a text per image; odvg: JSONL with labels and a label map; "
        "coco: one JSON document; yolo, voc: a folder with a label file for each picture; "
        "regions: JSONL with conversations about regions; objects: the same about candidates",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace OUTPUT where it exists")
    parser.add_argument("--check", action="store_true", help="only validate the input")
    parser.add_argument(
        "--images",
        type=Path,
        help="folder of the pictures: gives sizes, checked by --check; of rexverse and "
        "humanref_cot their .tsv, where it is not beside the annotations",
    )
    parser.add_argument(
        "--picture-folders",
        nargs="+",
        default=[],
        metavar="DIR",
        help="further folders that file names may lead to, as picture_folders of the data set",
    )
    parser.add_argument("--classes", type=Path, help="class names: one a line, or a label map")
    parser.add_argument(
        "--split", help="which part of a voc or yolo folder, or of refer, is read, or written"
    )
    parser.add_argument(
        "--max-bad-rows",
        type=int,
        default=0,
        metavar="N",
        help="skip and count up to N broken records instead of stopping at the first",
    )
    _add_region_arguments(parser)
    args = parser.parse_args(argv)
    _check_options(parser, args, _given_options(parser, args, argv))
    return args


def _given_options(
    parser: argparse.ArgumentParser, args: argparse.Namespace, argv: Sequence[str] | None
) -> set[str]:
    """Names of what the command line says itself, though it be the default."""
    absent = object()
    marked = argparse.Namespace(**dict.fromkeys(vars(args), absent))
    parser.parse_args(argv, marked)
    return {name for name, value in vars(marked).items() if value is not absent}


def _check_options(
    parser: argparse.ArgumentParser, args: argparse.Namespace, given: set[str]
) -> None:
    """End with a sentence about an option that would not do anything, or one that is missing."""
    if not args.check and not (args.output and args.source and args.target):
        parser.error("give OUTPUT, --from and --to, or --check")
    tasks = {"regions": TASKS, "objects": OBJECT_TASKS}.get(args.target, ())
    if args.task and args.task not in tasks:
        known = f"of --to {args.target} there are {', '.join(tasks)}"
        parser.error(known if tasks else "--task is for --to regions and --to objects")
    if args.target == "objects" and not args.task:
        parser.error(f"--to objects needs --task: {', '.join(OBJECT_TASKS)}")
    if "picture_folders" in given and not args.check:
        parser.error("--picture-folders is for --check")
    for targets, names in OF_TARGETS.items():
        for name in names if args.target not in targets else ():
            if name in given:
                known = " and --to ".join(targets)
                parser.error(f"--{name.replace('_', '-')} is for --to {known}")
    for name, choices in OF_TASKS.items() if args.target == "regions" else ():
        if name in given and args.task not in choices:
            parser.error(f"--{name.replace('_', '-')} is for --task {', '.join(choices)}")


def _add_region_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("conversations about regions (--to regions, --to objects)")
    group.add_argument(
        "--task",
        choices=list(dict.fromkeys((*TASKS, *OBJECT_TASKS))),
        help="what is asked of regions: their class, a description, an expression that refers to "
        "them alone, or which of several an expression means; segment: for the mask of a class, a "
        "phrase or an expression; gcg: for a caption whose phrases have masks; describe: for a "
        "caption; without it the conversations that the input holds are kept. Of objects: to "
        "detect one class or several, to count, to find what an expression refers to, to name or "
        "describe one, or a caption that names boxes",
    )
    group.add_argument("--per-class", type=int, metavar="N", help="most objects of a class")
    group.add_argument(
        "--per-image", type=int, metavar="N", help="most objects (of --to objects: questions)"
    )
    group.add_argument("--turns", type=int, default=10, metavar="N", help="most questions of a row")
    group.add_argument(
        "--candidates",
        type=int,
        metavar="N",
        help="most regions to choose from: 4, of --to objects 100",
    )
    group.add_argument(
        "--none-share",
        type=float,
        default=0.1,
        metavar="SHARE",
        help="of the choices, how many leave the right region out",
    )
    group.add_argument(
        "--vocabulary",
        metavar="NAME",
        help="what questions call all classes together, such as COCO-80; default: the name of the "
        "format where it is a data set (LVIS, V3Det, Objects365), else nothing",
    )
    group.add_argument(
        "--one-wording", action="store_true", help="ask as in a test: all questions in one wording"
    )
    group.add_argument("--masks", action="store_true", help="regions have masks where objects do")
    group.add_argument(
        "--objects",
        type=Path,
        metavar="FILE",
        help="all objects of the same pictures with their classes; refer has its instances.json",
    )
    group.add_argument("--objects-from", choices=SOURCES, help="format of --objects")
    group.add_argument("--folder", default="", help="put in front of the pictures' names")
    group.add_argument("--seed", type=int, default=0, help="of what is drawn")
    _add_object_arguments(parser)


def _add_object_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("conversations about candidate objects (--to objects)")
    group.add_argument(
        "--proposals",
        type=Path,
        metavar="FILE",
        help="a detector's boxes, to be candidates among the annotated ones: preds.jsonl of "
        "tools/test.py --out, or COCO results",
    )
    group.add_argument(
        "--proposals-of",
        choices=("picture", "sentence"),
        default="picture",
        help="whose ids --proposals has where annotations have an entry for each sentence",
    )
    group.add_argument(
        "--absent",
        type=float,
        default=0.1,
        metavar="SHARE",
        help="of the questions about classes, how many are about one that is not there",
    )
    add_wordings_option(group)


def convert(args: argparse.Namespace) -> int:
    """Write the annotations in another format; returns the exit code."""
    from llmdet.datasets.formats import written_file
    from llmdet.datasets.ledger import Ledger

    refuse_existing([written_file(args.output, args.target, args.split)], args.overwrite)
    ledger = Ledger(max_bad_rows=args.max_bad_rows)
    if args.target in ("regions", "objects"):
        write_result(f"{args.output}: {_write_conversations(args, ledger):,} rows")
    else:
        write_result(f"{args.output}: {_convert(args, ledger):,} images")
    if ledger.counts:
        write_result(ledger.report())
    return 0


def _convert(args: argparse.Namespace, ledger: Ledger) -> int:
    from tqdm import tqdm

    from llmdet.datasets.formats import ReadOptions
    from llmdet.datasets.formats import convert as convert_annotations

    return convert_annotations(
        args.input,
        args.output,
        args.source,
        args.target,
        options=ReadOptions(args.images, args.classes, split=args.split),
        ledger=ledger,
        progress=lambda samples, total: tqdm(samples, total=total, unit="image"),
    )


def _write_conversations(args: argparse.Namespace, ledger: Ledger) -> int:
    from tqdm import tqdm

    from llmdet.datasets.formats import ReadOptions, guess_format, open_source
    from llmdet.datasets.formats.refer import objects_beside
    from llmdet.datasets.regions import write_regions
    from llmdet.datasets.retrieval import write_retrieval
    from llmdet.errors import ConfigError
    from llmdet.prompts.mask_tasks import MASK_TASKS

    if args.input.resolve() == args.output.resolve():
        raise ConfigError(f"{args.output}: the output would overwrite the input")
    options = ReadOptions(args.images, args.classes, split=args.split)
    source = open_source(args.input, args.source, options, ledger)
    source.samples = iter(tqdm(source.samples, total=source.total, unit="image"))
    file, form = args.objects, args.objects_from
    streams = args.target == "regions" and args.task in MASK_TASKS
    if file is None and args.source == "refer" and args.task is not None and not streams:
        file, form = objects_beside(args.input), "coco"
    objects = None
    if file is not None:
        form = form or guess_format(file)
        objects = open_source(file, form, ReadOptions(args.images), ledger)
    if args.target == "objects":
        settings = _retrieval_settings(args, form)
        return write_retrieval(source, args.output, settings, ledger, objects)
    return write_regions(source, args.output, _region_settings(args, form), ledger, objects)


def _region_settings(args: argparse.Namespace, objects_form: str | None) -> RegionSettings:
    from llmdet.datasets.regions import RegionSettings
    from llmdet.datasets.regions.settings import VOCABULARIES

    vocabulary = args.vocabulary
    if vocabulary is None:
        vocabulary = VOCABULARIES.get(objects_form or args.source)
    return RegionSettings(
        args.task,
        seed=args.seed,
        per_class=args.per_class,
        per_image=args.per_image,
        turns=args.turns,
        candidates=4 if args.candidates is None else args.candidates,
        none_share=args.none_share,
        vocabulary=vocabulary or None,
        masks=args.masks,
        folder=args.folder,
        one_wording=args.one_wording,
        whole_expressions=args.source in ("refcoco", "refer"),
    )


def _retrieval_settings(args: argparse.Namespace, objects_form: str | None) -> RetrievalSettings:
    from llmdet.datasets.candidate_files import read_candidates
    from llmdet.datasets.retrieval import RetrievalSettings
    from llmdet.datasets.retrieval.settings import ABSENCE

    return RetrievalSettings(
        args.task,
        read_wordings(args),
        seed=args.seed,
        per_image=args.per_image,
        turns=args.turns,
        candidates=100 if args.candidates is None else args.candidates,
        absent=args.absent,
        absence=ABSENCE.get(objects_form or args.source, "all"),
        proposals=None if args.proposals is None else read_candidates(args.proposals),
        proposals_of=args.proposals_of,
        others=args.source in ("rexverse", "humanref_cot", "humanref"),
        folder=args.folder,
        one_wording=args.one_wording,
        whole_expressions=args.source in ("refcoco", "refer"),
    )


def check(args: argparse.Namespace) -> int:
    """Print what is wrong or odd; returns the exit code, 1 where something must be fixed."""
    from tqdm import tqdm

    from llmdet.datasets.formats import ReadOptions, open_source
    from llmdet.datasets.validate import ReportLedger, ValidationReport, validate

    report = ValidationReport()
    options = ReadOptions(args.images, args.classes, split=args.split)
    source = open_source(args.input, args.source, options, ReportLedger(report))
    source.samples = iter(tqdm(source.samples, total=source.total, unit="image"))
    validate(source, report, args.images, picture_folders=args.picture_folders)
    write_result(report.text())
    write_result(f"{args.input}: " + ("ready" if report.ok else "must be fixed"))
    return 0 if report.ok else 1
