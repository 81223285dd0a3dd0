"""What a detector with Swin-B (pre-trained at 384 pixels) has in the place of Swin-T."""

swin_b = dict(
    backbone=dict(
        pretrain_img_size=384,
        embed_dims=128,
        depths=[2, 2, 18, 2],
        num_heads=[4, 8, 16, 32],
        window_size=12,
        drop_path_rate=0.3,
    ),
    neck=dict(in_channels=[256, 512, 1024]),
)
