"""What refined expressions are worth: one detector trained on raw, refined and true ones.

    python tools/benchmark/real_model.py --work-dir work_dirs/real_model
    python tools/benchmark/real_model.py --work-dir DIR --seeds 0 --cfg-options max_iters=200

Expressions of the agent's toy world are broken, and refined by Real-LOD's agent with its scripted
planner. The tiny Real-Model is trained on each kind, once per seed, everything else equal, and
measured by OmniLabel's and D3's rules on descriptions with a relation, a negation or a number. What
is complete in the work dir is not repeated. Ends with tables in Markdown.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

# What is started as a file finds the package beside it, installed or not.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from llmdet.testing.tables import over_seeds, table
from llmdet.utils.cli import count, fraction, run_cli, write_result

ROOT = Path(__file__).resolve().parents[2]
CONFIG = "configs/quickstart/real_model.py"
KINDS = ("raw", "refined", "true")
MEASURED = ("relation", "negation", "counting", "name")
_DONE = "made.json"


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; nothing heavy is imported, so that --help answers at once."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work-dir", type=Path, required=True, help="gets data and runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="(default 0 1 2)")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="(default: all)")
    parser.add_argument("--images", type=count, default=2000, help="to train on (default 2000)")
    parser.add_argument("--val-images", type=count, default=200, help="to test on (default 200)")
    parser.add_argument(
        "--broken", type=fraction, default=0.6, help="share of the raw expressions (default 0.6)"
    )
    parser.add_argument(
        "--cfg-options", nargs="+", default=[], help="for each training, as in tools/train.py"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the data, train, measure, and print the tables."""
    args = parse_args(argv)
    logging.basicConfig(level=logging.WARNING)
    work_dir = args.work_dir.resolve()
    settings = {"images": args.images, "val_images": args.val_images, "broken": args.broken}
    shares = write_data(work_dir / "data", settings)
    results: dict[str, list[dict[str, float]]] = {}
    for kind in args.kinds:
        for seed in args.seeds:
            folder = work_dir / f"{kind}_seed{seed}"
            options = [f"data_root={work_dir / 'data'}/", f"train_file=train_{kind}.jsonl"]
            checkpoint = train(folder, [*options, f"randomness.seed={seed}", *args.cfg_options])
            results.setdefault(kind, []).append(measure(folder, checkpoint, work_dir / "data"))
    write_result(report(shares, results))
    return 0


def write_data(folder: Path, settings: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Write pictures and rows of every kind, unless they are there.

    Returns:
        For each kind, how many objects have an expression and which share of these is true, 0..1.

    Raises:
        SystemExit: the folder has data of other settings.
    """
    from llmdet.datasets.toy.agent_expressions import is_true
    from llmdet.datasets.toy.agent_world import sample_world, write_world
    from llmdet.datasets.toy.real_data import (
        write_text_encoder,
        write_training_rows,
        write_validation,
    )

    done = folder / _DONE
    if done.is_file():
        made = json.loads(done.read_text())
        if made["settings"] != settings:
            raise SystemExit(f"{folder} has data of {made['settings']}, not {dict(settings)}")
        return made["shares"]
    samples = sample_world(settings["images"], broken=settings["broken"])
    records = write_world(folder / "world", samples)
    kinds = {
        "raw": {number: sample.expression for number, sample in enumerate(samples)},
        "refined": refine(records),
        "true": {number: sample.truth for number, sample in enumerate(samples)},
    }
    shares = {}
    for kind, expressions in kinds.items():
        write_training_rows(folder / f"train_{kind}.jsonl", samples, expressions)
        right = [is_true(text, samples[number].facts) for number, text in expressions.items()]
        shares[kind] = {"expressions": float(len(right)), "true": mean(right)}
    write_validation(folder, settings["val_images"])
    write_text_encoder(folder / "bert")
    done.write_text(json.dumps({"settings": dict(settings), "shares": shares}))
    return shares


def refine(records: Path) -> dict[int, str]:
    """Number of a record -> its expression as the agent refined it, of those that it solved."""
    from llmdet.data_engines.real_lod import REFINED, AgentSettings
    from llmdet.data_engines.real_lod_run import refine_records
    from llmdet.datasets.ledger import Ledger
    from llmdet.datasets.toy.agent_models import POLICIES, ScriptedModel, agent_models

    out = records.with_name("refined.jsonl")
    models = agent_models(ScriptedModel("scripted", POLICIES["scripted"]), 0.1)
    agent = AgentSettings(planner_confirms=True)
    refine_records(records, records.parent, out, models, agent, Ledger())
    rows = map(json.loads, out.read_text().splitlines())
    return {int(Path(row["image_path"]).stem): row[REFINED] for row in rows}


def train(folder: Path, options: Sequence[str]) -> Path:
    """Train once, or go on where a training was interrupted; returns the checkpoint."""
    if not (folder / "trained").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        command = ["tools/train.py", CONFIG, "--work-dir", str(folder), "--resume"]
        kept = "default_hooks.checkpoint.interval=200"  # what an interrupted run has lost at most
        run([*command, "--cfg-options", kept, *options], folder / "train.log")
        (folder / "trained").touch()
    return folder / (folder / "last_checkpoint").read_text().strip()  # named as seen from there


def measure(folder: Path, checkpoint: Path, data: Path) -> dict[str, float]:
    """AP of each group of descriptions by the rules of both benchmarks, 0..1."""
    from llmdet.evaluation.suite import run_metric

    predictions = folder / "predictions.jsonl"
    if not (folder / "measured").is_file():
        options = ["--cfg-options", f"data_root={data}/"]
        command = ["tools/test.py", CONFIG, str(checkpoint), "--work-dir", str(folder / "test")]
        run([*command, "--out", str(predictions), *options], folder / "test.log")
        (folder / "measured").touch()
    values = {}
    for group in MEASURED:
        omnilabel = run_metric("omnilabel", data / f"val_{group}_omnilabel.json", predictions)
        d3 = run_metric("d3", data / f"val_{group}_d3.json", predictions)
        values[f"{group}, OmniLabel"] = omnilabel.values["AP descr 0.50:0.95"]
        values[f"{group}, D3"] = d3.values["AP"]
    return values


def run(command: Sequence[str], log: Path) -> None:
    """Run a tool of this checkout; what it prints goes to ``log``.

    Raises:
        SystemExit: it failed.
    """
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    with log.open("w") as stream:
        done = subprocess.run(
            [sys.executable, *command], cwd=ROOT, env=variables, stdout=stream,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
    if done.returncode != 0:
        raise SystemExit(f"'{' '.join(command)}' failed; see {log}")


def report(
    shares: Mapping[str, Mapping[str, float]], results: Mapping[str, list[dict[str, float]]]
) -> str:
    """The table: mean and standard deviation over seeds, in percent."""
    names = list(next(iter(results.values()))[0])
    rows = {}
    for kind, runs in results.items():
        known = [f"{shares[kind]['expressions']:,.0f}", f"{100 * shares[kind]['true']:.1f}"]
        rows[kind] = known + [over_seeds([run[name] for run in runs], 100) for name in names]
    return "\n".join(table("trained on", ["expressions", "true", *names], rows))


if __name__ == "__main__":
    run_cli(main)
