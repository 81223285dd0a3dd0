"""A tiny language model asked about regions of the toy set, whose eye is the quickstart's detector.

``python -m llmdet.datasets.toy data/toy --regions`` writes the questions.
"""

_base_ = [
    "../_base_/models/grounding_dino_quickstart.py",
    "../_base_/datasets/toy_regions.py",
    "../_base_/schedules/quickstart.py",
    "../_base_/default_runtime.py",
]

eye = dict(
    type="DetectorMemory",
    detector=_base_.model,
    size=(128, 128),
    weights="work_dirs/quickstart/latest.pth",
    frozen=True,
    # The classes of the detector's training; its queries look for what a text names.
    prompt=(
        "red circle. red square. red triangle. red cross. red ring. "
        "green square. green triangle. green star. green cross. green ring. "
        "blue circle. blue square. blue star. blue cross. blue ring. "
        "yellow circle. yellow square. yellow triangle. yellow star. yellow ring. "
        "orange circle. orange triangle. orange star. orange cross. orange ring. "
        "purple circle. purple square. purple triangle. purple star. purple cross. "
        "white square. white triangle. white star. white cross. white ring. "
        "black circle. black square. black triangle. black cross. black ring. "
    ),
    queries=True,
)
connector = dict(type="VisualConnector")
model = dict(
    _delete_=True,
    type="RegionLMM",
    towers=dict(eye=eye),
    slots=dict(
        image=dict(tower="eye", encoder=dict(type="BestQueries", count=12), connector=connector),
        region=dict(tower="eye", encoder=dict(type="ObjectQueries"), connector=connector),
    ),
    lmm=dict(
        type="LanguageModel",
        # Written by `python -m llmdet.datasets.toy data/toy --regions`.
        model="data/toy/region_language_model",
        frozen=False,
        dtype="float32",
    ),
    talk=dict(
        max_length=400,
        max_new_tokens=6,
        system=None,
        # Two tokens a turn: minutes are few.
        template=(
            "{% for message in messages %}{{ message.content }}"
            "{{ '<|im_end|>' if message.role == 'assistant' else '<|im_start|>' }}{% endfor %}"
        ),
    ),
)

max_iters = 1000
schedule_length = max_iters
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
val_cfg = None  # tools/benchmark/region_lmm.py asks what was learned
test_cfg = None
optim_wrapper = dict(
    optimizer=dict(betas=(0.9, 0.98)),
    clip_grad=dict(max_norm=1.0),
    # What a region looks like is learned late where its connector learns no faster than the
    # language model: where a region lies is told by sines that are larger than its features.
    paramwise_cfg=dict(custom_keys=dict(projector=dict(lr_mult=5.0))),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=100, end=max_iters, eta_min_ratio=0.02),
]
