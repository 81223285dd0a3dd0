"""GranD: objects with masks, their relations and dense captions, level by level (GLaMM, section 4).

One level reads what the one below has written (arXiv 2311.03356): 1 objects, 2 short captions and
relations, 3 a dense caption, 4 context.
"""
