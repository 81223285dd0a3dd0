"""A language model of toy size with random weights, that learns the captions of the toy set."""

lmm = dict(
    type="LanguageModel",
    # Written by `python -m llmdet.datasets.toy data/toy`, so that nothing is downloaded.
    model="data/toy/language_model",
    # It has no language to keep.
    frozen=False,
    dtype="float32",
    region_attention=dict(every=2),
)
image_captioner = dict(encoder=dict(type="GridCells", grids=((-2, 4), (-3, 8))), max_length=224)
region_captioner = dict(encoder=dict(type="ObjectQueries"), max_length=48)
