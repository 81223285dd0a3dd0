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
# Object queries are few and hold what the detector knows already: from cells of its maps, a language
# model this new learns in minutes how captions sound, but not what they say (docs/benchmarks.md).
image_captioner = dict(encoder=dict(type="BestQueries", count=12), max_length=200, system=None)
region_captioner = dict(encoder=dict(type="ObjectQueries"), max_length=48, system=None)
