"""All tasks with SigLIP base, Qwen2.5 0.5B and SAM ViT-B, for one GPU: 10 times 16 a step."""

_base_ = "./combined.py"

sam = "checkpoints/sam_vit_b_01ec64.pth"
model = dict(
    towers=dict(
        clip=dict(model="google/siglip-base-patch16-384", layers=[2, 5, 8, 11]),
        sam=dict(model=sam),
    ),
    slots=dict(
        # A quarter of the 24 x 24 cells: a small language model reads long images slowly.
        image=dict(encoder=dict(size=12), connector=dict(frozen=False)),
        # Likewise maps and bins of half the size, so that 16 pictures fit.
        region=dict(encoder=dict(in_dims=768, dims=512, scales=[4, 2, 1, 1], bins=7)),
    ),
    lmm=dict(model="Qwen/Qwen2.5-0.5B-Instruct", added_tokens=[]),
    output=dict(decoder=dict(model=sam)),
    talk=dict(
        _delete_=True, max_length=1024, max_new_tokens=512, system="You are a helpful assistant."
    ),
)
strategy = None
load_from = None
train_dataloader = dict(batch_size=16)
