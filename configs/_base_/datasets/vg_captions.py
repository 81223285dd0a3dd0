"""Descriptions of Visual Genome's regions, judged by METEOR and CIDEr (needs Java)."""

_base_ = "refcocog_captions.py"

data_root = "data/visual_genome/"
captions = "test_caption.json"
test_dataloader = dict(
    dataset=dict(data_root=data_root, ann_file=captions, data_prefix=dict(img=""), task="caption")
)
test_evaluator = dict(ann_file=data_root + captions)
