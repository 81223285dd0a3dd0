"""Measure Real-LOD's agent: how fast it asks an endpoint, and what it makes of expressions.

How much faster many expressions at a time are than one after the other, with an endpoint on this
machine that takes 50 ms for each answer:
    python tools/benchmark/agent.py
What becomes of broken expressions in a world whose truth is known, by policy of the planner:
    python tools/benchmark/agent.py --world
The same with a language model of random weights that learns to plan from the scripted planner:
    python tools/benchmark/agent.py --world --samples 300 --fine-tune
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

# What is started as a file finds the package beside it, installed or not.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from llmdet.utils.cli import count, fraction, positive, run_cli

_LOOK = {"question": "What colour?", "image_editing": "object crop"}
_PLANS = {
    "uncertain": [{"tool_name": "VLM", "tool_parameters": _LOOK}],
    "wrong": [{"tool_name": "LLM", "tool_parameters": {}}],
}


_PLANNER_SIZE = dict(
    hidden_size=128, intermediate_size=256, num_hidden_layers=2, initializer_range=0.09
)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program on a command line."""
    args = parse_args(argv)
    logging.basicConfig(level=logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        (measure_world if args.world else measure_speed)(args, Path(folder))


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; nothing heavy is imported, so that --help answers at once."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=count, help="expressions (96; of the world 1,000)")
    parser.add_argument("--in-flight", type=count, default=32, help="expressions at a time (32)")
    parser.add_argument("--latency", type=positive, default=50.0, help="of an answer, ms (50)")
    parser.add_argument("--world", action="store_true", help="measure what it makes of expressions")
    parser.add_argument("--seed", type=int, default=1, help="of the world (1)")
    parser.add_argument("--fine-tune", action="store_true", help="fine-tune a planner here")
    parser.add_argument("--expressions", type=count, default=600, help="that it learns from (600)")
    parser.add_argument("--steps", type=count, default=400, help="of its training (400)")
    parser.add_argument("--error-rate", type=fraction, default=0.1, help="of the rewriter (0.1)")
    return parser.parse_args(argv)


def measure_speed(args: argparse.Namespace, folder: Path) -> None:
    """Print the rate of the sequential loop and of the engine, and their ratio."""
    from llmdet.chat.endpoint import EndpointChat
    from llmdet.datasets.toy.agent_world import sample_world, write_world

    number = args.samples or 96
    records = write_world(folder, sample_world(number))
    url = start_server(args.latency / 1000)
    begin, spent = time.perf_counter(), os.times()
    one = in_sequence(records, EndpointChat(url, "m", concurrency=1))
    middle = time.perf_counter()
    many = in_flight(records, EndpointChat(url, "m", concurrency=args.in_flight), args.in_flight)
    end, used = time.perf_counter(), os.times()
    if one != many:
        raise SystemExit("the sequential loop and the engine differ in what they wrote")
    sequential, together = number / (middle - begin), number / (end - middle)
    print(f"{number} expressions, {args.latency:g} ms an answer, {os.cpu_count()} cores")
    print(f"one after the other      {sequential:8.2f} expressions a second")
    print(f"{args.in_flight:4d} in flight           {together:8.2f} expressions a second")
    print(f"ratio                    {together / sequential:8.1f}")
    cpu = used.user + used.system - spent.user - spent.system
    print(f"processor time of both   {cpu:8.2f} s; load {os.getloadavg()[0]:.1f}")


def in_sequence(records: Path, model: Any) -> list[dict[str, Any]]:
    """The loop that the engine replaces: every call waits for the one before."""
    from llmdet.data_engines.real_lod import AgentSettings, refine
    from llmdet.data_engines.real_lod_records import read_records

    rows = []
    for where, record in read_records(records):
        steps, answers = refine(record, where, records.parent, AgentSettings()), None
        while True:
            try:
                calls = steps.send(answers)
            except StopIteration as end:
                rows.append(end.value.row)
                break
            answers = [model.answer([call.request])[0] for call in calls]
    return rows


def in_flight(records: Path, model: Any, number: int) -> list[dict[str, Any]]:
    """The engine, with journal and files."""
    from llmdet.data_engines.real_lod import ROLES, AgentSettings
    from llmdet.data_engines.real_lod_run import refine_records
    from llmdet.data_engines.runs import Run
    from llmdet.datasets.ledger import Ledger

    out = records.with_name("refined.jsonl")
    models = dict.fromkeys(ROLES, model)
    refine_records(records, records.parent, out, models, AgentSettings(), Ledger(), Run(number))
    return [json.loads(line) for line in out.read_text().splitlines()]


def start_server(latency: float) -> str:
    """An endpoint in a process of its own, which ends with this one; returns its base url."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    context.Process(target=_serve, args=(theirs, latency), daemon=True).start()
    return f"http://127.0.0.1:{ours.recv()}/v1"


def _serve(pipe: Connection, latency: float) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = int(head.partition("content-length:")[2].split()[0])
                request = json.loads(await reader.readexactly(length))
                await asyncio.sleep(latency)
                body = json.dumps(_completion(answer_to(request))).encode()
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                    b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
                )
                await writer.drain()
        except asyncio.IncompleteReadError:
            writer.close()

    async def serve() -> None:
        server = await asyncio.start_server(talk, "127.0.0.1", 0, limit=1 << 24)
        pipe.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(serve())


def answer_to(request: Mapping[str, Any]) -> str:
    """What makes every expression take seven calls: look, rewrite, confirm."""
    text = request["messages"][-1]["content"][-1]["text"].rpartition("\n\n")[2]
    labels = {line.partition(":")[0] for line in text.splitlines()}
    if "Question" in labels:
        return "It is blue."
    if "Object" in labels:
        return "New expression: 'blue thing'"
    if "Feedback" in labels:
        wanted = _PLANS["wrong" if "is wrong." in text else "uncertain"]
        return json.dumps({"reasoning": "", "actions": wanted})
    state = "wrong" if "Known" in labels else "uncertain"
    return f"Feedback: none. Conclusion: {'right' if 'blue thing' in text else state}"


def _completion(text: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    return {
        "id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice],
    }  # fmt: skip


@dataclass(frozen=True)
class Result:
    """What became of the expressions of a world; shares are of all of them, or of what is named."""

    before: float  # right
    after: float  # right
    kept: float  # found right by the agent
    kept_right: float  # of those kept
    fixed: float  # of the broken ones
    spoiled: float  # of the right ones: wrong afterwards
    calls: float  # of models, an expression

    @property
    def line(self) -> str:
        shares = (self.before, self.after, self.kept, self.kept_right, self.fixed, self.spoiled)
        return "".join(f"{100 * share:9.1f} %" for share in shares) + f"{self.calls:9.2f}"


def measure_world(args: argparse.Namespace, folder: Path) -> None:
    """Print what becomes of expressions, a line for each policy of the planner."""
    from llmdet.datasets.toy.agent_models import POLICIES, ScriptedModel
    from llmdet.datasets.toy.agent_world import sample_world, write_world

    samples = sample_world(args.samples or 1000, args.seed)
    records = write_world(folder, samples)
    planners: dict[str, Any] = {
        name: ScriptedModel(name, policy) for name, policy in POLICIES.items()
    }
    if args.fine_tune:
        planners |= finetuned(folder / "planner", args.expressions, args.steps, args.seed + 1)
    print(f"{len(samples)} expressions, of which the rewriter errs in {100 * args.error_rate:g} %")
    names = ("before", "after", "kept", "kept right", "fixed", "spoiled")
    print(f"{'planner':<22}" + "".join(f"{name:>11}" for name in names) + f"{'calls':>9}")
    for name, planner in planners.items():
        result = world_result(samples, records, planner, args.error_rate, name)
        print(f"{name:<22}{result.line}")


def finetuned(folder: Path, expressions: int, steps: int, seed: int) -> dict[str, Any]:
    """A small language model before and after it learned the plans of the scripted planner.

    Args:
        folder: for a world of its own, and for the models.
        expressions: of that world.
        steps: of the training, 16 plans each.
        seed: of that world.
    """
    from llmdet.chat.local import LocalChat
    from llmdet.data_engines.agent_sft import AgentSFTSettings, finetune_planner, planner_samples
    from llmdet.data_engines.real_lod import AgentSettings
    from llmdet.data_engines.real_lod_run import refine_records
    from llmdet.datasets.ledger import Ledger
    from llmdet.datasets.toy.agent_models import ScriptedModel, agent_models, scripted_planner
    from llmdet.datasets.toy.agent_world import sample_world, write_world
    from llmdet.datasets.toy.models import tiny_qwen

    records, refined = (
        write_world(folder, sample_world(expressions, seed)),
        folder / "refined.jsonl",
    )
    models = agent_models(ScriptedModel("scripted", scripted_planner), error_rate=0.3)
    settings = AgentSettings(planner_confirms=True)
    refine_records(records, folder, refined, models, settings, Ledger())
    rows = [json.loads(line) for line in refined.read_text().splitlines()]
    texts = [t for s in planner_samples([("", row) for row in rows]) for t in (s.prompt, s.plan)]
    untrained = tiny_qwen(folder / "untrained", corpus=texts, **_PLANNER_SIZE)
    training = dict(
        use_cpu=True, max_steps=steps, per_device_train_batch_size=16, learning_rate=2e-3,
        warmup_steps=20, lr_scheduler_type="linear", disable_tqdm=True, logging_steps=steps,
    )  # fmt: skip
    lora = dict(r=64, alpha=128, targets="all-linear")
    begin = time.process_time()
    plans = finetune_planner(
        [refined], folder / "trained", AgentSFTSettings(untrained, lora, training), Ledger()
    )
    seconds = time.process_time() - begin
    print(f"{plans} plans, {steps} steps by LoRA, {seconds:.0f} s of the processor")
    return {
        name: LocalChat(path, "cpu", max_new_tokens=140, batch_size=32)
        for name, path in {
            "before fine-tuning": untrained,
            "fine-tuned": str(folder / "trained"),
        }.items()
    }


def world_result(
    samples: Sequence[Any], records: Path, planner: Any, error_rate: float, name: str
) -> Result:
    """Take a world through the agent, and compare with its truth."""
    from llmdet.data_engines.real_lod import REFINED, AgentSettings
    from llmdet.data_engines.real_lod_prompts import SHORT_PLANNER, AgentPrompts
    from llmdet.data_engines.real_lod_run import refine_records, unsolved_path
    from llmdet.datasets.ledger import Ledger
    from llmdet.datasets.toy.agent_expressions import is_true
    from llmdet.datasets.toy.agent_models import agent_models

    out = records.with_name(f"{name}.jsonl")
    models = agent_models(planner, error_rate)
    prompts = AgentPrompts(planner=SHORT_PLANNER)  # with which a fine-tuned one has learned
    settings = AgentSettings(planner_confirms=True, prompts=prompts)
    refine_records(records, records.parent, out, models, settings, Ledger())
    kept, unsolved = (
        {row["image_path"]: row[REFINED] for row in map(json.loads, path.read_text().splitlines())}
        for path in (out, unsolved_path(out))
    )
    rows = [
        (
            not sample.broken,
            is_true({**kept, **unsolved}[f"images/{number:06d}.png"], sample.facts),
            f"images/{number:06d}.png" in kept,
        )
        for number, sample in enumerate(samples)
    ]
    return Result(
        before=_share(before for before, _, _ in rows),
        after=_share(after for _, after, _ in rows),
        kept=_share(is_kept for _, _, is_kept in rows),
        kept_right=_share(after for _, after, is_kept in rows if is_kept),
        fixed=_share(after for before, after, _ in rows if not before),
        spoiled=_share(not after for before, after, _ in rows if before),
        calls=sum(model.usage.requests for model in models.values()) / len(rows),
    )


def _share(values: Any) -> float:
    values = list(values)
    return sum(values) / len(values) if values else float("nan")


if __name__ == "__main__":
    run_cli(main)
