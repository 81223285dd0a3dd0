"""One model and one conversation: regions come in as object query, box or mask, and answers hold
text, indices of objects and masks. At the toy set's size; what it needs is written by

    bash demo/quickstart.sh
    python -m llmdet.datasets.toy data/toy --masks
    python tools/benchmark/masks.py --work-dir work_dirs/masks --seeds 0 --models \\
        --eye work_dirs/quickstart/latest.pth

From nothing it does not learn in these steps what the number of an object means. The same program
with ``--models heads`` teaches that first; ``load_from=work_dirs/masks/words_seed0/weights.pth``
begins behind it.
"""

_base_ = "../quickstart/region_lmm.py"

sam = "work_dirs/masks/sam_seed0"
model = dict(
    towers=dict(sam=dict(type="SamTower", model=sam)),
    slots=dict(
        # What an object query is called as a region, it is called in the image too.
        image=dict(encoder=dict(width=3 * 96), connector="region"),
        region=dict(
            encoder=dict(
                _delete_=True,
                type="AnyRegion",
                query=dict(type="ObjectQueries"),
                # The connector knows where a box lies.
                roi=dict(type="RoIAlign", levels=(0,), positions=False),
                mask=dict(type="MaskPool", level=0),
            )
        ),
    ),
    lmm=dict(model="data/toy/mask_language_model", added_spread=3.3),
    output=dict(
        type="SeveralOutputs",
        outputs=[
            dict(type="ObjectIndex", count=12, numbered=1.0),
            dict(type="Mask", tower="sam", decoder=dict(type="MaskDecoder", model=sam)),
        ],
    ),
    talk=dict(max_new_tokens=80),
)
train_dataloader = dict(dataset=dict(ann_file="annotations/train_masks.jsonl"))

max_iters = 2000
schedule_length = max_iters
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
optim_wrapper = dict(
    # The decoder has learned what a mask is: what it is asked for is new.
    paramwise_cfg=dict(custom_keys={"output.outputs.1.decoder": dict(lr_mult=0.2)})
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=100, end=max_iters, eta_min_ratio=0.02),
]
