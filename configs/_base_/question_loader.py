"""How pictures that questions are asked about are loaded for a test, whatever is asked."""

question_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="MakeViews"),
    dict(type="PackViews"),
]
test_dataloader = dict(
    batch_size=8,
    num_workers=8,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type="DefaultSampler", shuffle=False),
)
test_cfg = dict(type="TestLoop")
