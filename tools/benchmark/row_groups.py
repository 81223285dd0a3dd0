"""Reading conversations of unlike lengths: rows in groups against one batch padded to the longest.

    python tools/benchmark/row_groups.py                              # the toy set's language model
    python tools/benchmark/row_groups.py --width 512 --layers 8 --rows 8

Forward and backward of a language model of random weights on the CPU, as in a training; both ways
take turns on the same batches, behind one that does not count. Lengths are drawn evenly on a
logarithmic scale.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# What runs with `python tools/benchmark/row_groups.py` finds the package beside it.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from llmdet.utils.cli import run_cli


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; nothing heavy is imported, so that --help answers at once."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=16, help="conversations (default 16)")
    parser.add_argument("--shortest", type=int, default=25, help="tokens (default 25)")
    parser.add_argument("--longest", type=int, default=180, help="tokens (default 180)")
    parser.add_argument("--width", type=int, default=128, help="hidden size (default 128)")
    parser.add_argument("--layers", type=int, default=4, help="(default 4)")
    parser.add_argument("--threads", type=int, default=1, help="(default 1)")
    parser.add_argument("--repeat", type=int, default=20, help="batches (default 20)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program on a command line."""
    args = parse_args(argv)
    import numpy as np
    import torch

    from llmdet.models.language.row_groups import group_rows

    torch.set_num_threads(args.threads)
    lmm = build(args.width, args.layers)
    rng = np.random.default_rng(0)
    ways = {"one batch": True, "groups": False}  # whether rows are read together
    spent, tokens = dict.fromkeys(ways, 0.0), 0
    calls, filled, apart = [], [], 0.0
    for number in range(args.repeat + 1):
        edges = np.log([args.shortest, args.longest + 1])
        lengths = np.exp(rng.uniform(*edges, args.rows)).astype(int)
        batch = conversations(lengths, lmm, rng)
        calls.append(len(group_rows(batch.lengths)))
        filled.append(lengths.sum() / (args.rows * lengths.max()))
        losses = []
        for name, lmm.rows_together in ways.items():
            start = time.perf_counter()
            loss = lmm.loss(batch, {})
            loss.backward()
            spent[name] += (time.perf_counter() - start) * (number > 0)
            losses.append(loss.item())
            lmm.zero_grad()
        tokens += int(lengths.sum()) * (number > 0)
        apart = max(apart, abs(losses[0] - losses[1]))
    print(
        f"{args.rows} rows of {args.shortest} to {args.longest} tokens, width {args.width}, "
        f"{args.layers} layers, {args.threads} thread(s), torch {torch.__version__}"
    )
    print(f"tokens that are no padding in one batch: {np.mean(filled):.0%}")
    print(f"groups: {np.mean(calls):.1f}; losses differ by at most {apart:.1e}")
    for name, seconds in spent.items():
        ratio = spent["one batch"] / seconds
        print(f"{name:>12} {1e6 * seconds / tokens:10.1f} us a token {ratio:8.2f} x")
    return 0


def build(width: int, layers: int) -> Any:
    """A language model with every weight trained."""
    from llmdet.datasets.toy.models import tiny_qwen
    from llmdet.models.language.language_model import LanguageModel

    sizes = {"hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": layers}
    with tempfile.TemporaryDirectory() as folder:
        model = tiny_qwen(Path(folder) / "model", **sizes)
        return LanguageModel(model, frozen=False, lora=None, dtype="float32").train()


def conversations(lengths: Any, lmm: Any, rng: Any) -> Any:
    """Conversations of these lengths, of which the second half is learned."""
    import numpy as np

    from llmdet.models.language.dialogue import collate_dialogue
    from llmdet.prompts.conversation import (
        IGNORE_INDEX,
        ConversationSettings,
        TokenizedConversation,
    )

    settings = ConversationSettings(lmm.tokenizer_name, (), int(max(lengths)))
    said = []
    for length in lengths:
        ids = rng.integers(3, lmm.causal_lm.config.vocab_size, length)
        labels = np.where(np.arange(length) < length // 2, IGNORE_INDEX, ids)
        said.append(TokenizedConversation(ids, labels, (), settings))
    return collate_dialogue(said, lmm.pad_id)


if __name__ == "__main__":
    run_cli(main)
