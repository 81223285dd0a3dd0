"""UPN's detector: Grounding DINO's Swin-L without words, with two learned prompts (2411.18363)."""

_base_ = "./grounding_dino_swin_l.py"

model = dict(
    type="ProposalDINO",
    language_model=None,
    encoder=dict(text_layer_cfg=None, fusion_layer_cfg=None),
    decoder=dict(layer_cfg=dict(cross_attn_text_cfg=None)),
    bbox_head=dict(
        num_classes=1,
        share_boxes=True,
        contrastive_cfg=dict(log_scale="none", bias=False),
    ),
    test_cfg=dict(max_per_img=900),
)
