"""RexSeek's last stage: any person by any words, and none (arXiv 2503.08507).

Begins with a model of ChatRex's three stages. All but CLIP trains. The paper's rates are not known
to us: those of ChatRex's second stage stand here. Written for 8 GPUs: 128 conversations a step.
"""

_base_ = "../chatrex/stage3.py"

model = dict(
    towers=dict(dual=dict(coarse=dict(frozen=True, checkpoint=False))),
    lmm=dict(model="Qwen/Qwen2.5-3B-Instruct"),
)
load_from = "work_dirs/stage3/epoch_1.pth"
train_dataloader = dict(dataset=dict(datasets=_base_.stage_four))
