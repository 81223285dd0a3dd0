"""Find in an image what words mean: a language model chooses among candidate boxes.

A region language model that names objects (configs/chatrex, configs/rexseek):
    python demo/retrieve_demo.py IMAGE CONFIG CKPT --refer 'person that waves' \\
        --detector DETECTOR --objects person
Candidates of a detector of proposals, and of a file:
    python demo/retrieve_demo.py IMAGE CONFIG CKPT --refer 'person that waves' \\
        --detector configs/upn/upn_swin_l.py --detector-weights upn_large.pth --granularity fine
    python demo/retrieve_demo.py IMAGE CONFIG CKPT --refer 'person that waves' --boxes preds.json
Any vision-language model, which sees the boxes numbered in the picture; nothing is trained:
    python demo/retrieve_demo.py IMAGE --refer 'person that waves' --boxes preds.json \\
        --chat-model Qwen/Qwen2.5-VL-7B-Instruct
    python demo/retrieve_demo.py IMAGE --refer 'person that waves' --boxes preds.json \\
        --chat-model NAME --url http://localhost:8000/v1
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmdet.cli.ask import add_generation_options, generation_of
from llmdet.cli.model import add_device_option, build_detector, read_model
from llmdet.utils.cli import (
    add_config_options,
    count,
    fast_startup,
    fraction,
    write_notice,
    write_result,
)

if TYPE_CHECKING:
    import numpy as np

    from llmdet.apis.found_objects import FoundObjects
    from llmdet.apis.results import Picture

#: ChatRex's, of proposals.
_NMS = 0.8
_SCORE = 0.25


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; nothing heavy is imported, so that --help answers at once."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("image", type=Path, help="image file")
    parser.add_argument("config", nargs="?", help="config of a region language model")
    parser.add_argument("weights", nargs="?", help="its checkpoint, or a folder of the hub")
    parser.add_argument(
        "--refer",
        action="append",
        required=True,
        metavar="WORDS",
        help="what to find, such as 'person that waves'; given again: something else",
    )
    parser.add_argument("--wording", help="of the question, with {phrase}; default: the model's")
    _add_candidate_arguments(parser)
    _add_chat_arguments(parser)
    parser.add_argument(
        "--sam", metavar="MODEL", help="masks too, by this SAM or SAM 2: folder, hub id or .pth"
    )
    parser.add_argument(
        "--out-dir",
        type=Path,
        default=Path("outputs"),
        help="folder that gets the picture and the JSON; default: outputs",
    )
    parser.add_argument("--print-result", action="store_true", help="print the JSON")
    add_generation_options(parser)
    add_device_option(parser)
    add_config_options(parser)
    return parser.parse_intermixed_args(argv)  # CONFIG and CKPT may stand behind options


def _add_candidate_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("candidate boxes")
    group.add_argument(
        "--detector", metavar="CONFIG", help="of a detector that finds them: of words or proposals"
    )
    group.add_argument("--detector-weights", metavar="CKPT", help="its checkpoint")
    group.add_argument(
        "--objects", nargs="+", metavar="NAME", help="classes that are looked for, such as person"
    )
    group.add_argument(
        "--granularity", choices=("fine", "coarse"), help="of a detector of proposals"
    )
    group.add_argument(
        "--boxes",
        metavar="BOXES",
        help="in the place of a detector: JSON of image_demo.py, or '[[x1, y1, x2, y2], ...]', as "
        "a file or by itself",
    )
    group.add_argument(
        "--score-thr",
        type=fraction,
        default=_SCORE,
        help=f"candidates below this score are left out (default {_SCORE})",
    )
    group.add_argument(
        "--nms",
        type=fraction,
        default=_NMS,
        metavar="IOU",
        help=f"of candidates that overlap by more, the best stays (default {_NMS})",
    )


def _add_chat_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("in the place of CONFIG: a model that sees numbered boxes")
    group.add_argument("--chat-model", metavar="MODEL", help="folder, hub id, or a server's name")
    group.add_argument("--url", help="base of an OpenAI-compatible server, ending in /v1")
    group.add_argument(
        "--most", type=count, metavar="N", help="boxes that are drawn at most (default 40)"
    )


def run(args: argparse.Namespace) -> None:
    """Find candidates, let the model choose, and save and say what was found."""
    from llmdet.apis.found_objects import nothing_to_choose, read_one

    _check(args)
    boxes, scores, source = _candidates(args)
    write_notice(f"{len(boxes)} candidates ({source})")
    if not len(boxes):
        worse = "" if scores is None else f" with a score of {args.score_thr} or more (--score-thr)"
        write_notice(f"Nothing is asked: there is no box{worse} to choose from.")
        found = nothing_to_choose(read_one(args.image), args.refer)
    else:
        found = _finder(args)(args.image, args.refer, boxes, scores)
    picture = found[0].picture
    masks = None
    if args.sam is not None:
        from llmdet.apis.box_masks import BoxMasks

        segment = BoxMasks(args.sam, args.device)
        masks = [segment(picture.pixels(), each.boxes) for each in found]
    for each in found:
        listed = ", ".join(map(str, each.indices.tolist()))
        absent = "there is no such thing" if each.absent else "nothing that can be read"
        write_notice(f"{each.phrase}: {f'candidates {listed}' if listed else absent}")
    row = to_row(found, boxes, scores, source, masks)
    _save(args, row, found, masks, picture)
    if args.print_result:
        write_result(json.dumps(row))


def _check(args: argparse.Namespace) -> None:
    """Refuse what cannot go together, before anything is loaded."""
    from llmdet.errors import ConfigError

    if (args.config is None) == (args.chat_model is None):
        raise ConfigError(
            "Who chooses? Give CONFIG and CKPT of a region language model, or --chat-model, and "
            "not both."
        )
    if (args.detector is None) == (args.boxes is None):
        raise ConfigError("Where do candidates come from? Give --detector or --boxes, not both.")
    if args.boxes is not None and (args.objects or args.granularity):
        raise ConfigError("--objects and --granularity are for a --detector, and not for --boxes.")
    if args.boxes is not None and args.detector_weights:
        raise ConfigError("--detector-weights are of a --detector, and --boxes take its place.")
    if args.objects and args.granularity:
        raise ConfigError("--objects are names, and --granularity is for boxes without: give one.")
    if not all(words.strip() for words in args.refer):
        raise ConfigError("--refer is empty: say what to find, such as 'person that waves'.")
    if args.chat_model is None and (args.url or args.most):
        raise ConfigError("--url and --most belong to --chat-model.")
    if args.chat_model is not None and args.cfg_options:
        raise ConfigError("--cfg-options change CONFIG, in the place of which is --chat-model.")
    _check_outputs(args)


def _check_outputs(args: argparse.Namespace) -> None:
    """Refuse to write the result over the image or the candidates."""
    from llmdet.errors import ConfigError

    # By os.path, which takes boxes that are given by themselves for a file that there is not.
    inputs = [given for given in (args.image, args.boxes or "") if os.path.exists(given)]
    for output in filter(Path.exists, _outputs(args)):
        for given in inputs:
            if output.samefile(given):
                raise ConfigError(
                    f"The result would replace {given}: give another folder as --out-dir than "
                    f"{args.out_dir}."
                )


def _outputs(args: argparse.Namespace) -> tuple[Path, Path]:
    """The files that get the picture and the JSON."""
    from llmdet.apis.output_names import picture_suffix

    stem = args.image.stem
    return args.out_dir / f"{stem}{picture_suffix(args.image)}", args.out_dir / f"{stem}.json"


def _candidates(args: argparse.Namespace) -> tuple[np.ndarray, np.ndarray | None, str]:
    """Boxes [N, 4] xyxy, their scores, and whose they are."""
    if args.boxes is not None:
        from llmdet.apis.candidate_boxes import read_boxes

        return *read_boxes(args.boxes, args.score_thr, args.nms), "given"
    detector = build_detector(args.detector, args.detector_weights, device=args.device)
    asked: dict[str, Any] = {"granularity": args.granularity}
    if args.objects:
        asked = {"classes": args.objects}
    found = detector.predict(args.image, **asked, threshold=args.score_thr, nms=args.nms)
    words = " . ".join(args.objects or ()) or args.granularity or "any object"
    return found.boxes, found.scores, f"{Path(args.detector).name}, {words}"


def _finder(args: argparse.Namespace) -> Any:
    """What chooses: called with the image, the phrases, boxes and scores."""
    if args.chat_model is not None:
        return _chat_finder(args)
    with fast_startup():
        from llmdet.apis import RegionChat

        config, weights = read_model(args)
        chat = RegionChat.from_config(config, weights, args.device)
    options = generation_of(args) | ({"wording": args.wording} if args.wording else {})

    def find(image: Path, phrases: Sequence[str], boxes: Any, scores: Any) -> list[FoundObjects]:
        keep = "first" if scores is None else "score"
        return chat.find_each(image, phrases, boxes, scores, keep, **options)

    return find


def _chat_finder(args: argparse.Namespace) -> Any:
    from llmdet.apis.building import choose_device
    from llmdet.apis.numbered_boxes import MOST, NumberedBoxes
    from llmdet.data_engines.models import ModelSettings
    from llmdet.prompts.numbered_boxes import QUESTION

    backend = "openai" if args.url else "transformers"
    device = "cpu" if args.url else str(choose_device(args.device))
    settings = ModelSettings(backend, args.chat_model, args.url, device, args.max_new_tokens or 512)
    numbered = NumberedBoxes(
        settings.build(), args.most or MOST, args.wording or QUESTION, args.temperature or 0.0
    )

    def find(image: Path, phrases: Sequence[str], boxes: Any, scores: Any) -> list[FoundObjects]:
        return numbered.find_each(
            image, phrases, boxes, scores, "first" if scores is None else "score"
        )

    return find


def to_row(
    found: Sequence[FoundObjects],
    boxes: np.ndarray,
    scores: np.ndarray | None,
    source: str,
    masks: Sequence[np.ndarray] | None,
) -> dict[str, Any]:
    """All of it, ready for JSON; masks in COCO's run-length encoding."""
    from llmdet.datasets.masks import encode_mask

    rows = []
    for number, each in enumerate(found):
        row = {
            "phrase": each.phrase,
            "indices": each.indices.tolist(),
            "bboxes": each.boxes.tolist(),
            "absent": each.absent,
            "answer": each.answer,
            "left_out": each.left_out,
        }
        if each.scores is not None:
            row["scores"] = each.scores.tolist()
        if masks is not None:
            row["masks"] = [encode_mask(mask) for mask in masks[number]]
        rows.append(row)
    candidates: dict[str, Any] = {"source": source, "bboxes": boxes.tolist()}
    if scores is not None:
        candidates["scores"] = scores.tolist()
    picture = found[0].picture
    size = {"width": picture.width, "height": picture.height}
    return {"image": str(picture), **size, "candidates": candidates, "found": rows}


def _save(
    args: argparse.Namespace,
    row: dict[str, Any],
    found: Sequence[FoundObjects],
    masks: Sequence[np.ndarray] | None,
    picture: Picture,
) -> None:
    from dataclasses import replace

    import numpy as np

    from llmdet.apis.found_objects import join_results
    from llmdet.visualization.drawing import tint_masks
    from llmdet.visualization.palette import detection_colors
    from llmdet.visualization.pictures import save_picture

    results = join_results(found)
    if masks is not None:
        colors = detection_colors(results.names, results.labels.tolist(), classes=results.classes)
        pixels = tint_masks(picture.pixels(), np.concatenate(masks), colors)
        results = replace(results, picture=replace(picture, source=pixels))
    drawn, listed = _outputs(args)
    save_picture(np.asarray(results.plot()), drawn)
    listed.write_text(json.dumps(row) + "\n", encoding="utf-8")
    write_notice(f"Saved in {args.out_dir}.")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program on a command line."""
    args = parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("llmdet").setLevel(logging.INFO)
    run(args)
