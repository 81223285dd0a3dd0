"""GLaMM's grounded conversations, by GLaMM as released, asked as its program asks."""

_base_ = [
    "../infer_7b.py",
    "../../_base_/datasets/gcg.py",
    "../../_base_/default_runtime.py",
]

introduction = "The <image> provides an overview of the picture.\n"
test_dataloader = dict(
    dataset=dict(
        sets={
            split: dict(introduction=introduction, legacy_prompt=True) for split in _base_.gcg_files
        }
    )
)
