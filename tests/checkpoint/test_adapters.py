"""Trained LoRA by itself."""

from __future__ import annotations

import pytest
import torch

from llmdet.checkpoint import load_weights, merge_lora, save_adapter, write_checkpoint
from llmdet.errors import CheckpointError

IDS = torch.arange(12)[None] + 20


def logits(causal_lm):
    with torch.no_grad():
        return causal_lm(input_ids=IDS).logits


def test_merged_lora_computes_the_same_without_lora(llmdet, qwen, tmp_path):
    model = llmdet(seed=1)
    write_checkpoint(tmp_path / "merged.pth", merge_lora(model.state_dict(), alpha=8))
    bare = {
        "type": "LanguageModel",
        "model": qwen,
        "dtype": "float32",
        "region_attention": {"every": 2, "num_heads": 4},
    }
    merged = llmdet(lmm=bare, seed=2)
    load_weights(merged, tmp_path / "merged.pth")
    assert not torch.allclose(logits(llmdet(lmm=bare).lmm.causal_lm), logits(model.lmm.causal_lm))
    torch.testing.assert_close(logits(merged.lmm.causal_lm), logits(model.lmm.causal_lm))


def test_a_saved_adapter_opens_in_peft_on_the_original_language_model(llmdet, qwen, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = llmdet(seed=1)
    save_adapter(model.state_dict(), tmp_path / "adapter", alpha=8, base=qwen)
    base = AutoModelForCausalLM.from_pretrained(qwen)
    theirs = PeftModel.from_pretrained(base, tmp_path / "adapter")
    torch.testing.assert_close(logits(theirs), logits(model.lmm.causal_lm))


def test_a_checkpoint_without_lora_is_refused(detector, tmp_path):
    with pytest.raises(CheckpointError, match="no LoRA"):
        merge_lora(detector().state_dict(), alpha=8)
    with pytest.raises(CheckpointError, match="no LoRA"):
        save_adapter(detector().state_dict(), tmp_path / "adapter", alpha=8)
