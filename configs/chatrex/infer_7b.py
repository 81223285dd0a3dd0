"""ChatRex-7B as released, whose language model is Vicuna 7B: the folder has all weights.

Its licence is for research that is not commercial (docs/licences.md).
"""

_base_ = "../_base_/models/chatrex.py"

chatrex = "checkpoints/ChatRex-7B"
model = dict(
    towers=dict(dual=dict(coarse=dict(pretrained=False), fine=dict(pretrained=False))),
    lmm=dict(model=chatrex, pretrained=False, checkpoint=False),
    talk=dict(
        system=(
            "A chat between a curious user and an artificial intelligence assistant. The assistant "
            "gives helpful, detailed, and polite answers to the user's questions."
        ),
        template="vicuna",
    ),
)
