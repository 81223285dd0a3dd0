"""Descriptions of Visual Genome's regions, judged by METEOR and CIDEr (needs Java)."""

_base_ = "refcocog_captions.py"

captions_root = "data/visual_genome/"
captions_file = "test_caption.json"
test_dataloader = dict(
    dataset=dict(
        data_root=captions_root, ann_file=captions_file, data_prefix=dict(img=""), task="caption"
    )
)
test_evaluator = dict(ann_file=captions_root + captions_file)
