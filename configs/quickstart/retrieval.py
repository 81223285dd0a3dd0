"""A tiny language model that finds what words mean among candidate boxes of the toy set.

``python -m llmdet.datasets.toy data/toy --regions`` writes what it learns; its candidates are the
objects alone. What the number of a candidate means is hardly learned from pictures alone.
``tools/benchmark/retrieval.py`` teaches it first, and puts boxes of a detector of proposals among
the objects; ``load_from=work_dirs/retrieval/with_rejection_seed0/weights.pth`` begins behind it.
"""

_base_ = "./region_lmm.py"

model = _base_.model
# Two of the image's queries: the candidates show all that is asked for.
model["slots"]["image"]["encoder"]["count"] = 2
model["lmm"].update(model="data/toy/retrieval_language_model", added_spread=3.3)
model["output"] = dict(type="ObjectIndex", count=16, numbered=1.0)
model["talk"]["max_new_tokens"] = 96  # every candidate may be thought about

# Rows have their candidates in random order, which what they say follows.
mixed = dict(type="MixCandidates", most=12, shuffle=False)
train_dataloader = dict(
    dataset=dict(
        ann_file="annotations/train_retrieval.jsonl",
        pipeline=[
            dict(type="LoadImageFromFile"),
            mixed,
            dict(type="TokenizeConversations"),
            dict(type="MakeViews"),
            dict(type="PackViews"),
        ],
    )
)
# Behind ``load_from`` the connector has begun, and learns as fast as the language model.
optim_wrapper = dict(optimizer=dict(lr=2e-4), paramwise_cfg=dict(_delete_=True))
