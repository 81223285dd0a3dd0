"""A tiny language model that finds what words mean among candidate boxes of the toy set.

``python -m llmdet.datasets.toy data/toy --regions`` writes what it learns; its candidates are the
objects alone. ``tools/benchmark/retrieval.py`` puts boxes of a detector of proposals among them.
"""

_base_ = "./region_lmm.py"

model = _base_.model
# Two of the image's queries: the candidates show all that is asked for.
model["slots"]["image"]["encoder"]["count"] = 2
model["lmm"].update(model="data/toy/retrieval_language_model", added_spread=1.0)
model["output"] = dict(type="ObjectIndex", count=16, numbered=1.0)
model["talk"]["max_new_tokens"] = 32

rows = _base_.train_dataloader.dataset
mixed_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="MixCandidates", most=12, rule="score"),
    dict(type="TokenizeConversations"),
    dict(type="MakeViews"),
    dict(type="PackViews"),
]
searches = dict(**rows)
searches.update(ann_file="annotations/train_retrieval.jsonl", pipeline=mixed_pipeline)
names = dict(**rows)
names.update(ann_file="annotations/train_naming.jsonl")
train_dataloader = dict(
    dataset=dict(_delete_=True, type="ConcatDataset", datasets=[searches, names])
)
