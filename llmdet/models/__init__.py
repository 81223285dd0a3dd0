"""Models of LLMDet.

The letters of all shape comments: B images, Q queries, M denoising queries, C channels,
L text tokens, S flattened pixels of all levels, K classes or phrases of a prompt, N boxes,
P sampling points, D decoder layers.
"""
