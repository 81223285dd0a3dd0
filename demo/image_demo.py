"""Find in images what a text names, and draw the boxes.

Open-vocabulary detection (class names, separated by " . "):
    python image_demo.py IMAGE CONFIG --weights W --text 'apple . banana .' -c
Phrase grounding (the noun phrases of a sentence):
    python image_demo.py IMAGE CONFIG --weights W --text 'There are many apples here.'
Referring expression (the text as a whole):
    python image_demo.py IMAGE CONFIG --weights W --text 'red apple.' --tokens-positive -1
Descriptions of the image and of every shown box, or of given boxes:
    python image_demo.py IMAGE CONFIG --weights W --text 'apple . banana .' -c --caption
    python image_demo.py IMAGE CONFIG --weights W --text 'fruit' --boxes '[[10, 20, 200, 180]]'
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

# What runs with `python image_demo.py` finds the package beside it, installed or not.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from llmdet.utils.cli import add_config_options, count, fast_startup, fraction, positive, run_cli

if TYPE_CHECKING:
    from llmdet.apis import LLMDetInferencer

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
    parser.add_argument("config", help="config of the model")
    add_config_options(parser)
    _add_prompt_arguments(parser)
    parser.add_argument(
        "--weights",
        "--weight",
        help="checkpoint: .pth (ours, upstream's, MM-Grounding-DINO's), .safetensors, or a "
        "transformers folder",
    )
    parser.add_argument("--device", help="cuda:0, cpu ...; default: cuda where there is one")
    parser.add_argument("--batch-size", type=count, default=1, help="images at once (default 1)")
    parser.add_argument(
        "--pred-score-thr",
        type=fraction,
        default=0.3,
        help="boxes below this score are neither drawn nor saved (default 0.3)",
    )
    _add_caption_arguments(parser)
    _add_output_arguments(parser)
    return parser.parse_args(argv)


def _add_prompt_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what to look for")
    group.add_argument(
        "--text",
        "--texts",
        dest="texts",
        help="'cat . dog .', a sentence, or '$: lvis' for the classes of a data set; default: "
        "the classes of the config's test set",
    )
    group.add_argument(
        "-c",
        "--custom-entities",
        action="store_true",
        help="the text is a list of class names, separated by ' . '",
    )
    group.add_argument(
        "--tokens-positive",
        metavar="SPANS",
        help="-1: the text as a whole is one referring expression; '[[0, 7], [12, 15]]': these "
        "character spans of the text are the entities",
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
        help="'[[x1, y1, x2, y2], ...]' in pixels: describe these instead of detected boxes",
    )
    group.add_argument(
        "--temperature",
        type=positive,
        metavar="T",
        help="sample words at this temperature; default: always the likeliest word",
    )
    group.add_argument(
        "--max-new-tokens", type=count, metavar="N", help="longest caption, in tokens"
    )


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
        help="colours of the labels (default none: evenly spread hues)",
    )


def run(args: argparse.Namespace) -> int:
    """Check what is cheap to check, build the model, detect, and say what was found.

    Returns:
        The exit code: 1 where an image could not be read, 0 otherwise.
    """
    from llmdet.apis.inputs import collect_images, readable_images
    from llmdet.apis.prompts import image_prompts, parse_boxes, parse_spans

    images, broken = readable_images(collect_images(args.inputs))
    if not images:
        raise broken[0]
    boxes = None if args.boxes is None else parse_boxes(args.boxes)
    spans = None if args.tokens_positive is None else parse_spans(args.tokens_positive)
    prompt: dict[str, Any] = {"custom_entities": args.custom_entities, "tokens_positive": spans}
    with fast_startup():
        if args.texts is not None:
            image_prompts(args.texts, len(images), **prompt)
        detect = _build(
            args,
            captions=args.caption or boxes is not None,
            show_progress=len(images) > args.batch_size,
        )
    result = detect(
        [image.source for image in images],
        args.texts,
        **prompt,
        batch_size=args.batch_size,
        pred_score_thr=args.pred_score_thr,
        out_dir=args.out_dir,
        show=args.show,
        no_save_vis=args.no_save_vis,
        no_save_pred=args.no_save_pred,
        print_result=args.print_result,
        boxes=boxes,
        generation=_generation(args),
        skip_broken=True,
    )
    broken += result["broken"]
    if not result["predictions"]:
        raise broken[0]
    _summarize(result["predictions"], args)
    return _report_broken(broken, len(result["predictions"]))


def _build(args: argparse.Namespace, **options: bool) -> LLMDetInferencer:
    """Import what is heavy, and build the model."""
    from transformers.utils import logging as transformers_logging

    from llmdet.apis import LLMDetInferencer
    from llmdet.utils.config import load_model_config

    transformers_logging.disable_progress_bar()  # of weights, which are there at once
    return LLMDetInferencer(
        load_model_config(args.config, args.cfg_options),
        args.weights,
        args.device,
        args.palette,
        chunked_size=args.chunked_size,
        noun_phrases=args.noun_phrases,
        **options,
    )


def _generation(args: argparse.Namespace) -> dict[str, Any]:
    """How captions are to be decoded, as options of transformers' ``generate``."""
    options: dict[str, Any] = {}
    if args.temperature is not None:
        options |= {"do_sample": True, "temperature": args.temperature}
    if args.max_new_tokens is not None:
        options["max_new_tokens"] = args.max_new_tokens
    return options


def _summarize(predictions: Sequence[dict[str, Any]], args: argparse.Namespace) -> None:
    """Say on the standard error what was found, so that --print-result can be piped."""
    for prediction in predictions:
        counts = Counter(prediction["label_names"])
        found = ", ".join(f"{count} {name}" for name, count in counts.most_common())
        nothing = f"nothing with a score of {args.pred_score_thr:g} or more"
        if not found and "best_score" in prediction:
            nothing += f", the best is {prediction['best_score']:.2f}"
        print(f"{prediction['image']}: {found or nothing}", file=sys.stderr)
        for line in _captions(prediction):
            print(f"  {line}", file=sys.stderr)
    saved = [
        str(Path(args.out_dir) / folder)
        for folder, left_out in (("vis", args.no_save_vis), ("preds", args.no_save_pred))
        if not left_out
    ]
    if args.out_dir and saved:
        print(f"Saved in {' and '.join(saved)}.", file=sys.stderr)


def _report_broken(broken: Sequence[Exception], read: int) -> int:
    """Name the images that could not be read; returns the exit code."""
    if broken:
        number = f"{len(broken)} of {len(broken) + read} images could not be read:"
        print(number, *broken, sep="\n  ", file=sys.stderr)
    return int(bool(broken))


def _captions(prediction: dict[str, Any]) -> Iterator[str]:
    """The description of an image, and one line for each box."""
    if "description" in prediction:
        yield prediction["description"]
    if "captions" in prediction:
        named = zip(prediction["label_names"], prediction["captions"], strict=True)
        yield from (f"{name}: {caption}" for name, caption in named)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program on a command line; returns 1 where an image could not be read."""
    args = parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("llmdet").setLevel(logging.INFO)
    return run(args)


if __name__ == "__main__":
    run_cli(main)
