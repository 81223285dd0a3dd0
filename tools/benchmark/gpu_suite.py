"""Everything that needs a GPU, in parts of at most nine minutes, and one table of the results.

    python tools/benchmark/gpu_suite.py --out work_dirs/gpu                  # every part
    python tools/benchmark/gpu_suite.py --out work_dirs/gpu --parts msda,lm_loss
    python tools/benchmark/gpu_suite.py --out work_dirs/gpu --minutes 9      # and again, to go on
    python tools/benchmark/gpu_suite.py --out work_dirs/try --device cpu --short  # do scripts run?

A part that is done is not repeated; one that failed, was interrupted, or ran on another machine or
with other settings is run again. OUT gets PART.log and PART.json of each part, and results.md and
results.json. The exit code is 1 while a chosen part is not done. What a GPU machine without a
network lacks is installed with tools/benchmark/wheelhouse.py.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

# What runs with `python tools/benchmark/gpu_suite.py` finds the package beside it.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from llmdet.utils.cli import run_cli

ROOT = Path(__file__).resolve().parents[2]
BENCHMARK = "tools/benchmark"
#: Printed as JSON by a process of its own, because a look at the device takes memory there.
MACHINE = """
import json, platform, sys, torch
from importlib.metadata import version
cuda = sys.argv[1].startswith("cuda")
print(json.dumps({
    "device": torch.cuda.get_device_name(sys.argv[1]) if cuda else f"CPU, {platform.machine()}",
    "memory": f"{torch.cuda.mem_get_info(sys.argv[1])[1] / 2**30:.0f} GiB" if cuda else "",
    "CUDA": torch.version.cuda if cuda else "",
    "python": platform.python_version(),
    "torch": torch.__version__,
    **{name: version(name) for name in ("torchvision", "transformers", "triton")},
}))
"""


#: First words of the rows that tools/benchmark/scaling.py prints.
GROWTH = r"\| (?:float32|bfloat16|first image|later images|phrases|one image)"


@dataclass(frozen=True)
class Part:
    """Commands that run one after the other, and what is read off their output.

    In the commands ``{python}`` stands for this Python and ``{work}`` for a folder of checkpoints.
    """

    name: str
    seconds: int  # after which it is stopped
    commands: tuple[tuple[str, ...], ...]
    figures: Callable[[str, Path], str]  # (output, folder of work) -> a cell of the table


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; nothing heavy is imported, so that --help answers at once."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="folder of results, which a second call continues")
    parser.add_argument("--parts", help="names with commas between them (default: all)")
    parser.add_argument("--list", action="store_true", help="print names and commands, run nothing")
    parser.add_argument("--minutes", type=float, help="start no part that could end later")
    parser.add_argument("--device", default="cuda", help="default cuda")
    parser.add_argument("--short", action="store_true", help="tiny sizes, whose times mean nothing")
    args = parser.parse_args(argv)
    if not args.list and args.out is None:
        parser.error("--out is needed: the folder of results")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is not done yet, and print the table."""
    args = parse_args(argv)
    parts = chosen(all_parts(args.device, args.short), args.parts)
    if args.list:
        for part in parts:
            print(f"{part.name} (at most {part.seconds} s)")
            print("".join(f"    {' '.join(command)}\n" for command in part.commands), end="")
        return 0
    out = args.out.resolve()
    end = time.monotonic() + 60 * args.minutes if args.minutes else float("inf")
    out.mkdir(parents=True, exist_ok=True)
    machine = look(args.device)
    results: dict[str, dict[str, Any]] = {part.name: {"state": "not run"} for part in parts}
    table = ""
    for part in parts:
        result = finished(part, out, machine)
        if result is None and time.monotonic() + part.seconds <= end:
            print(f"== {part.name} (at most {part.seconds} s)", flush=True)
            result = run(part, out, machine)
            print(f"   {result['state']} after {result['seconds']:.0f} s", flush=True)
        results[part.name] = result or results[part.name]
        table = report(results, machine)  # after each part: the next one may be interrupted
        (out / "results.md").write_text(table, encoding="utf-8")
        (out / "results.json").write_text(
            json.dumps({"machine": machine, "parts": results}, indent=1), encoding="utf-8"
        )
    print(table)
    return int(any(result["state"] != "done" for result in results.values()))


def chosen(parts: Sequence[Part], names: str | None) -> list[Part]:
    """The parts of those names, in their own order.

    Raises:
        ConfigError: there is no part of a name.
    """
    from llmdet.errors import ConfigError
    from llmdet.utils.suggest import did_you_mean

    wanted = names.split(",") if names else [part.name for part in parts]
    known = [part.name for part in parts]
    for name in wanted:
        if name not in known:
            raise ConfigError(f"--parts: no part {name!r}; {did_you_mean(name, known)}")
    return [part for part in parts if part.name in wanted]


def all_parts(device: str, tiny: bool) -> list[Part]:
    """Every part, the cheapest and most telling first."""

    def tool(name: str, *words: str) -> tuple[str, ...]:
        return ("{python}", f"{BENCHMARK}/{name}.py", "--device", device, *words)

    def sizes(short: str, full: str = "") -> tuple[str, ...]:
        return tuple((short if tiny else full).split())

    environment = ("{python}", "-m", "llmdet.utils.env")
    floats = ("float32", "bfloat16") if tiny else ("float32", "bfloat16", "float16")
    small = sizes("--height 64 --width 96 --batch 1 --repeat 1")
    msda = [tool("msda", "--dtype", dtype, *small) for dtype in floats]
    # Of captions of images, which are the defaults, and of regions.
    captions = ["", "--batch 32 --tokens 40 --supervised 12"]
    if tiny:
        captions = ["--batch 2 --tokens 20 --supervised 6 --width 16 --vocabulary 90 --repeat 1"]
    lm_loss = [tool("lm_loss", "--dtype", x, *s.split()) for x in floats[:2] for s in captions]
    detection = sizes("--height 192 --width 320 --classes 3 --repeats 1", "--repeats 10")
    models = ("t",) if tiny else ("t", "b", "l")
    lvis = sizes("--height 192 --width 320 --classes 41")
    step = sizes("--size tiny --repeats 1", "--like upstream --repeats 5")
    # Without a backend's code, which takes minutes to compile on a CPU.
    compiled = sizes("--size tiny --repeats 1 --compile eager", "--size t --repeats 5 --compile")
    scaling = tool("scaling", "--out", "{work}/scaling", *sizes("--short --repeats 1"))
    return [
        Part("environment", 60, (environment,), no_figures),
        Part("kernels", 420, (tests(tiny),), matches(r"\d+ (?:passed|failed|skipped)")),
        Part("msda", 240, tuple(msda), rows(r"ours, \w+|transformers|mmcv")),
        Part("lm_loss", 240, tuple(lm_loss), rows("all|supervised|fused")),
        Part("quickstart", 540, quickstart(tiny), average_precision),
        Part(
            "inference",
            420,
            tuple(tool("inference", "--model", model, *detection) for model in models),
            rows(r"\| (?:seconds|all|of transformers)"),
        ),
        Part("lvis_inference", 540, (tool("lvis_inference", *lvis),), rows("original|ours|scores")),
        *(
            Part(
                f"train_step_{model}",
                540,
                (tool("train_step", *(step if tiny else ("--size", model, *step))),),
                rows("step|ratio|peak MiB|peak of the process"),
            )
            for model in models
        ),
        Part("train_step_compiled", 540, (tool("train_step", *compiled),), rows("step|ratio|loss")),
        Part("scaling", 420, (scaling,), rows(GROWTH)),
        Part("fsdp2", 300, fsdp2(tiny), matches(r"[\d.]+ s/step|\bloss: [\d.]+|\bmemory: \d+")),
    ]


def tests(tiny: bool) -> tuple[str, ...]:
    """Kernels, fused losses and optimizers against their references."""
    files = ["tests/ops/test_deformable_attention.py"]
    if not tiny:
        files = ["tests/ops", "tests/models/language/test_losses.py"]
        files += ["tests/models/text/test_bert.py", "tests/engine/test_optimizer.py"]
        files += ["tests/engine/test_amp.py"]
    words = ("-m", "pytest", "-q", "--import-mode=importlib", "-p", "no:cacheprovider", *files)
    return ("{python}", *words)


def quickstart(tiny: bool) -> tuple[tuple[str, ...], ...]:
    """Mixed-precision training on the toy set, and AP on images that were held out."""
    config, work = "configs/quickstart/llmdet.py", "{work}/quickstart"
    options = ["train_cfg.max_iters=4", "train_dataloader.batch_size=2"] if tiny else []
    train = ["{python}", "tools/train.py", config, "--amp", "--work-dir", work]
    newest = f'$(cd "{work}" && realpath "$(<last_checkpoint)")'  # named as seen from there
    return (
        ("{python}", "-m", "llmdet.datasets.toy", "data/toy"),
        (*train, *(["--cfg-options", *options] if options else [])),
        ("bash", "-c", f'bash demo/measure.sh {config} "{newest}" "{work}"'),
    )


def fsdp2(tiny: bool) -> tuple[tuple[str, ...], ...]:
    """Training of the quickstart spread over processes, of which there is one."""
    launch = ("{python}", "tools/launch.py", "--standalone", "--nproc_per_node=1")
    steps = 4 if tiny else 100
    options = ["strategy.type=FSDP2", f"train_cfg.max_iters={steps}"]
    options += [f"default_hooks.logger.interval={steps // 2}"]
    options += ["train_dataloader.batch_size=2"] if tiny else []
    return (
        ("{python}", "-m", "llmdet.datasets.toy", "data/toy"),
        (
            *launch,
            *("tools/train.py", "configs/quickstart/llmdet.py", "--launcher", "pytorch"),
            *("--work-dir", "{work}/fsdp2", "--cfg-options", *options),
        ),
    )


def no_figures(output: str, work: Path) -> str:
    """For what is read as a whole."""
    return ""


def matches(pattern: str) -> Callable[[str, Path], str]:
    """A reader of all places of the output that fit a pattern."""
    return lambda output, work: ", ".join(dict.fromkeys(re.findall(pattern, output)))


def rows(labels: str) -> Callable[[str, Path], str]:
    """A reader of the rows of printed tables whose label fits a pattern."""
    row = re.compile(rf"^ *(?:{labels})\b.*\d.*$", re.MULTILINE)
    return lambda output, work: "; ".join(" ".join(x.split()) for x in row.findall(output))


def average_precision(output: str, work: Path) -> str:
    """AP of the quickstart, in percent, on combinations seen in training and on the others."""
    cells = []
    for split, ap50, ap in (("seen", "AP50", "AP"), ("unseen", "novel_ap50", "novel_ap")):
        path = work / "quickstart" / f"val_{split}_coco.json"
        if path.is_file():
            values = json.loads(path.read_text(encoding="utf-8"))["values"]
            cells.append(f"{split} AP50 {100 * values[ap50]:.1f}, AP {100 * values[ap]:.1f}")
    return "; ".join(cells)


def look(device: str) -> dict[str, str]:
    """Name of the device, and versions.

    Raises:
        ConfigError: PyTorch cannot use the device.
    """
    from llmdet.errors import ConfigError

    command = [sys.executable, "-W", "ignore", "-c", MACHINE, device]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1]
        raise ConfigError(f"--device {device} cannot be used ({reason}); try --device cpu --short")
    return json.loads(done.stdout.splitlines()[-1])


def commit() -> str:
    """Of the repository; empty where git or its folder is missing."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip()
    except OSError:
        return ""


def finished(part: Part, out: Path, machine: dict[str, str]) -> dict[str, Any] | None:
    """The result of an earlier call, if it is done and would be the same today."""
    path = out / f"{part.name}.json"
    if not path.is_file():
        return None
    result = json.loads(path.read_text(encoding="utf-8"))
    same = result["commands"] == list(map(list, part.commands)) and result["machine"] == machine
    return result if same and result["state"] == "done" else None


def run(part: Part, out: Path, machine: dict[str, str]) -> dict[str, Any]:
    """Run the commands of a part until one fails; its result is on disk when this returns."""
    log, path = out / f"{part.name}.log", out / f"{part.name}.json"
    path.unlink(missing_ok=True)
    start, state = time.monotonic(), "done"
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    with log.open("w", encoding="utf-8") as stream:
        for command in part.commands:
            program = ROOT / command[1]
            if program.suffix == ".py" and not program.is_file():
                state = f"missing: {command[1]}"
                break
            words = [
                word.replace("{python}", sys.executable).replace("{work}", str(out / "work"))
                for word in command
            ]
            print(f"$ {' '.join(words)}", file=stream, flush=True)
            state = call(words, stream, part.seconds - (time.monotonic() - start))
            if state != "done":
                break
    output = log.read_text(encoding="utf-8", errors="replace")
    result = {
        "state": state,
        "figures": part.figures(re.sub(r"^\$ .*", "", output, flags=re.M), out / "work"),
        "seconds": round(time.monotonic() - start, 1),
        "date": date,
        "machine": machine,
        "commit": commit(),
        "commands": list(map(list, part.commands)),
        "output": output[-20000:],
    }
    path.write_text(json.dumps(result, indent=1), encoding="utf-8")
    return result


def call(command: Sequence[str], stream: Any, seconds: float) -> str:
    """Run one command with all that it starts; returns "done" or what went wrong."""
    python_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    variables = {
        **os.environ,
        "PYTHONPATH": python_path,
        "PYTHONUNBUFFERED": "1",
        "PYTHONWARNINGS": "ignore",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # plugins of the machine fit its pytest, not ours
        "python": sys.executable,  # of demo/measure.sh
    }
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=variables,
        stdout=stream,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        code = process.wait(timeout=max(seconds, 1))
    except subprocess.TimeoutExpired:
        return "stopped at its limit"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return "done" if code == 0 else f"failed with code {code}"


def report(results: dict[str, dict[str, Any]], machine: dict[str, str]) -> str:
    """The table in Markdown, with what every part printed below it."""
    facts = ", ".join(f"{name} {value}" for name, value in machine.items() if value)
    lines = [
        f"{facts}",
        "",
        "| part | state | seconds | date | commit | figures |",
        "|---" * 6 + "|",
    ]
    for name, result in results.items():
        cells = [result.get(key, "") for key in ("state", "seconds", "date", "commit", "figures")]
        lines.append(f"| {name} | " + " | ".join(str(x).replace("|", "/") for x in cells) + " |")
    for name, result in results.items():
        if tail := result.get("output", "").splitlines()[-60:]:
            lines += ["", f"## {name}", "", "```", *tail, "```"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    run_cli(main)
