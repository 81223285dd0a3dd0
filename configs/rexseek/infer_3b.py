"""RexSeek-3B as released: the folder has all weights, and Qwen2.5 3B's tokenizer with the objects.

Its licence is for research that is not commercial (docs/licences.md).
"""

_base_ = "../_base_/models/chatrex.py"

rexseek = "checkpoints/RexSeek-3B"
model = dict(
    towers=dict(dual=dict(coarse=dict(pretrained=False), fine=dict(pretrained=False))),
    lmm=dict(model=rexseek, pretrained=False, checkpoint=False),
    talk=dict(template="chatml"),
)
