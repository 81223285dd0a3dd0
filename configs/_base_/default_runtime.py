"""Hooks, logs and environment that all runs share; counted in iterations."""

default_scope = "llmdet"

default_hooks = dict(
    timer=dict(type="IterTimerHook"),
    logger=dict(type="LoggerHook", interval=50),
    param_scheduler=dict(type="ParamSchedulerHook"),
    checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=5000, max_keep_ckpts=5),
    sampler_seed=dict(type="DistSamplerSeedHook"),
    finite_losses=dict(type="FiniteLossHook", interval=10),
    interrupt=dict(type="InterruptHook"),
    dropped=dict(type="DropSummaryHook"),
    # A few pictures of each validation, in TensorBoard and in the folder of the run.
    visualization=dict(type="DetVisualizationHook", draw=True, pictures=8),
)

env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0),
    dist_cfg=dict(backend="nccl"),  # gloo where there is no CUDA
)

visualizer = dict(
    type="DetLocalVisualizer",
    vis_backends=[dict(type="LocalVisBackend"), dict(type="TensorboardVisBackend")],
)
log_processor = dict(type="LogProcessor", window_size=50, by_epoch=False)
log_level = "INFO"

load_from = None
load_missing = []  # parts of the model, such as "lmm", that load_from may lack: they begin anew
resume = False
