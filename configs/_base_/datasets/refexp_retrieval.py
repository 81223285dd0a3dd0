"""RefCOCO, RefCOCO+ and RefCOCOg by finding what an expression means among a detector's boxes.

Candidates are prediction files by the ids of the expressions, such as
``bash dist_test.sh configs/val/refexp_swin_t.py ... --out`` writes, one for each file.
"""

_base_ = "../question_loader.py"

data_root = "data/coco/"
part = dict(
    type="ExpressionRetrievalDataset",
    data_root=data_root,
    data_prefix=dict(img="train2014/"),
    candidates_of="expression",
    max_candidates=100,
    pipeline=_base_.question_pipeline,
)
files = dict(
    val="final_refexp_val",
    refcoco_testA="finetune_refcoco_testA",
    refcoco_testB="finetune_refcoco_testB",
    refcoco_plus_testA="finetune_refcoco+_testA",
    refcoco_plus_testB="finetune_refcoco+_testB",
    refcocog_test="finetune_refcocog_test",
)
test_dataloader = dict(
    dataset=dict(
        type="BenchmarkSets",
        sets={
            name: dict(
                **part,
                ann_file="mdetr_annotations/" + file + ".json",
                candidates="candidates/" + name + ".jsonl",
            )
            for name, file in files.items()
        },
    ),
)
test_evaluator = dict(
    type="BenchmarkEvaluator",
    metrics={
        name: dict(type="RefExpMetric", ann_file=data_root + "mdetr_annotations/" + file + ".json")
        for name, file in files.items()
    },
)
