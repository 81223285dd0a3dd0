"""D3 by Real-Model with Swin-T, one description a prompt.

Concatenated, as many in a prompt as fit: --cfg-options model.test_cfg.chunked_size=-1
"""

_base_ = ["./d3_swin_t.py", "../_base_/models/long_text.py"]

model = dict(language_model=_base_.long_text, test_cfg=dict(chunked_size=1))
