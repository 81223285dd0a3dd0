"""Image captions from the last layer's object queries instead of encoder memory."""

_base_ = "../grounding_dino_swin_t.py"

model = dict(image_captioner=dict(encoder=dict(_delete_=True, type="AllQueries")))
