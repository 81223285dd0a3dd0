"""Fine-tune all weights of the quickstart's detector, and go on training what it was taught.

    bash dist_train.sh configs/finetune/full_replay.py 1 --cfg-options data_root=FOLDER/
    python tools/analysis/interpolate.py work_dirs/quickstart/latest.pth \
        work_dirs/full_replay/iter_400.pth --alpha 0.5 between.pth

A quarter of the images are rows of the toy set's JSONL, each with the classes of its own set.
"""

_base_ = "./full.py"

replay_root = "data/toy/"

train_dataloader = dict(
    sampler=dict(_delete_=True, type="ShareSampler", shares=[0.75, 0.25]),
    dataset=dict(
        _delete_=True,
        type="ConcatDataset",
        datasets=[
            _base_.train_dataloader.dataset,
            dict(
                type="ODVGDataset",
                data_root=replay_root,
                ann_file="annotations/train_detection.jsonl",
                label_map_file="annotations/label_map.json",
                data_prefix=dict(img="images/"),
                pipeline=_base_.train_pipeline,
                return_classes=True,
            ),
        ],
    ),
)
