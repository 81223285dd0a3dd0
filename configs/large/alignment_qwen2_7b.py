"""Stage one for a language model of 7 billion weights: the image connector alone learns."""

_base_ = ["../grounding_dino_t_for_alignment.py", "../_base_/strategies/fsdp2.py"]

model = dict(lmm=dict(model="lmms-lab/llava-onevision-qwen2-7b-ov", checkpoint=True))
