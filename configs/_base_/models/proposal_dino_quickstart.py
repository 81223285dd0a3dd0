"""Proposals of a few million parameters, which learn the toy set in minutes on two CPU cores."""

_base_ = "./grounding_dino_quickstart.py"

model = dict(
    type="ProposalDINO",
    language_model=None,
    encoder=dict(text_layer_cfg=None, fusion_layer_cfg=None),
    decoder=dict(layer_cfg=dict(cross_attn_text_cfg=None)),
    # From scratch, scores must begin low: scale and bias stay as in Grounding DINO.
    bbox_head=dict(num_classes=1, share_boxes=True),
)
