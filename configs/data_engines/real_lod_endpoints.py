_base_ = ["real_lod.py"]
# A vision model and a language model behind endpoints: vLLM, SGLang or any like them.
vision = dict(
    _delete_=True,
    backend="openai",
    model="Qwen/Qwen3-VL-32B-Instruct",
    url="http://localhost:8000/v1",
    max_new_tokens=512,
    batch_size=128,  # requests under way at a time
)
language = dict(
    _delete_=True,
    backend="openai",
    model="Qwen/Qwen3-30B-A3B-Instruct-2507",
    url="http://localhost:8001/v1",
    max_new_tokens=512,
    batch_size=256,
)
models = dict(planner=language, reflector=language, rewriter=language, describer=vision)
