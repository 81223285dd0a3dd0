"""RegionGPT's parts at a size that one GPU trains: SigLIP SO400M/14-384 and Qwen2.5 0.5B."""

siglip = "google/siglip-so400m-patch14-384"
qwen = "Qwen/Qwen2.5-0.5B-Instruct"
model = dict(
    type="RegionLMM",
    towers=dict(
        siglip=dict(
            type="RefinedTower",
            tower=dict(type="TransformersTower", model=siglip, layers=[-2]),
            refinement="deconv",
        )
    ),
    slots=dict(
        # A quarter of the 27 x 27 cells: a small language model reads long images slowly.
        image=dict(
            tower="siglip",
            encoder=dict(type="AverageGrid", size=14),
            connector=dict(type="MLPConnector"),
        ),
        region=dict(tower="siglip", encoder=dict(type="MaskPool"), connector="image"),
    ),
    lmm=dict(type="LanguageModel", model=qwen, checkpoint=True),
    talk=dict(max_length=1024, system=None),
)
