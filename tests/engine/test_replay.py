"""Batches that a run diverged on, saved, read back and trained on again."""

from __future__ import annotations

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from llmdet.datasets.sample import GroundingSample
from llmdet.datasets.toy.models import tiny_bert
from llmdet.engine.replay import read_batch, replay, save_batch
from llmdet.errors import DataError
from llmdet.prompts.conversation import ask
from llmdet.prompts.parse import parse_prompt
from llmdet.prompts.tokenizers import load_tokenizer
from llmdet.prompts.tokens import PromptTokenizer
from llmdet.testing.models import tiny_grounding_dino
from llmdet.testing.programs import load_program


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return str(tiny_bert(tmp_path_factory.mktemp("bert")))


def make_batch(bert):
    prompt = parse_prompt("red circle. blue square.", custom_entities=True)
    tokenized = tuple(PromptTokenizer(load_tokenizer(bert), 64)(prompt))
    talk = ask("<region:0>\nWhat is it?", "A square.")
    grounding = GroundingSample(prompt=prompt, tokenized=tokenized, conversations=(talk,))
    fields = {"img_shape": (64, 64), "img_path": "a.jpg", "grounding": grounding}
    sample = DetDataSample(metainfo=fields)
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor([[4.0, 4, 40, 40]]), labels=torch.tensor([1])
    )
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8, generator=generator)
    return {"inputs": [pixels], "data_samples": [sample]}


def test_a_batch_is_read_back_whole_and_gives_the_same_losses(bert, tmp_path):
    batch = make_batch(bert)
    path = save_batch(str(tmp_path), 7, 0, batch)
    assert path == tmp_path / "diverged" / "iter_7_rank_0.pth"
    read = read_batch(path)
    (before,), (after,) = batch["data_samples"], read["data_samples"]
    for field in ("prompt", "tokenized", "conversations"):
        assert getattr(after.grounding, field) == getattr(before.grounding, field)
    assert torch.equal(after.gt_instances.bboxes, before.gt_instances.bboxes)
    model = tiny_grounding_dino(bert)
    torch.manual_seed(1)
    first = replay(model, batch)
    torch.manual_seed(1)
    assert replay(model, read).losses == first.losses
    assert (first.first, first.gradients) == (None, ())


def test_the_part_where_numbers_end_is_named(bert):
    model = tiny_grounding_dino(bert)
    with torch.no_grad():
        model.text_feat_map.bias[0] = float("nan")
    found = replay(model, make_batch(bert))
    assert found.first == "text_feat_map"
    assert found.gradients


class Program:
    def __reduce__(self):
        return (exec, ("raise SystemExit('executed')",))


def test_a_program_in_a_batch_is_refused(tmp_path):
    torch.save({"batch": Program()}, tmp_path / "batch.pth")
    with pytest.raises(DataError, match="is no batch that a run has saved"):
        read_batch(tmp_path / "batch.pth")
    with pytest.raises(DataError, match="is no batch that a run has saved"):
        read_batch(tmp_path / "missing.pth")


def test_the_program_reads_a_run_s_config_and_weights(bert, tiny, root, tmp_path, capsys):
    model = [str(tiny.config), "--weights", str(tiny.weights), "--device", "cpu"]
    path = save_batch(str(tmp_path), 7, 0, make_batch(bert))
    program = load_program(root / "tools" / "analysis" / "replay.py")
    program.main([str(path), *model])
    *losses, last = capsys.readouterr().out.splitlines()
    assert any(line.split()[0] == "loss" for line in losses)
    assert last.startswith("all parts, losses and gradients are finite")
