"""The benchmarks of the agent run, and what they compare is the same work."""

import pytest

from llmdet.testing.programs import load_program


@pytest.fixture
def tool(root):
    return load_program(root / "tools/benchmark/agent.py")


def test_the_engine_writes_what_the_sequential_loop_does_and_sooner(
    tool, monkeypatch, capsys, chat_server
):
    def reply(body):
        return 200, tool._completion(tool.answer_to(body))

    chat_server.reply = reply
    monkeypatch.setattr(tool, "start_server", lambda latency: chat_server.url)
    tool.main(["--samples", "3"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("3 expressions, 50 ms an answer")
    assert float(lines[3].split()[-1]) > 0


def test_the_world_gives_a_line_for_each_policy(tool, capsys):
    tool.main(["--world", "--samples", "8", "--error-rate", "0"])
    lines = capsys.readouterr().out.splitlines()
    assert [line[:22].strip() for line in lines[2:]] == [
        "scripted", "random action", "always rewrite", "always ask",
    ]  # fmt: skip
    scripted = lines[2][22:].split()
    before, after = float(scripted[0]), float(scripted[2])
    assert after > before


def test_a_planner_that_is_finetuned_here_gets_lines_of_its_own(tool, capsys, monkeypatch):
    def keep(model, tokenizer, features, out, settings):  # in place of a training
        model.merge_and_unload().save_pretrained(out)
        tokenizer.save_pretrained(out)

    monkeypatch.setattr("llmdet.data_engines.agent_sft._train", keep)
    monkeypatch.setattr(
        "llmdet.chat.local.LocalChat.answer",
        lambda self, requests: ['{"actions": []}'] * len(requests),
    )
    tool.main(["--world", "--fine-tune", "--samples", "4", "--expressions", "4", "--steps", "2"])
    lines = capsys.readouterr().out.splitlines()
    learned = next(line for line in lines if "2 steps by LoRA" in line)
    assert int(learned.split()[0]) > 0
    assert [line[:22].strip() for line in lines[-2:]] == ["before fine-tuning", "fine-tuned"]
