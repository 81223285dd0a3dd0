"""A detector of a few million parameters that learns small data sets from scratch on two cores."""

_base_ = "./grounding_dino_swin_t.py"

# Written by `python -m llmdet.datasets.toy data/toy`, so that nothing is downloaded.
lang_model_name = "data/toy/bert"
dims = 96
levels = 3
deformable = dict(embed_dims=dims, num_heads=4, num_levels=levels, num_points=2)
ffn = dict(embed_dims=dims, feedforward_channels=384)

model = dict(
    num_queries=50,
    num_feature_levels=levels,
    language_model=dict(name=lang_model_name),
    backbone=dict(
        embed_dims=32,
        depths=[2, 2, 2, 2],
        num_heads=[1, 2, 4, 8],
        drop_path_rate=0.0,
        with_cp=False,
    ),
    neck=dict(in_channels=[64, 128, 256], out_channels=dims, num_outs=levels),
    encoder=dict(
        num_layers=2,
        num_cp=0,
        layer_cfg=dict(self_attn_cfg=deformable, ffn_cfg=ffn),
        text_layer_cfg=dict(
            self_attn_cfg=dict(embed_dims=dims),
            ffn_cfg=dict(embed_dims=dims, feedforward_channels=256),
        ),
        # From scratch, text must reach the image from the first step.
        fusion_layer_cfg=dict(
            v_dim=dims, l_dim=dims, embed_dim=2 * dims, dropout=0.0, init_values=0.1
        ),
    ),
    decoder=dict(
        num_layers=2,
        layer_cfg=dict(
            self_attn_cfg=dict(embed_dims=dims),
            cross_attn_text_cfg=dict(embed_dims=dims),
            cross_attn_cfg=deformable,
            ffn_cfg=ffn,
        ),
    ),
    positional_encoding=dict(num_feats=dims // 2),
    dn_cfg=dict(group_cfg=dict(num_dn_queries=20)),
    test_cfg=dict(max_per_img=50),
)
