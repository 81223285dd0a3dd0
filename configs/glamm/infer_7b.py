"""GLaMM as released, whose folder has all weights but perhaps CLIP's, and the faults they know.

Its language model is under the terms of Vicuna and LLaMA (docs/licences.md).
"""

_base_ = "../_base_/models/glamm_7b.py"

glamm = "checkpoints/GLaMM-FullScope"
vit_h = dict(
    model_type="sam",
    vision_config=dict(
        hidden_size=1280,
        mlp_dim=5120,
        num_hidden_layers=32,
        num_attention_heads=16,
        global_attn_indexes=[7, 15, 23, 31],
    ),
    # As in the original; transformers has 1e-6, which moves logits of masks by nearly 0.01.
    mask_decoder_config=dict(layer_norm_eps=1e-5),
)
model = dict(
    towers=dict(
        clip=dict(view=dict(fit="crop")), sam=dict(_delete_=True, type="SamTower", model=vit_h)
    ),
    slots=dict(
        image=dict(connector=dict(source=None)),
        region=dict(encoder=dict(legacy_roi_scale=224.0, legacy_crop=True)),
    ),
    lmm=dict(
        model=glamm,
        pretrained=False,
        frozen=True,
        lora=None,
        checkpoint=False,
    ),
    output=dict(
        introduction="The <image> provides an overview of the picture.\n",
        decoder=dict(_delete_=True, type="MaskDecoder", model=vit_h),
    ),
    talk=dict(legacy_blanks=True),
)
