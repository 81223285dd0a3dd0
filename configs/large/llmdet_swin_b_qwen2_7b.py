"""LLMDet with Swin-B, taught by a language model of 7 billion weights, spread over GPUs."""

_base_ = ["../grounding_dino_swin_b.py", "../_base_/strategies/fsdp2.py"]

model = dict(
    lmm=dict(
        model="lmms-lab/llava-onevision-qwen2-7b-ov",
        # 28 layers of conversations of up to 1,600 tokens would not fit otherwise.
        checkpoint=True,
    ),
    connector="work_dirs/alignment_qwen2_7b/epoch_1.pth",
)
