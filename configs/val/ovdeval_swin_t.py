"""OVDEval: NMS-AP of nine tasks that ask for fine distinctions, and their mean."""

_base_ = "../grounding_dino_swin_t.py"

data_root = "data/ovdeval/"
tasks = (
    "celebrity",
    "color",
    "landmark",
    "logo",
    "material",
    "negation",
    "object",
    "position",
    "relationship",
)

model = dict(lmm=None, test_cfg=dict(limit_per="image", chunked_size=-1))

val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type="BenchmarkSets",
        sets={
            task: dict(
                type="OVDEvalDataset",
                data_root=data_root,
                ann_file="annotations/" + task + ".json",
                data_prefix=dict(img="images/" + task),
                test_mode=True,
                pipeline=_base_.test_pipeline,
            )
            for task in tasks
        },
    )
)
test_dataloader = val_dataloader
val_evaluator = dict(
    _delete_=True,
    type="BenchmarkEvaluator",
    mean_of="AP",
    metrics={
        task: dict(type="OVDEvalMetric", ann_file=data_root + "annotations/" + task + ".json")
        for task in tasks
    },
)
test_evaluator = val_evaluator
