"""Proposals of the toy set from images enlarged three times.

Objects are 26 to 60 pixels wide, and what is to be found exactly must be seen in detail. Training
begins with what ``toy_candidates.py`` came to: queries begin at the hundred pixels with the best
scores, of 336 in the maps of a small image and of 3,024 in those of a large one, where scores that
mean nothing yet miss most objects. (``tools/benchmark/retrieval.py`` has fewer steps of both.)
"""

_base_ = "./toy_candidates.py"

load_from = "work_dirs/toy_candidates/iter_1550.pth"
scale = (384, 384)
load = _base_.load
load[-1]["scales"] = [scale]
pipeline = [*load, _base_.fine, _base_.pack]
fine_part = dict(_base_.fine_part, pipeline=pipeline)
outlines_part = dict(_base_.outlines_part, pipeline=pipeline)
train_dataloader = dict(dataset=dict(datasets=[fine_part, outlines_part]))
test_pipeline = _base_.test_pipeline
test_pipeline[1]["scale"] = scale
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
