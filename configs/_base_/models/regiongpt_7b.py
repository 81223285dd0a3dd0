"""RegionGPT at its paper's size (arXiv 2403.02330): CLIP ViT-L/14-336 and Vicuna 7B."""

clip = "openai/clip-vit-large-patch14-336"
vicuna = "lmsys/vicuna-7b-v1.5"
model = dict(
    type="RegionLMM",
    towers=dict(
        clip=dict(
            type="RefinedTower",
            tower=dict(type="TransformersTower", model=clip, layers=[-2]),
            refinement="deconv",
        )
    ),
    slots=dict(
        image=dict(
            tower="clip",
            encoder=dict(type="AverageGrid", size=24),
            connector=dict(type="MLPConnector"),
        ),
        region=dict(tower="clip", encoder=dict(type="MaskPool"), connector="image"),
    ),
    lmm=dict(type="LanguageModel", model=vicuna, checkpoint=True),
    talk=dict(
        max_length=2048,
        system=(
            "A chat between a curious user and an artificial intelligence assistant. The assistant "
            "gives helpful, detailed, and polite answers to the user's questions."
        ),
        template="vicuna",
    ),
)
