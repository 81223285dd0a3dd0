"""Fixed AP of Swin-T on LVIS minival (4,809 images), zero-shot, with 40 classes a prompt as published."""

_base_ = "../grounding_dino_swin_t.py"

# Fixed AP has no limit per image: the 300 best of every prompt count.
model = dict(lmm=None, test_cfg=dict(chunked_size=40), quirks=dict(unsorted_chunks=True))
