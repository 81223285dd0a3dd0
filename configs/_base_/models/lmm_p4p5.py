"""The language model that teaches, as in the paper: image tokens of two maps, regions that look.

A config takes these three with ``model = dict(type="LLMDet", lmm=_base_.lmm, ...)``.
"""

lmm = dict(
    type="LanguageModel",
    # Folder or hub id; of a LLaVA only the language model is taken.
    model="lmms-lab/llava-onevision-qwen2-0.5b-ov",
    lora=dict(r=128, alpha=256, dropout=0.0),
    region_attention=dict(every=4),
)
# Stride 32 at 20 x 20, a learned separator, stride 16 at 27 x 27: 1130 tokens.
image_captioner = dict(
    encoder=dict(type="GridCells", grids=((-2, 20), (-3, 27))),
    max_length=1600,
)
# The object query that is matched to a box, or fits it best.
region_captioner = dict(encoder=dict(type="ObjectQueries"), max_length=40)
# What both connectors start from: the result of grounding_dino_t_for_alignment.py.
connector = "work_dirs/grounding_dino_t_for_alignment/epoch_1.pth"
