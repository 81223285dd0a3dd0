"""Find in images what a text names, and draw the boxes.

Open-vocabulary detection (class names, separated by " . "):
    python image_demo.py IMAGE CONFIG --weights W --text 'apple . banana .' -c
Phrase grounding (the noun phrases of a sentence):
    python image_demo.py IMAGE CONFIG --weights W --text 'There are many apples here.'
Referring expression (the text as a whole):
    python image_demo.py IMAGE CONFIG --weights W --text 'red apple.' --tokens-positive -1
Several descriptions, one in each prompt:
    python image_demo.py IMAGE CONFIG --weights W --text 'the red apple' --text 'a man who sits'
Objects without names, by a detector of proposals:
    python image_demo.py IMAGE configs/upn/upn_swin_l.py --weights W --granularity fine --nms 0.8
Captions of the image and of every shown box, or of given boxes:
    python image_demo.py IMAGE CONFIG --weights W --text 'apple . banana .' -c --caption
    python image_demo.py IMAGE CONFIG --weights W --text 'fruit' --boxes '[[10, 20, 200, 180]]'
Questions about regions, to a region language model:
    python image_demo.py IMAGE CONFIG --weights W --masks M.png --ask 'What is <region> holding?'
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmdet.cli.ask import add_ask_options, add_generation_options, ask_of_images, generation_of
from llmdet.cli.model import (
    CONFIG_HELP,
    add_model_options,
    add_score_option,
    add_text_options,
    build_detector,
    read_words,
)
from llmdet.utils.cli import count, fast_startup, fraction, write_notice, write_result

if TYPE_CHECKING:
    from llmdet import Detector, Results

PALETTES = ("none", "random", "coco", "voc", "citys")
NOUN_PHRASES = ("auto", "nltk", "rules")


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; nothing heavy is imported, so that --help answers at once."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "inputs", nargs="+", help="image files, folders, or text files that list images"
    )
    parser.add_argument("config", help=CONFIG_HELP)
    add_model_options(parser)
    _add_prompt_arguments(parser)
    parser.add_argument("--batch-size", type=count, default=1, help="images at once (default 1)")
    add_score_option(
        parser, "boxes below this score are neither drawn nor saved", "--pred-score-thr"
    )
    parser.add_argument(
        "--nms",
        type=fraction,
        metavar="IOU",
        help="of boxes that overlap by more than this, the best stays, whatever its name; "
        "default: all stay",
    )
    _add_caption_arguments(parser)
    add_ask_options(parser)
    _add_output_arguments(parser)
    return parser.parse_args(argv)


def _add_prompt_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what to look for")
    add_text_options(group, default="the classes of the config's test set")
    group.add_argument(
        "--any-object",
        action="store_true",
        help="no text: find whatever looks like an object to the first of the two stages",
    )
    group.add_argument(
        "--granularity",
        choices=("fine", "coarse"),
        help="what a detector of proposals (configs/upn) takes for an object; default: as its "
        "config says",
    )
    group.add_argument(
        "--noun-phrases",
        choices=NOUN_PHRASES,
        default="auto",
        help="how the noun phrases of a sentence are found (default auto: NLTK's tagger where "
        "its data is installed, else rules)",
    )
    group.add_argument(
        "--chunked-size",
        "-s",
        type=int,
        metavar="N",
        help="at most N class names in one prompt; -1: as many as the text encoder takes; "
        "default: the config's",
    )


def _add_caption_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("captions, by the model's language model")
    group.add_argument(
        "--caption", action="store_true", help="describe the image and every shown box"
    )
    group.add_argument(
        "--boxes",
        metavar="BOXES",
        help="'[[x1, y1, x2, y2], ...]' in pixels: describe these instead of detected boxes, or "
        "ask about them",
    )
    add_generation_options(group)


def _add_output_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("results")
    group.add_argument(
        "--out-dir",
        default="outputs",
        help="folder that gets vis/ (pictures) and preds/ (JSON); default: outputs",
    )
    group.add_argument("--no-save-vis", action="store_true", help="save no pictures")
    group.add_argument("--no-save-pred", action="store_true", help="save no JSON")
    group.add_argument("--print-result", action="store_true", help="print each JSON, one a line")
    group.add_argument("--show", action="store_true", help="show each picture in a window")
    group.add_argument(
        "--palette",
        choices=PALETTES,
        default="none",
        help="colours by the number of a label; default none: our own, by its name",
    )


def run(args: argparse.Namespace) -> int:
    """Check what is cheap to check, build the model, detect, and say what was found.

    Returns:
        The exit code: 1 where an image could not be read, 0 otherwise.
    """
    from llmdet.errors import ConfigError

    with fast_startup():
        from llmdet.apis.images import expand, fault_of
        from llmdet.apis.questions import read_question
        from llmdet.apis.reading import parse_boxes

    # Words of a command line stand for files alone, not for arrays.
    sources = [Path(str(source)) for entry in args.inputs for source in expand(entry)]
    faults = list(map(fault_of, sources))
    broken = [fault for fault in faults if fault is not None]
    readable = [source for source, fault in zip(sources, faults, strict=True) if fault is None]
    if not readable:
        raise broken[0]
    if args.ask:
        ask_of_images(readable, args, _folders(args))
        return _report(broken, len(sources), args)
    if args.masks:
        raise ConfigError("--masks are regions that --ask asks about.")
    question = _question(args)
    boxes = None if args.boxes is None else parse_boxes(args.boxes)
    with fast_startup():
        if question is not None:
            read_question(**question)  # mistakes show before the model is built
        detector = _build(args, captions=args.caption or boxes is not None)
    if question is None:
        question = {"granularity": args.granularity}
        if detector.reads_words and not args.any_object and not args.granularity:
            question = {"classes": _classes_of(detector.config)}
    stream = detector.predict(
        iter(readable),
        **question,
        threshold=args.pred_score_thr,
        nms=args.nms,
        captions=args.caption or boxes is not None,
        boxes=boxes,
        generation=generation_of(args),
        batch_size=args.batch_size,
        return_errors=True,
    )
    unread = _deliver(_with_progress(stream, len(readable), args), readable, args)
    broken += unread
    if len(unread) == len(readable):
        raise broken[0]
    return _report(broken, len(sources), args)


def _question(args: argparse.Namespace) -> dict[str, Any] | None:
    """What to look for, as arguments of ``Detector.predict``; None where there is no text."""
    from llmdet.errors import ConfigError

    question = read_words(args)
    for name in ("any_object", "granularity"):
        if question is not None and getattr(args, name):
            option = name.replace("_", "-")
            raise ConfigError(f"--{option} finds things without a name: leave out --text.")
    return question


def _classes_of(config: Any) -> tuple[str, ...]:
    """The classes that a config is tested on."""
    from llmdet.apis.class_names import config_class_names

    names = config_class_names(config)
    write_notice(f"No text was given: looking for the {len(names)} classes of the config.")
    return names


def _build(args: argparse.Namespace, captions: bool) -> Detector:
    options: dict[str, Any] = {}
    if args.noun_phrases != "auto":
        options["model.test_cfg.noun_phrases"] = args.noun_phrases
    if args.chunked_size is not None:
        options["model.test_cfg.chunked_size"] = args.chunked_size
    return build_detector(
        args.config,
        args.weights,
        device=args.device,
        captions=captions,
        cfg_options=options | args.cfg_options,
    )


def _with_progress(stream: Iterable[Any], count: int, args: argparse.Namespace) -> Iterable[Any]:
    if count <= args.batch_size:
        return stream
    from tqdm import tqdm

    # tqdm's disable=None keeps quiet where the standard error is no terminal.
    return tqdm(stream, total=count, unit="image", disable=None)


def _folders(args: argparse.Namespace) -> dict[str, Path | None]:
    """Where pictures and JSON are saved, None for what is not."""
    out = Path(args.out_dir)
    left_out = {"vis": args.no_save_vis, "preds": args.no_save_pred}
    return {
        kind: out / kind if args.out_dir and not skipped else None
        for kind, skipped in left_out.items()
    }


def _deliver(stream: Iterable[Any], paths: Sequence[Path], args: argparse.Namespace) -> list[Any]:
    """Save, print and show the results of image after image.

    Returns:
        The errors of images that could not be read.
    """
    import numpy as np

    from llmdet.apis.output_names import output_names, picture_suffix
    from llmdet.visualization.pictures import save_picture, show_picture

    folders = _folders(args)
    unread = []
    for path, name, found in zip(paths, output_names(paths), stream, strict=True):
        if isinstance(found, Exception):
            unread.append(found)
            continue
        if folders["preds"]:
            found.save(folders["preds"] / f"{name}.json")
        if args.print_result:
            write_result(json.dumps(found.to_dict()))
        if folders["vis"] or args.show:
            picture = np.asarray(found.plot(args.palette))
            if folders["vis"]:
                save_picture(picture, folders["vis"] / f"{name}{picture_suffix(path)}")
            if args.show:
                show_picture(picture, str(path))
        _summarize(found, args)
    return unread


def _summarize(found: Results, args: argparse.Namespace) -> None:
    """Say on the standard error what was found, so that --print-result can be piped."""
    from tqdm import tqdm

    counts = Counter(found.names)
    listed = ", ".join(f"{count} {name}" for name, count in counts.most_common())
    nothing = f"nothing with a score of {args.pred_score_thr:g} or more"
    if found.best_score is not None:
        nothing += f", the best is {found.best_score:.2f}"
    lines = [f"{found.image}: {listed or nothing}"]
    if found.description is not None:
        lines.append(f"  {found.description}")
    for name, caption in zip(found.names, found.captions or (), strict=False):
        lines.append(f"  {name}: {caption}")
    tqdm.write("\n".join(lines), file=sys.stderr)  # above a progress bar


def _report(broken: Sequence[Exception], images: int, args: argparse.Namespace) -> int:
    """Say where results are, and name the images that could not be read; returns the exit code."""
    if args.out_dir and (saved := [str(folder) for folder in _folders(args).values() if folder]):
        write_notice(f"Saved in {' and '.join(saved)}.")
    if broken:
        number = f"{len(broken)} of {images} images could not be read:"
        write_notice("\n  ".join([number, *map(str, broken)]))
    return int(bool(broken))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program on a command line; returns 1 where an image could not be read."""
    args = parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("llmdet").setLevel(logging.INFO)
    return run(args)
