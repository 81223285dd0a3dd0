"""GLaMM at its published size (arXiv 2311.03356): CLIP ViT-L/14-336, Vicuna 7B, SAM ViT-H."""

clip = "openai/clip-vit-large-patch14-336"
llava = "llava-hf/llava-1.5-7b-hf"
vicuna = "lmsys/vicuna-7b-v1.5"
sam = "checkpoints/sam_vit_h_4b8939.pth"
model = dict(
    type="RegionLMM",
    towers=dict(
        # Regions read four layers, image tokens the last of them: the last but one of CLIP.
        clip=dict(type="TransformersTower", model=clip, layers=[14, 17, 20, 23]),
        sam=dict(type="SamTower", model=sam),
    ),
    slots=dict(
        image=dict(
            tower="clip",
            encoder=dict(type="AverageGrid", size=24),
            connector=dict(type="MLPConnector", source=llava, frozen=True),
        ),
        region=dict(
            tower="clip",
            encoder=dict(type="FusedRoIAlign", in_dims=1024, dims=1024),
            connector=dict(type="MLPConnector", depth=1),
        ),
    ),
    lmm=dict(
        type="LanguageModel",
        model=vicuna,
        frozen="layers",
        lora=dict(r=8, alpha=16, dropout=0.05, targets=["q_proj", "v_proj"]),
        checkpoint=True,
        added_tokens=["<im_start>", "<im_end>"],
    ),
    output=dict(
        type="Mask",
        tower="sam",
        decoder=dict(type="MaskDecoder", model=sam),
        cross_entropy=2.0,
        dice=0.5,
    ),
    talk=dict(
        max_length=1536,
        max_new_tokens=512,
        system=(
            "A chat between a curious human and an artificial intelligence assistant. The assistant "
            "gives helpful, detailed, and polite answers to the human's questions."
        ),
        template="vicuna",
        around=dict(image=["<im_start>", "<im_end>"]),
    ),
)
