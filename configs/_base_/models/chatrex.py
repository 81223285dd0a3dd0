"""ChatRex at its paper's size (arXiv 2411.18363): CLIP ViT-L/14-336 beside ConvNeXt-L at 768 pixels,
and Qwen2.5 7B, which names candidate boxes.
"""

qwen = "Qwen/Qwen2.5-7B-Instruct"
model = dict(
    type="RegionLMM",
    towers=dict(
        dual=dict(
            type="DualTower",
            coarse=dict(
                type="TransformersTower", model="openai/clip-vit-large-patch14-336", layers=[-2]
            ),
            # CLIP's image encoder laion/CLIP-convnext_large_d_320.laion2B-s29B-b131K-ft-soup.
            fine=dict(
                type="ConvNextTower",
                model=dict(
                    model_type="convnext",
                    hidden_sizes=[192, 384, 768, 1536],
                    depths=[3, 3, 27, 3],
                    image_size=768,
                ),
                weights="checkpoints/clip_convnext_large_d_320.safetensors",
            ),
        )
    ),
    slots=dict(
        image=dict(
            tower="dual",
            encoder=dict(type="AverageGrid", size=24),
            connector=dict(type="MLPConnector"),
        ),
        region=dict(
            tower="dual",
            encoder=dict(type="RoIAlign", levels=[0, 1, 2, 3], upsample=True, aligned=False),
            connector=dict(type="MLPConnector"),
        ),
    ),
    lmm=dict(type="LanguageModel", model=qwen, checkpoint=True),
    output=dict(type="ObjectIndex"),
    talk=dict(max_length=2048, max_new_tokens=512, system=None),
)
