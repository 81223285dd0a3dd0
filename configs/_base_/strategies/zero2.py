"""Optimizer states are spread over all processes of a run by DeepSpeed; weights are whole."""

strategy = dict(type="DeepSpeed", stage=2)
