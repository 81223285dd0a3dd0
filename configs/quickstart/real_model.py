"""A tiny Real-Model, which learns sentences about toy scenes; see tools/benchmark/real_model.py."""

_base_ = [
    "../_base_/models/grounding_dino_quickstart.py",
    "../_base_/models/long_text.py",
    "../_base_/datasets/toy_descriptions.py",
    "../_base_/schedules/quickstart.py",
    "../_base_/default_runtime.py",
]

model = dict(
    language_model=dict(name=_base_.data_root + "bert", **_base_.long_text),
    test_cfg=dict(chunked_size=1),  # one description a prompt
)
