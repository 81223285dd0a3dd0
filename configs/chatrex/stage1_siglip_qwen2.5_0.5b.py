"""Stage one with SigLIP and Qwen2.5 0.5B, for one GPU: 8 times 32 conversations a step."""

_base_ = "./stage1.py"

model = dict(
    towers=dict(
        dual=dict(
            coarse=dict(model="google/siglip-base-patch16-384"),
            # ConvNeXt-Tiny, trained on ImageNet; it wants its colours.
            fine=dict(
                _delete_=True,
                type="ConvNextTower",
                model="facebook/convnext-tiny-224",
                view=dict(
                    size=(768, 768), mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375)
                ),
            ),
        )
    ),
    # A quarter of the 24 x 24 cells: a small language model reads long images slowly.
    slots=dict(image=dict(encoder=dict(size=12))),
    lmm=dict(model="Qwen/Qwen2.5-0.5B-Instruct"),
    talk=dict(max_length=1024, max_new_tokens=256),
)
optim_wrapper = dict(accumulative_counts=8)
