"""Proposals of the toy set for a language model that chooses among them: twice the queries."""

_base_ = "./toy.py"

model = dict(num_queries=100, test_cfg=dict(max_per_img=100))
