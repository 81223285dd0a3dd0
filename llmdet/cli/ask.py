"""Questions about the regions of an image, in the place of what image_demo.py detects."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmdet.cli.model import read_model
from llmdet.utils.cli import count, fast_startup, positive, write_notice, write_result

if TYPE_CHECKING:
    from llmdet.apis.region_talk import RegionTalk

#: Arguments that speak of detection alone.
_DETECTION = ("text", "custom_entities", "tokens_positive", "any_object", "nms", "caption")


def add_ask_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--ask`` and ``--masks``."""
    group = parser.add_argument_group("questions about regions, for region language models")
    group.add_argument(
        "--ask",
        action="append",
        metavar="QUESTION",
        help="with <region> where one of --boxes or --masks is meant, the first one first, or "
        "<region:0>; given again: a further question, which sees the answers before it",
    )
    group.add_argument(
        "--masks",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="regions after those of --boxes: pictures that are black or transparent outside the "
        "region, or JSON of COCO's encodings or polygons",
    )


def add_generation_options(group: argparse._ActionsContainer) -> None:
    """Add ``--temperature`` and ``--max-new-tokens``, which :func:`generation_of` reads."""
    group.add_argument(
        "--temperature",
        type=positive,
        metavar="T",
        help="sample words at this temperature; default: always the likeliest word",
    )
    group.add_argument(
        "--max-new-tokens", type=count, metavar="N", help="longest caption or answer, in tokens"
    )


def generation_of(args: argparse.Namespace) -> dict[str, Any]:
    """How words are to be decoded, as options of transformers' ``generate``."""
    options: dict[str, Any] = {}
    if args.temperature is not None:
        options |= {"do_sample": True, "temperature": args.temperature}
    if args.max_new_tokens is not None:
        options["max_new_tokens"] = args.max_new_tokens
    return options


def ask_of_images(
    images: Sequence[Path], args: argparse.Namespace, folders: dict[str, Path | None]
) -> None:
    """Ask the questions of ``--ask`` about each image; print, save and show what was said.

    Args:
        images: that can be read.
        args: of image_demo.py.
        folders: where pictures ("vis") and JSON ("preds") go, None for what is not saved.

    Raises:
        ConfigError: arguments are about detection, or the config's model answers no questions.
        DataError: regions do not lie in the image, or a question marks one that there is not.
    """
    from llmdet.apis.output_names import output_names, picture_suffix

    boxes, masks = _regions(images, args)
    with fast_startup():
        from transformers.utils import logging as transformers_logging

        from llmdet.apis import RegionChat

        transformers_logging.disable_progress_bar()  # of weights, which are there at once
        config, weights = read_model(args)
        chat = RegionChat.from_config(config, weights, args.device)
    for path, name in zip(images, output_names(images), strict=True):
        talk = chat.talk(path, boxes, masks)
        write_notice(f"{path}:")
        for question in args.ask:
            answer = talk.ask(question, **generation_of(args))
            write_notice(f"  {question}\n    {answer}")
        if folders["preds"]:
            talk.save(folders["preds"] / f"{name}.json")
        if args.print_result:
            write_result(json.dumps(talk.to_row()))
        _draw(talk, args, path, folders["vis"] and folders["vis"] / name, picture_suffix(path))


def _draw(
    talk: RegionTalk, args: argparse.Namespace, image: Path, stem: Path | None, suffix: str
) -> None:
    import numpy as np

    from llmdet.visualization.pictures import save_picture, show_picture

    if stem is None and not args.show:
        return
    picture = np.asarray(talk.plot(args.palette))
    if stem is not None:
        save_picture(picture, stem.with_name(stem.name + suffix))
    if args.show:
        show_picture(picture, str(image))


def _regions(images: Sequence[Path], args: argparse.Namespace) -> tuple[Any, list[Any] | None]:
    """The boxes and masks of the command line; a box without a mask has None there."""
    from llmdet.apis.reading import parse_boxes
    from llmdet.errors import ConfigError

    given = [name for name in _DETECTION if getattr(args, name) not in (None, False)]
    if given:
        option = given[0].replace("_", "-")
        raise ConfigError(f"--ask asks a region language model, which has no --{option}.")
    boxes = [] if args.boxes is None else parse_boxes(args.boxes).tolist()
    if not args.masks and not boxes:
        return (), None
    if len(images) > 1:
        raise ConfigError("--boxes and --masks are regions of one image: give one.")
    if not any("<region" in question for question in args.ask):
        write_notice("No question says <region>, so that the regions are not spoken of.")
    if not args.masks:
        return boxes, None
    from llmdet.apis.region_talk import read_mask_file

    masks = [mask for file in args.masks for mask in read_mask_file(file)]
    return [*boxes, *[None] * len(masks)], [*[None] * len(boxes), *masks]
