"""Write a detector as one file that runs without this package: ONNX, or torch.export.

    llmdet export CONFIG WEIGHTS fruit.onnx --text 'apple . pear .' -c
    llmdet export CONFIG WEIGHTS any.onnx --text 'apple . pear .' -c --text-features
    llmdet export CONFIG WEIGHTS nuts.npz --text 'hazelnut . walnut .' -c
    llmdet export CONFIG WEIGHTS left.onnx --text 'the left apple' --tokens-positive -1
    python demo/onnx_demo.py fruit.onnx IMAGE

The first file finds the classes of its prompt. The second is told what to look for by tensors, and
has those of the prompt beside it in any.npz; the third command writes the tensors of another prompt
for it. The last file finds what a referring expression describes. Every file is run and compared
with PyTorch: exit code 1 where they differ.
`llmdet export` and `python tools/export.py` are the same.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmdet.cli.model import CONFIG_HELP, add_text_options, build_detector, read_words
from llmdet.utils.cli import add_config_options, count, fast_startup, write_notice, write_result

if TYPE_CHECKING:
    from llmdet.apis import Detector
    from llmdet.export.program import DetectorProgram
    from llmdet.export.text import EncodedPrompt
    from llmdet.export.writing import ExportOptions
    from llmdet.prompts.types import Prompt

FORMATS = ("onnx", "torch-export")
TEST_SCALE = (800, 1333)  # of Swin-T and B: shorter side, limit of the longer one
RUNS = 3


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; nothing heavy is imported, so that --help answers at once."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help=CONFIG_HELP)
    parser.add_argument("weights", help="checkpoint; 'none': the folder's, or random ones")
    parser.add_argument("out", type=Path, help="file to write; .npz: the tensors of the prompt")
    parser.add_argument("--format", choices=FORMATS, default="onnx", help="default: onnx")
    add_text_options(parser, default="the classes of the config's test set")
    parser.add_argument(
        "--text-features", action="store_true", help="the program takes what is to be found"
    )
    parser.add_argument(
        "--dynamic",
        action="store_true",
        help="any number of images of any size, sides multiples of 32; default: one of one size",
    )
    parser.add_argument("--fp16", action="store_true", help="weights and arithmetic in float16")
    parser.add_argument(
        "--uint8", action="store_true", help="images as uint8 RGB, normalised within"
    )
    parser.add_argument("--height", type=count, help="of images; default: shorter test side")
    parser.add_argument("--width", type=count, help="of images; default: longer test side")
    add_config_options(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program on a command line; returns 1 where the file differs from PyTorch."""
    args = parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    with fast_startup():
        from llmdet.export.text import encode_prompt
        from llmdet.export.writing import make_program, require_packages

    if args.format == "onnx" and args.out.suffix != ".npz":
        require_packages()  # before minutes are spent
    weights = None if args.weights == "none" else args.weights
    detector = build_detector(
        args.config, weights, device="cpu", dtype="float32", cfg_options=args.cfg_options
    )
    detector.model.requires_grad_(False)
    prompt = encode_prompt(detector.model, read_prompt(args, detector))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    if args.out.suffix == ".npz":
        prompt.check_text_inputs()
        prompt.write(args.out)
        write_result(f"{args.out}: texts with {len(prompt.classes)} classes, for --text-features")
        return 0
    options = read_options(args, detector)
    program = make_program(detector.model, prompt, options, args.text_features)
    write(args, detector, program, prompt, options)
    return check(args, detector, prompt, options)


def read_prompt(args: argparse.Namespace, detector: Detector) -> Prompt:
    """What to find: the text of the command line, or the classes of the config."""
    from llmdet.apis.class_names import config_class_names
    from llmdet.apis.questions import read_question

    words = read_words(args)
    if words is None:
        return read_question(config_class_names(detector.config))
    return read_question(**words)


def read_options(args: argparse.Namespace, detector: Detector) -> ExportOptions:
    """The size of the command line, or of the config's test images, and what else was said."""
    from llmdet.apis.building import test_steps
    from llmdet.export.writing import MULTIPLE, ExportOptions

    scales = [step["scale"] for step in test_steps(detector.config) if "scale" in step]
    scale = scales[0] if scales else TEST_SCALE
    sides = {"height": args.height or min(scale), "width": args.width or max(scale)}
    for name, side in sides.items():
        if args.dynamic and getattr(args, name) is None:
            sides[name] = max(round(side / MULTIPLE), 2) * MULTIPLE
    return ExportOptions(**sides, dynamic=args.dynamic, fp16=args.fp16, uint8=args.uint8)


def write(
    args: argparse.Namespace,
    detector: Detector,
    program: DetectorProgram,
    prompt: EncodedPrompt,
    options: ExportOptions,
) -> None:
    """Write the file, and beside it the texts' tensors that a program for texts is tried with."""
    from llmdet.export.writing import OPSET, describe, trace, write_onnx, write_torch_export

    about = describe(detector.model, None if args.text_features else prompt, options)
    graph = trace(program, prompt, options)
    if args.format == "onnx":
        write_onnx(graph, about, args.out)
    else:
        write_torch_export(graph, about, args.out)
    what = f"opset {OPSET}" if args.format == "onnx" else "for torch.export.load"
    size = args.out.stat().st_size / 1e6
    sizes = "any size" if options.dynamic else f"{options.height} x {options.width}"
    write_result(f"{args.out}: {what}, {size:.0f} MB, images of {sizes}")
    if args.text_features:
        beside = args.out.with_suffix(".npz")
        prompt.write(beside)
        write_result(f"{beside}: texts with {len(prompt.classes)} classes, its further inputs")


def check(
    args: argparse.Namespace, detector: Detector, prompt: EncodedPrompt, options: ExportOptions
) -> int:
    """Run the file beside PyTorch; returns the exit code."""
    from dataclasses import replace

    from llmdet.export.check import TOLERANCE, TOLERANCE_FP16, compare, seconds
    from llmdet.export.writing import example_inputs, make_program

    exact = replace(options, fp16=False)
    reference = make_program(detector.model, prompt, exact, args.text_features)
    run, run_inner = runners(args)
    size = (options.height, options.width)
    tried = [(1, size)]
    if options.dynamic:
        tried.append((2, size[::-1]))
    largest = 0.0
    for batch, tried_size in tried:
        inputs = example_inputs(prompt, options, batch, tried_size, args.text_features)
        found = compare(reference, inputs, run_inner(inputs))
        largest = max(largest, found.largest())
        write_result(
            f"{batch} x {tried_size[0]} x {tried_size[1]}: scores differ by at most "
            f"{max(found.scores, found.choice):.1e}, boxes by {found.boxes:.1e} of the image, "
            f"the answer from its queries by {found.detections:.1e}"
        )
    limit = TOLERANCE_FP16 if options.fp16 else TOLERANCE
    if not largest <= limit:
        write_notice(
            f"error: {args.out} is not equal to PyTorch: the largest difference is {largest:.1e}, "
            f"and {limit:.0e} is allowed"
        )
        return 1
    inputs = example_inputs(prompt, options, 1, size, args.text_features)
    write_result(
        speed(args.format, seconds(lambda: reference_run(reference, inputs), RUNS), run, inputs)
    )
    return 0


def runners(args: argparse.Namespace) -> tuple[Any, Any]:
    """What runs the file as it is, and what shows its inner values as well."""
    from llmdet.export.check import onnx_inner_runner, onnx_runner, torch_export_runner

    if args.format == "onnx":
        return onnx_runner(args.out), onnx_inner_runner(args.out)
    run = torch_export_runner(args.out)
    return run, run


def reference_run(reference: DetectorProgram, inputs: dict[str, Any]) -> None:
    """PyTorch's run, for its time."""
    import torch

    with torch.no_grad():
        reference(**inputs)


def speed(format: str, pytorch: float, run: Any, inputs: dict[str, Any]) -> str:
    """A line with both times of one image."""
    import torch

    from llmdet.export.check import seconds

    exported = seconds(lambda: run(inputs), RUNS)
    runtime = "onnxruntime" if format == "onnx" else "the exported program"
    return (
        f"one image: PyTorch {pytorch:.2f} s, {runtime} {exported:.2f} s "
        f"(median of {RUNS} runs, CPU, {torch.get_num_threads()} threads)"
    )
