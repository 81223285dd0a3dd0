"""Pretraining on GranD, after which one task is learned alone, or all.

The paper does not say how long and in which shares; the schedule of grounded captions and equal
shares stand here. The projector of image tokens begins as LLaVA-1.5's and trains.
"""

_base_ = [
    "../_base_/models/glamm_7b.py",
    "../_base_/datasets/glamm.py",
    "../_base_/schedules/glamm.py",
    "../_base_/strategies/zero2.py",
    "../_base_/default_runtime.py",
]

model = dict(slots=dict(image=dict(connector=dict(frozen=False))))
