# Real-LOD's agent with one model in this process for all of its roles; 8 B fit a GPU of 24 GB.
model = dict(
    backend="transformers",
    model="Qwen/Qwen3-VL-8B-Instruct",
    device="cuda",
    max_new_tokens=512,
    batch_size=32,
)
models = dict(planner=model, reflector=model, rewriter=model, describer=model)
agent = dict(
    max_cycles=3,  # plans that are carried out; the last one is reflected on like the others
    attempts=3,  # how often a model is asked until its answer can be used
    planner_confirms=False,  # True, as in the paper: the planner alone says that nothing is left
)
