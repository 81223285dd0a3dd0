"""RefCOCO, RefCOCO+, RefCOCOg (precision@1, 5, 10 of 30 boxes) and gRefCOCO, in MDETR's files."""

_base_ = "../grounding_dino_swin_t.py"

data_root = "data/coco/"
ann_folder = "mdetr_annotations/"
files = dict(
    val="final_refexp_val.json",
    refcoco_testA="finetune_refcoco_testA.json",
    refcoco_testB="finetune_refcoco_testB.json",
    refcoco_plus_testA="finetune_refcoco+_testA.json",
    refcoco_plus_testB="finetune_refcoco+_testB.json",
    refcocog_test="finetune_refcocog_test.json",
    grefcoco_val="finetune_grefcoco_val.json",
    grefcoco_testA="finetune_grefcoco_testA.json",
    grefcoco_testB="finetune_grefcoco_testB.json",
)

model = dict(lmm=None, test_cfg=dict(max_per_img=30, limit_per="image", chunked_size=-1))

val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type="BenchmarkSets",
        sets={
            name: dict(
                type="MDETRStyleRefCocoDataset",
                data_root=data_root,
                ann_file=ann_folder + file,
                data_prefix=dict(img="train2014/"),
                test_mode=True,
                pipeline=_base_.test_pipeline,
            )
            for name, file in files.items()
        },
    )
)
test_dataloader = val_dataloader
val_evaluator = dict(
    _delete_=True,
    type="BenchmarkEvaluator",
    metrics={
        name: dict(
            type="GRefCOCOMetric" if name.startswith("grefcoco") else "RefExpMetric",
            ann_file=data_root + ann_folder + file,
        )
        for name, file in files.items()
    },
)
test_evaluator = val_evaluator
