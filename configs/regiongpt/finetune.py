"""Stage two: the language model trains too. Written for 8 GPUs: 128 conversations a step."""

_base_ = ["./pretrain.py", "../_base_/strategies/fsdp2.py"]

model = dict(lmm=dict(frozen=False, dtype="float32"))
load_from = "work_dirs/pretrain/epoch_1.pth"

sources = [
    "llava_instruct",
    "visual_genome_10",
    "refcocog_tasks",
    "v3det_10",
    "coco_classification",
    "recapd",
]
train_dataloader = dict(
    batch_size=16,
    dataset=dict(datasets=[dict(**_base_.part, ann_file=f"{name}.jsonl") for name in sources]),
)
optim_wrapper = dict(optimizer=dict(lr=2e-5))
auto_scale_lr = dict(base_batch_size=128)
