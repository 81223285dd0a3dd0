"""Fine-tune all of Swin-T on a folder of plain COCO json, with rows of its pre-training mixed in.

    bash dist_train.sh configs/finetune/full_replay_swin_t.py 8 --amp \
        --cfg-options data_root=FOLDER/ load_from=tiny.pth lang_model_name=FOLDER_OF_BERT

A quarter of the images are GQA's of GroundingCap-1M, see data/README.md; replay_root and replay_file
name any other grounding JSONL.
"""

_base_ = ["./coco_json_swin_t.py", "../_base_/datasets/zero_shot_coco.py"]

replay_root = "data/gqa/"
replay_file = "gqa_train_vg7.jsonl"

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
                ann_file=replay_file,
                data_prefix=dict(img="images/"),
                pipeline=_base_.train_pipeline,
                return_classes=True,
            ),
        ],
    ),
)
