"""Time of a training step of LLMDet by part, and how it compares with the original's procedure.

    python tools/benchmark/train_step.py                            # small, on any machine
    python tools/benchmark/train_step.py --like upstream            # beside the original's ways
    python tools/benchmark/train_step.py --size t --batch-size 2 --height 800 --width 1333
    python tools/benchmark/train_step.py --size l --repeats 1 --language-layers 2   # any machine

Weights are random, images, prompts and captions those of the toy set, scaled to the given size.
"tiny" is a small detector with a small language model; "t", "b" and "l" are the real configs with a
Qwen2 of 0.5 billion parameters. ``--like upstream`` runs a second step in turn with ours, in which
what is printed as "upstream" is done in the way of the original code; ``--switch`` takes a part.
``--compile`` runs one through torch.compile; all are padded alike then.
Dropout is off, so that losses can be compared.
"data" is loading and transforms, not a part of "step": workers do it meanwhile in a real run.
"kept" is what the forward pass keeps for the backward pass.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

# What runs with `python tools/benchmark/train_step.py` finds the package beside it.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from llmdet.testing.published import QWEN_05B
from llmdet.testing.upstream import SWITCHES, WAYS, replaced, ungrouped
from llmdet.utils.cli import run_cli

BASE = Path(__file__).resolve().parents[2] / "configs/_base_"
SMALL, REAL = (160, 224), (800, 1333)  # height, width


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; nothing heavy is imported, so that --help answers at once."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=["tiny", "t", "b", "l"], default="tiny")
    parser.add_argument("--batch-size", type=int, default=2, help="images (default 2)")
    parser.add_argument("--height", type=int, help="default: 800 with CUDA, 160 without")
    parser.add_argument("--width", type=int, help="default: 1333 with CUDA, 224 without")
    parser.add_argument("--repeats", type=int, default=3, help="timed steps of each way")
    parser.add_argument("--like", choices=["upstream"], help="also do as the original does")
    parser.add_argument(
        "--switch", nargs="+", choices=list(SWITCHES), help="with --like: only these (default all)"
    )
    parser.add_argument(
        "--compile",
        nargs="?",
        const="inductor",
        metavar="BACKEND",
        help="also through torch.compile, by this backend (default inductor)",
    )
    parser.add_argument(
        "--language-layers", type=int, help="of the language model of t, b and l (default: its 24)"
    )
    parser.add_argument("--amp", action="store_true", help="forward passes in bfloat16")
    parser.add_argument("--train-backbone", action="store_true", help="the real configs freeze it")
    parser.add_argument(
        "--processor-time",
        action="store_true",
        help="of all threads, instead of the clock's: for a CPU with other work to do",
    )
    parser.add_argument("--threads", type=int, help="of PyTorch (default: its own choice)")
    parser.add_argument("--device", help="default: cuda where there is one")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Print seconds of each part for each way."""
    args = parse_args(argv)
    import torch

    args.device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if args.threads:
        torch.set_num_threads(args.threads)
    height, width = REAL if args.device.startswith("cuda") else SMALL
    args.height, args.width = args.height or height, args.width or width
    switches = (args.switch or list(SWITCHES)) if args.like else []
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(args, folder)
        ways = {"ours": Step(bench, [])}
        if args.compile:
            ways["compiled"] = Step(bench, [], compiled=True)
        if switches:
            ways["upstream"] = Step(bench, switches)
        print(
            f"Swin-{args.size}, {args.batch_size} x {args.height} x {args.width}, "
            f"{'bfloat16' if args.amp else 'float32'}, "
            f"{args.device}, {torch.get_num_threads()} threads, torch {torch.__version__}"
        )
        for name in switches:
            print(f"upstream, {name}: {SWITCHES[name]}")
        for number in range(args.repeats + 1):
            turns = list(ways.values())[:: 1 if number % 2 else -1]  # none is always the first
            for step in turns:
                step.run(count=number > 0)
    report(ways, args)
    return 0


def report(ways: dict[str, Step], args: argparse.Namespace) -> None:
    """Print the table: the fastest of the repeats, of each part and of the whole."""
    import resource

    unit = "processor s" if args.processor_time else "seconds"
    print(f"{unit:>16}" + "".join(f"{name:>12}" for name in ways))
    for part in ways["ours"].seconds:
        row = [min(step.seconds.get(part, [0.0])) for step in ways.values()]
        print(f"{part:>16}" + "".join(f"{value:12.4f}" for value in row))
    best = {name: min(step.totals) for name, step in ways.items()}
    lines = {
        "step": [f"{value:.4f}" for value in best.values()],
        "images/s": [f"{args.batch_size / value:.2f}" for value in best.values()],
        "kept MiB": [f"{step.kept / 2**20:.0f}" for step in ways.values()],
        "loss": [f"{step.loss:.5f}" for step in ways.values()],
    }
    if args.device.startswith("cuda"):
        lines["peak MiB"] = [f"{step.peak / 2**20:.0f}" for step in ways.values()]
    for label, values in lines.items():
        print(f"{label:>16}" + "".join(f"{value:>12}" for value in values))
    if len(best) > 1:
        last = list(best.values())[-1]
        print(f"{'ratio':>16}" + "".join(f"{value / last:12.2f}" for value in best.values()))
    elif not args.device.startswith("cuda"):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(f"peak of the process: {peak / 2**10:.0f} MiB")


class Clock:
    """Seconds by part; a part inside another one counts for itself alone."""

    def __init__(self, device: str, processor: bool = False) -> None:
        self.device, self.processor = device, processor
        self.seconds: dict[str, float] = defaultdict(float)
        self._inside: list[float] = []  # seconds of parts inside each open part

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count what happens inside for ``name``."""
        start = self._now()
        self._inside.append(0.0)
        yield
        taken = self._now() - start
        self.seconds[name] += taken - self._inside.pop()
        if self._inside:
            self._inside[-1] += taken

    def counted(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function`` as a part."""

        def call(*args: Any, **kwargs: Any) -> Any:
            with self.part(name):
                return function(*args, **kwargs)

        return call

    def _now(self) -> float:
        if self.device.startswith("cuda"):
            import torch

            torch.cuda.synchronize()
        return time.process_time() if self.processor else time.perf_counter()


class Bench:
    """Model and data, which both ways share."""

    def __init__(self, args: argparse.Namespace, folder: str) -> None:
        import torch
        from mmengine.registry import init_default_scope

        import llmdet.models  # noqa: F401  registers the classes
        from llmdet.datasets.toy.models import write_toy_models
        from llmdet.datasets.toy.writer import ToySettings, generate
        from llmdet.engine.compilation import CompileSettings, compile_for_training

        init_default_scope("llmdet")
        torch.manual_seed(0)
        generate(folder, ToySettings(train=max(2 * args.batch_size, 8), val=1))
        write_toy_models(Path(folder))
        self.processor_time = args.processor_time
        self.device, self.batch_size, self.amp = args.device, args.batch_size, args.amp
        self.model = build_model(args, folder).to(args.device).train()
        if args.compile:
            compile_for_training(self.model, CompileSettings(backend=args.compile))
        self.dataset = build_dataset(args, folder, self.model)
        self.optim_wrapper = config_of("schedules/llmdet_150k.py").optim_wrapper

    def batch(self) -> Any:
        """The same images each time, loaded anew."""
        from mmengine.dataset import pseudo_collate

        return pseudo_collate([self.dataset[i] for i in range(self.batch_size)])


def config_of(path: str) -> Any:
    """A config below ``configs/_base_``."""
    from mmengine.config import Config

    return Config.fromfile(BASE / path)


def build_model(args: argparse.Namespace, folder: str) -> Any:
    """LLMDet of the given size, with random weights and the tokenizers of the toy set."""
    from transformers import BertConfig, BertModel

    from llmdet.registry import MODELS

    tiny = args.size == "tiny"
    name = "tiny" if tiny else f"swin_{args.size}"
    settings = config_of(f"models/grounding_dino_{name}.py").model
    language = config_of(f"models/lmm_{'tiny' if tiny else 'p4p5'}.py")
    lmm = dict(language.lmm)
    if tiny:
        lmm["model"] = f"{folder}/language_model"
    else:
        bert = BertConfig(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
        BertModel(bert, add_pooling_layer=False).save_pretrained(f"{folder}/bert")
        qwen = {
            **QWEN_05B,
            "num_hidden_layers": args.language_layers or QWEN_05B["num_hidden_layers"],
        }
        lmm |= {"model": qwen, "tokenizer": f"{folder}/language_model", "pretrained": False}
    settings.language_model.name = f"{folder}/bert"
    settings.encoder.fusion_layer_cfg.dropout = 0.0  # both ways shall come to the same losses
    settings.backbone.pop("init_cfg", None)
    settings.update(
        type="LLMDet",
        lmm=lmm,
        image_captioner=language.image_captioner,
        region_captioner=language.region_captioner,
        freeze_backbone=not (tiny or args.train_backbone),
    )
    return MODELS.build(settings)


def build_dataset(args: argparse.Namespace, folder: str, model: Any) -> Any:
    """The toy set with captions, every image scaled to the given size."""
    import llmdet.datasets  # noqa: F401  registers the classes
    from llmdet.engine.conversations import share_settings
    from llmdet.registry import DATASETS

    settings = config_of("datasets/toy.py").grounding_part
    settings.data_root = f"{folder}/"
    for step in settings.pipeline:
        if step.type == "RandomChoiceResize":
            step.update(scales=[(args.width, args.height)], keep_ratio=False)
        if step.type == "RandomSamplingNegPos":
            step.tokenizer_name = f"{folder}/bert"
    share_settings(model, settings)
    return DATASETS.build(settings)


class Step:
    """One way of doing a training step."""

    def __init__(self, bench: Bench, switches: Sequence[str], compiled: bool = False) -> None:
        from mmengine.optim import build_optim_wrapper

        self.bench, self.switches, self.compiled = bench, switches, compiled
        self.wrapper = build_optim_wrapper(bench.model, bench.optim_wrapper)
        if "optimizer" in switches:
            self.wrapper.optimizer = ungrouped(self.wrapper.optimizer)
        for group in self.wrapper.optimizer.param_groups:
            group["lr"] = 0.0  # both ways work on the same weights, which shall not change
            group["weight_decay"] = 0.0
        self.totals: list[float] = []
        self.seconds: dict[str, list[float]] = {}
        self.kept = self.peak = 0
        self.loss = 0.0

    def run(self, count: bool) -> None:
        """Run a step as a whole and another one by part; keep the times if they ``count``."""
        import torch

        clock = Clock(self.bench.device, self.bench.processor_time)
        with ExitStack() as stack:
            stance = "default" if self.compiled else "force_eager"
            stack.enter_context(torch.compiler.set_stance(stance))
            for name in self.switches:
                stack.enter_context(WAYS[name](self.bench.model) if name in WAYS else ExitStack())
            if not count:  # the first step warms up, and is looked at
                stack.enter_context(self._memory())
            with clock.part("data"):
                batch = self.bench.batch()
            with clock.part("whole"):
                self._step(batch, Clock("cpu"))
            if not count:
                return
            self.totals.append(clock.seconds.pop("whole"))
            for part in parts_of(self.bench.model, clock):
                stack.enter_context(part)
            self._step(self.bench.batch(), clock)
        for name, value in clock.seconds.items():
            self.seconds.setdefault(name, []).append(value)

    def _step(self, batch: Any, clock: Clock) -> None:
        import torch

        from llmdet.engine.scalars import scalars_of

        model = self.bench.model
        torch.manual_seed(0)  # the same noise in both ways
        with clock.part("rest"):
            data = model.data_preprocessor(batch, True)
            device = self.bench.device.split(":")[0]
            with torch.autocast(device, torch.bfloat16, enabled=self.bench.amp):
                total, logs = model.parse_losses(model(**data, mode="loss"))
        with clock.part("backward"):
            self.wrapper.backward(total)
        with clock.part("optimizer"):
            self.wrapper.step()
            self.wrapper.zero_grad()
        with clock.part("logging"):
            scalars = scalars_of(self.wrapper.message_hub)
            scalars.deferring = "logging" not in self.switches
            for values in [logs] if scalars.deferring else [{name: logs[name]} for name in logs]:
                scalars.add(values)
        self.loss = total.item()

    @contextmanager
    def _memory(self) -> Iterator[None]:
        """Count the bytes that the backward pass is left, and the peak above weights."""
        import torch

        storages: dict[int, int] = {}
        weights = {p.untyped_storage().data_ptr() for p in self.bench.model.parameters()}

        def keep(tensor: Any) -> Any:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                storages[storage.data_ptr()] = storage.nbytes()
            return tensor

        cuda = self.bench.device.startswith("cuda")
        if cuda:
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            yield
        self.kept = sum(storages.values())
        if cuda:
            self.peak = torch.cuda.max_memory_allocated() - before


def parts_of(model: Any, clock: Clock) -> Iterator[Any]:
    """Contexts that count the stages of ``model``."""
    for part, owner, names in (
        ("backbone", model, ["extract_feat"]),
        ("text", model, ["encode_text"]),
        ("encoder", model, ["pyramid", "encode"]),
        ("decoder", model, ["propose", "decode"]),
        ("decoder", model.bbox_head, ["forward"]),
        ("matcher", model.bbox_head, ["match"]),
        ("losses", model.bbox_head, ["loss"]),
        ("image captions", model, ["_image_loss"]),
        ("region captions", model, ["_region_losses"]),
    ):
        for name in names:
            yield replaced(owner, name, clock.counted(part, getattr(owner, name)))


if __name__ == "__main__":
    run_cli(main)
