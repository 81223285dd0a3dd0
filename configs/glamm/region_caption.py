"""Captions of regions of RefCOCOg; with visual_genome_caption.jsonl, of Visual Genome."""

_base_ = "./refseg.py"

train_dataloader = dict(
    sampler=dict(shares=[1]),
    batch_sampler=dict(tasks=["region"]),
    dataset=dict(datasets=[dict(**_base_.part, ann_file="refcocog_caption.jsonl")]),
)
